"""The way through, one function per arrow.

A definition -> a lock -> a manifest -> a plan; an order -> a build's records and end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from osbuild_pika.buildprocess import ENGINE, SIGNALS, Waiting, environment
from osbuild_pika.engine.order import Order
from osbuild_pika.errors import ExitCode, HostError, InputError, PikaError, describe_status

if TYPE_CHECKING:
    from osbuild_pika.engine.manifest import Manifest
    from osbuild_pika.image.lock import Lock
    from osbuild_pika.image.values import Definition

TICK_S = 0.2  # how often who looks on may redraw


class Locked(NamedTuple):
    """A lock, and what it changes against one before. is_new: whether it was written."""

    lock: Lock
    changes: list[str]
    is_new: bool


def lock_path(path: str) -> str:
    """Where the lock of the definition at `path` lies."""
    from osbuild_pika.image import lock

    return lock.place_of(path)


def lock_of(path: str, definition: Definition) -> Lock | None:
    """The lock beside a definition, None if it or one that it is made from has none. Raises
    InputError, also if a lock does not answer its definition any more."""
    locks = _locks(path, definition)
    return locks[-1] if locks else None


def _locks(path: str, definition: Definition) -> list[Lock]:
    """The locks of all generations, the first one's first; none at all if one is missing."""
    from osbuild_pika.image import lock
    from osbuild_pika.image.values import generations

    found: list[Lock] = []
    for place, each in generations(definition, path):
        own = lock.read(lock_path(place))
        if own is None:
            return []
        lock.check(own, each, lock_path(place), found[-1] if found else None)
        found.append(own)
    return found


def new_lock(path: str, definition: Definition, tell: Callable[[str], None]) -> Locked:
    """Resolve a definition and write its lock, unless it is the one that is there already. What it
    is made from is locked before, if it has no lock.

    tell: is given a line at each step. Raises InputError, HostError.
    """
    from osbuild_pika.image import debian, lock

    below: list[Lock] = []
    if parent := definition.parent:
        below = _locks(parent.path, parent.definition)
        if not below:
            tell(f"{parent.name} has no lock yet")
            new_lock(parent.path, parent.definition, tell)
            below = _locks(parent.path, parent.definition)
    try:
        before = lock.read(lock_path(path))
    except InputError:
        before = None  # what cannot be read is made anew
    made = debian.resolve(definition, path, below, os.environ, tell)
    if before is not None and lock.is_same(before, made):
        return Locked(before, [], False)
    lock.write(made, lock_path(path))
    return Locked(made, lock.changes(before, made) if before else [], True)


def image_manifest(path: str, definition: Definition) -> str:
    """The manifest of a definition whose locks are there, as text. Raises InputError, HostError."""
    from osbuild_pika.image import debian, local, manifest
    from osbuild_pika.image.values import generations

    levels = []
    host = debian.host_architecture()
    for (place, each), lock in zip(
        generations(definition, path), _locks(path, definition), strict=True
    ):
        if lock.architecture != host:
            name = os.path.basename(lock_path(place))
            raise HostError(f"{name} is for {lock.architecture}, this machine is {host}")
        levels.append(manifest.Level(each, lock, local.gather(each, place)))
    return json.dumps(manifest.make(levels))


class Wanted(NamedTuple):
    """What is asked about a manifest. name: what it is called. runs: the root of earlier runs."""

    name: str
    exports: tuple[str, ...]
    store: str
    runs: str


def plan_of(manifest: Manifest, wanted: Wanted, libdirs: tuple[Path, ...]) -> dict[str, Any]:
    """What a build would do, as engine/reasons.py says it. Reads only. Raises InputError."""
    from osbuild_pika.engine import hostroot, reasons
    from osbuild_pika.engine.modules import standard
    from osbuild_pika.engine.plan import plan
    from osbuild_pika.engine.session import default_exports
    from osbuild_pika.engine.store import lookup

    digests = hostroot.digests(manifest, standard(libdirs).get)
    exports = wanted.exports or default_exports(manifest)
    planned = plan(manifest, exports, digests, lookup(wanted.store))
    return reasons.describe(planned, wanted.name, reasons.earlier(wanted.runs, wanted.name))


def chore(name: str, store: str, **more: Any) -> dict[str, Any]:
    """Have a chore of engine/chores.py done; returns its answer. Raises HostError."""
    asked = json.dumps({"chore": name, "store": os.path.abspath(store), **more})
    done = subprocess.run(
        [*ENGINE, "chore"],
        input=asked,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        raise HostError(f"{name}: {last or describe_status(done.returncode)}") from None
    if "error" in answer:
        raise HostError(answer["error"])
    return answer


def build(
    order: Order,
    take: Callable[[dict[str, Any]], None],
    tick: Callable[[], None] = lambda: None,
    waiting: Waiting | None = None,
) -> int:
    """Build in a process of its own; returns its exit code (errors.ExitCode, a shell's for a
    build that was killed).

    take: is given each record (see monitor.py). tick: is called several times a second.
    waiting: the process, if it was started before.
    SIGINT and SIGTERM are given to the build while it runs: it ends what it does, and says so.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process, reading = (waiting or Waiting()).use()
        for number in SIGNALS:
            signal.signal(number, lambda number, _: process.send_signal(number))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext():
            if process.stdin:
                process.stdin.write(order.encode())
        with open(reading, "rb", buffering=0) as pipe:
            has_ended = _relay(pipe.fileno(), take, tick)
        return _end(process.wait(), take, has_ended)
    except BaseException:
        process.terminate()  # our end of the records is closed, too
        process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def error_of(code: int, message: str) -> PikaError:
    """The error that a build's exit code means."""
    error = PikaError(message or describe_status(code))
    error.exit_code = ExitCode(code) if code in list(ExitCode) else ExitCode.FAILED
    return error


def _end(status: int, take: Callable[[dict[str, Any]], None], has_ended: bool) -> int:
    """The exit code for the process's status; tells an end that a killed build could not."""
    code = 128 - status if status < 0 else status
    if not has_ended:
        message = f"the build process {describe_status(status)}"
        end = {"success": not code, "exit_code": code, "message": message, "reason": "engine.lost"}
        take({"record": "build.finished", "time": time.time(), **end})
    return code


def _relay(fd: int, take: Callable[[dict[str, Any]], None], tick: Callable[[], None]) -> bool:
    """Give records away until there are no more. Returns whether the last was the end."""
    rest = b""
    has_ended = False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if poll.poll(TICK_S * 1000):  # not select: there may be more than 1,024 descriptors
            data = os.read(fd, 1 << 16)
            if not data:
                return has_ended
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                record = json.loads(line)
                has_ended = has_ended or record.get("record") in ("build.finished", "refused")
                take(record)
        tick()
