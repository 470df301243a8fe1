"""Processes that write lifecycle artifacts at the same time and may be killed at any moment.

Each call is reported before it is made and after it returned, as one line with one write, to a
file in memory that all workers share: the lines have one order, and they outlive their writers.
What a worker writes is a pure function of its name and of how many calls it has made, so a line
needs to say no more than that.

A worker's name is `role.number.life`: `ours.3.7` is the seventh life of the third writer of ours.
Roles: see `work`. The writers are made by a function of the name, so that any client will do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from crash import Acked, Asked, Batch, Crashed, Event, Finish, Mark, Result, Status, Work
from crash.original import Original
from osbuild_pika.lifecycle import Journal, LifecycleError

PAUSE_S = 0.005  # at most, between two calls of a worker: no run reaches the limit of a log
STOP_S = 20.0  # in which a worker must end its last call
END = 12  # the call with which a worker of the role "end" ends the run
LARGE = 10 * 1024  # bytes of a message in a batch that a kill can tear
RUN = "web"  # the run that callers of a lifecycle service write to
STAGE = {"pipeline": "os", "stage": "org.example.demo", "stage_id": "ab"}
# What the service puts into the details of the owner's events, and of a stage's.
OWNERS: dict[str, Any] = {"run_id": RUN}
STAGES: dict[str, Any] = {**OWNERS, **STAGE, "source": "stage", "event": "stage.note"}
REPAIRS = 5  # times that a worker repairs a log for one call before it gives up
Writer = Any  # has the methods of a Journal


class Gone(Exception):
    """The service that was called is dead: what of the call it had not done, it never will."""


def role(name: str) -> str:
    return name.partition(".")[0]


def work(name: str, n: int) -> Work:
    """What the worker of this name does in its nth call; the first is 0.

    original: events. status: statuses and events. end: statuses, and at last the run's end. client,
    owner, ender: calls of a lifecycle service. All others: events and batches, of which one is
    large.
    """
    text = f"{name} {n}"
    if role(name) in ("client", "owner", "ender"):
        return _call(name, n, text)
    if role(name) == "end" and n >= END:
        return Finish(Result("failed", 7, text, {"n": n}))
    if role(name) in ("end", "status") and n % 3:
        return Status("starting", text, {"n": n} if n % 2 else None)
    if role(name) in ("original", "end", "status") or n % 4 != 2:
        return Event("ready", text, {"n": n}, "original" if role(name) == "original" else "ours")
    rest = "." * (LARGE if n == 2 else 0)
    return Batch(tuple(Event("ready", f"{text} of batch {m} {rest}") for m in range(5)))


def _call(name: str, n: int, text: str) -> Work:
    """A call of a lifecycle service; its details are those that are kept."""
    if role(name) == "client" and n % 4 == 2:
        rest = "." * (LARGE if n == 2 else 0)
        return Batch(tuple(Event("ready", f"{text} of batch {m} {rest}", STAGES) for m in range(5)))
    if role(name) == "client":
        return Event("ready", text, {**STAGES, "n": n})
    if role(name) == "ender" and n >= END:
        return Finish(Result("failed", 7, text, {**OWNERS, "event": "build.failed", "n": n}))
    details = {**OWNERS, "n": n}
    return Status("ready", text, details) if n % 3 else Event("ready", text, details)


def do(writer: Writer, asked: Work) -> int:
    """Have a writer do a work. Returns the seq of its first event, 0 if it has none."""
    if isinstance(asked, Event):
        return int(writer.append(asked.kind, asked.message, asked.details))
    if isinstance(asked, Batch):
        items = [(event.kind, event.message, event.details) for event in asked.events]
        return int(writer.append_many(items)[0])
    if isinstance(asked, Finish):
        return int(writer.finish(*dataclasses.astuple(asked.result)))
    if isinstance(asked, Status):
        writer.write_status(asked.state, asked.message, asked.details)
    else:
        writer.write_result(*dataclasses.astuple(asked))
    return 0


# --- the module os of writers that need another one ----------------------------------------------


class Dying:
    """The module os for a process that is killed in the middle of its nth write."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        self._left -= 1
        if self._left > 0:
            return os.write(fd, data)
        os.write(fd, data[: random.randrange(len(data))])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable: SIGKILL cannot be held off")


