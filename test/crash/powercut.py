"""Layer L4: real power losses, on a file system in a file, in a mount namespace of its own.

FS_IOC_SHUTDOWN without a flush of the journal stops a file system at once: what has not reached
its disk by then is gone. Then it is mounted again, which replays its journal.

`command` plays some rounds and prints one line of JSON for each. It is the first process of its
namespaces: when it ends, however it ends, all processes and mounts in them go, and with the
mounts the loop devices.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crash import Crashed, Event, Expected, Finish, expect, oracle, workers
from osbuild_pika.lifecycle import Journal, LifecycleError

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same for ext4 and xfs
NO_LOG_FLUSH = 2
SIZE = {"ext4": 64 * 1024**2, "xfs": 320 * 1024**2}  # bytes; mkfs.xfs refuses less than 300 MiB
OPTIONS = {"ext4": ("data=ordered", "data=writeback", "data=journal"), "xfs": ("rw",)}
LONGEST_S = 1.0  # of work before the power goes
NEAR_END = 0.7  # of the runs that end are cut about their end,
NEAR_S = 0.03  # so long after it began, at most
CREWS = (  # workers of a round; two that write statuses would not know whose is the last
    ("ours.0.0", "ours.1.0", "ours.2.0", "status.3.0"),
    ("ours.0.0", "ours.1.0", "end.2.0"),
    ("ours.0.0", "ours.1.0", "status.2.0", "original.3.0"),
    ("ours.0.0", "end.1.0", "original.2.0"),
)
FREED_S = 10.0  # the kernel frees a loop device a little after its last mount is gone
ROUND_S = 30.0  # after which a round hangs
CODE = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
importlib.import_module(f"crash.{sys.argv[3]}").main(*sys.argv[4:])
"""
NEXT = Event("ready", "after the power loss")


@dataclass(frozen=True)
class Loss:
    """One power loss. acked: calls before it; in_flight: in it. is_torn: the log's last line is."""

    faults: tuple[oracle.Fault, ...]
    acked: int
    in_flight: int
    is_torn: bool


# --- for tests ------------------------------------------------------------------------------------


def command(
    directory: Path, file_system: str, rounds: int, *names: str, module: str = "powercut"
) -> list[str]:
    """What plays these rounds in a directory. names: of the workers; none: the usual ones.

    module: of this package, whose `main` plays them.
    """
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    alone.append("--mount-proc")
    here = Path(__file__).parents[1]
    python = [sys.executable, "-S", "-c", CODE, str(here.parent), str(here)]
    return [*alone, *python, module, str(directory), file_system, str(rounds), *names]


def losses(
    directory: Path, file_system: str, rounds: int, *names: str, module: str = "powercut"
) -> list[Loss]:
    """Lose power some times. Raises subprocess.CalledProcessError if that cannot be done."""
    argv = command(directory, file_system, rounds, *names, module=module)
    try:
        done = subprocess.run(argv, capture_output=True, check=True, timeout=ROUND_S * (rounds + 1))
    finally:
        (directory / "image").unlink(missing_ok=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Loss(**{**loss, "faults": tuple(oracle.Fault(**fault) for fault in loss["faults"])})
        for loss in found
    ]


def why_not(directory: Path, file_system: str) -> str | None:
    """Why no power can be lost here; None if it can."""
    try:
        losses(directory, file_system, 1, "status.0.0")
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode().splitlines() or [""]
        return f"needs root, loop devices and {file_system}: {lines[0]} {lines[-1]}"
    return None


def attached(directory: Path) -> list[str]:
    """The loop devices that have a file in this directory."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(FileNotFoundError):  # it was just freed
            if backing.read_text().startswith(f"{directory}/"):
                found.append(backing.parts[3])
    return found


def is_freed(directory: Path) -> bool:
    """Whether no mount and no loop device is left; waits for that."""
    deadline = time.monotonic() + FREED_S
    while attached(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not attached(directory) and str(directory) not in Path("/proc/self/mounts").read_text()


# --- in the namespace -----------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(image: Path, where: Path, option: str) -> Iterator[Path]:
    subprocess.run(["mount", "-o", f"loop,{option}", image, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def cut_power(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


def sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def moment(fleet: workers.Fleet, ends: bool) -> None:
    """Wait for a random moment; if the run is ended by a worker, for one about its end."""
    deadline = time.monotonic() + random.uniform(0, LONGEST_S)
    if ends and random.random() < NEAR_END:
        while not any(isinstance(mark.work, Finish) for mark in fleet.report().asked):
            time.sleep(0.001)
            if not fleet.names:
                return
        deadline = time.monotonic() + random.uniform(0, NEAR_S)
    time.sleep(max(0.0, deadline - time.monotonic()))


def lose(run: Path, names: Sequence[str]) -> tuple[Expected, Loss]:
    """Let workers write, and cut the power. Returns what must and may be left."""
    if any(workers.role(name) == "original" for name in names):
        run.mkdir()  # our own writer makes it, and so that it lasts; the original does not
        sync(run.parent)
    with workers.Fleet(functools.partial(workers.open_writer, run)) as fleet:
        for name in names:
            fleet.start(name)
        moment(fleet, ends=any(workers.role(name) == "end" for name in names))
        position = fleet.position
        cut_power(run.parent)
        for name in fleet.names:
            fleet.kill(name)
        before, after = fleet.report(0, position), fleet.report(position)
    # What was acknowledged behind `position` may have been so before the power went, or after.
    marks = (*before.marks, *after.asked, Crashed())
    faults = tuple(oracle.Fault(oracle.REFUSED, error) for error in before.errors)
    in_flight = len(before.asked) + len(after.asked) - len(before.acked)
    return expect(marks), Loss(faults, len(before.acked), in_flight, False)


def judge(run: Path, expected: Expected) -> list[oracle.Fault]:
    """Judge what is left, and two ways to go on: just so, and with `recover`."""
    found = oracle.look(run)
    expected = oracle.excuse(expected, found)
    faults = oracle.check_documents(found, expected)
    for directory in (run.with_name("append"), run.with_name("recover")):
        if run.exists():
            shutil.copytree(run, directory)
        try:
            if directory.name == "recover" and found.log is not None:
                faults += recover(directory, expected)
            faults += append(directory, expected)
        except (LifecycleError, OSError) as error:
            faults.append(oracle.Fault(oracle.REFUSED, f"{directory.name}: {error!r}"))
    return faults


def recover(directory: Path, expected: Expected) -> list[oracle.Fault]:
    with Journal(directory) as journal:
        journal.recover()
    found = oracle.look(directory)
    faults = oracle.check(found, expected)
    return faults + (oracle.check_end(found, expected) if expected.finish else [])


def append(directory: Path, expected: Expected) -> list[oracle.Fault]:
    with Journal(directory) as journal:
        acked = (workers.do(journal, NEXT), NEXT)
    after = replace(expected, acked=(*expected.acked, acked), asked=(*expected.asked, NEXT))
    return oracle.check(oracle.look(directory), after)


def new_disk(directory: Path, file_system: str) -> tuple[Path, Path]:
    """Make a file with a file system. Returns it, and where to mount it."""
    image = directory / "image"
    disk = directory / "disk"
    disk.mkdir(exist_ok=True)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZE[file_system])
    subprocess.run([f"mkfs.{file_system}", "-q", image], check=True)
    return image, disk


def play(directory: Path, file_system: str, option: str, names: Sequence[str]) -> Loss:
    """One power loss on a new file system."""
    image, disk = new_disk(directory, file_system)
    with mounted(image, disk, option):
        expected, loss = lose(disk / "run", names)
    with mounted(image, disk, option):
        log = oracle.look(disk / "run").log or b"\n"
        faults = judge(disk / "run", expected)
    return replace(loss, faults=(*loss.faults, *faults), is_torn=not log.endswith(b"\n"))


Play = Callable[[Path, str, str, Sequence[str]], Loss]


def play_rounds(play: Play, crews: Sequence[Sequence[str]], *arguments: str) -> None:
    """The program of `command`. crews: take turns if none is given."""
    directory, file_system, rounds, *names = arguments
    for number in range(int(rounds)):
        option = OPTIONS[file_system][number % len(OPTIONS[file_system])]
        crew = names or crews[number % len(crews)]
        loss = play(Path(directory), file_system, option, crew)
        print(json.dumps(asdict(loss)), flush=True)


main = functools.partial(play_rounds, play, CREWS)