class Careless:
    """The module os for a writer that a harness must catch: it syncs nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        pass

    fdatasync = fsync


def open_writer(directory: Path, name: str) -> Writer:
    """A writer to the files in a directory. torn: its process dies in the middle of a write."""
    if role(name) == "original":
        return Original(directory)
    systems = {"torn": lambda: Dying(random.randint(1, 12)), "careless": Careless}
    return Journal(directory, system=systems.get(role(name), lambda: os)())


# --- reports -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """marks: of all calls. errors: a line each. repairs: times that a log was repaired."""

    marks: tuple[Mark, ...]
    errors: tuple[str, ...]
    repairs: int

    @property
    def asked(self) -> list[Asked]:
        return [mark for mark in self.marks if isinstance(mark, Asked)]

    @property
    def acked(self) -> list[Acked]:
        return [mark for mark in self.marks if isinstance(mark, Acked)]


def read_report(lines: bytes) -> Report:
    """Decode what workers wrote: `ask NAME N`, `ack NAME N SEQ`, `bad NAME N TEXT`, `fix NAME N`,
    `cut NAME N`.
    """
    marks: list[Mark] = []
    errors: list[str] = []
    repairs = 0
    for line in lines.decode().split("\n")[:-1]:
        what, name, n, *rest = line.split(" ", 3)
        if what == "ask":
            marks.append(Asked(work(name, int(n))))
        elif what == "ack":
            marks.append(Acked(work(name, int(n)), int(rest[0])))
        elif what == "cut":
            marks.append(Crashed(work(name, int(n))))
        elif what == "fix":
            repairs += 1
        else:
            errors.append(f"{name} {n}: {rest[0]}")
    return Report(tuple(marks), tuple(errors), repairs)


# --- processes -----------------------------------------------------------------------------------


class Fleet:
    """Worker processes, children of this one. Use it in a `with`: at its end all are dead.

    open_writer: makes, in a worker, the writer for a name. The process that forks them must not
    run threads.
    """

    def __init__(self, open_writer: Callable[[str], Writer]) -> None:
        self._open_writer = open_writer
        self._report = os.memfd_create("report", os.MFD_CLOEXEC)
        fcntl.fcntl(self._report, fcntl.F_SETFL, os.O_APPEND)
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._pids):
            self.kill(name)
        os.close(self._report)

    @property
    def names(self) -> Sequence[str]:
        """Of the workers that were not seen dead."""
        return tuple(self._pids)

    @property
    def position(self) -> int:
        """Bytes reported so far."""
        return os.fstat(self._report).st_size

    def report(self, start: int = 0, end: int | None = None) -> Report:
        """What was reported between two positions."""
        size = (self.position if end is None else end) - start
        return read_report(os.pread(self._report, size, start))

    def tell(self, line: str) -> None:
        """Report for a worker: as `attempt` does it."""
        os.write(self._report, line.encode()[:4000] + b"\n")

    def start(self, name: str) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._pids[name] = pid
            return
        code = 1
        try:
            code = _live(name, self._open_writer, self.tell, parent)
        finally:
            os._exit(code)

    def kill(self, name: str) -> None:
        """End a worker with SIGKILL."""
        pid = self._pids.pop(name)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def next_life(self, name: str) -> None:
        """Start a worker again."""
        kind, number, life = name.split(".")
        self.start(f"{kind}.{number}.{int(life) + 1}")

    def dead(self) -> list[str]:
        """Tell once which workers ended by themselves."""
        found = [name for name, pid in self._pids.items() if os.waitpid(pid, os.WNOHANG)[0]]
        for name in found:
            del self._pids[name]
        return found

    def stop(self) -> None:
        """Let every worker end its call and report it. Raises TimeoutError if one does not."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self._pids:
            self.dead()
            if time.monotonic() > deadline:
                raise TimeoutError(f"still at work: {self.names}")
            time.sleep(0.01)


def _live(
    name: str, open_writer: Callable[[str], Writer], tell: Callable[[str], None], parent: int
) -> int:
    """A worker's life, until SIGTERM or its parent's death. Returns the exit code."""
    told: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, stop)
    random.seed()
    n = 0
    try:
        writer = open_writer(name)
        while not told and os.getppid() == parent:
            is_over = attempt(writer, name, n, tell) and isinstance(work(name, n), Finish)
            n += 1
            while is_over and not told and os.getppid() == parent:
                time.sleep(PAUSE_S)  # the run is over, but its writer lives on
            time.sleep(random.uniform(0, PAUSE_S))
    except Exception as error:  # whatever it is, the harness calls it a fault
        tell(f"bad {name} {n} {error!a}")
        return 1
    return 0


def attempt(writer: Writer, name: str, n: int, tell: Callable[[str], None]) -> bool:
    """Do and report a worker's nth call. Returns whether it was acknowledged."""
    tell(f"ask {name} {n}")
    try:
        repairs, seq = _do_and_repair(writer, work(name, n))
    except Gone:
        tell(f"cut {name} {n}")
        return False
    tell(f"fix {name} {n}\n" * repairs + f"ack {name} {n} {seq}")
    return True


def _do_and_repair(writer: Writer, asked: Work) -> tuple[int, int]:
    """Do a work, as a host does it: repair the log if it says that it is corrupt.

    Returns (times that it was repaired, seq of the work's first event).
    """
    for repairs in range(REPAIRS):
        try:
            return repairs, do(writer, asked)
        except LifecycleError as error:
            if error.name != "Corrupt":
                raise
        with contextlib.suppress(LifecycleError):  # there may be a new torn line by now
            writer.recover()
    return REPAIRS, do(writer, asked)
