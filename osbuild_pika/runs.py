"""Runs: one directory for each build, below the runs' root.

    <root>/<run id>/status.json events.jsonl result.json    the artifacts
                    run.json    facts: run_id, created_at, and who drives it
                    .lock       shared by the engine and its lifecycle service while they live

A run's id is a name, never a path. A run whose lock is free and whose engine is gone is dead:
if it has no verdict, `seal` writes the one that nobody was left to write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections import namedtuple

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FACTS = 64 * 1024  # bytes of a run.json that are ever read
LOST = "the engine and its lifecycle service ended without a word"

_MAX_NAME = 64
_ULID = 27  # characters that it takes behind a name, with its dot
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_OTHERS = "".join(_FIRST) + "._-"
_CREATE_S = 3600
_ULID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # what a rename to a name in use says
_NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM)

# A process for ever: its pid may be another's later. start_time: clock ticks since boot.
Engine = namedtuple("Engine", "pid start_time boot_id")


def is_name(text: str, longest: int = _MAX_NAME) -> bool:
    """Whether a text is [a-z0-9][a-z0-9._-]*. Not by re: patterns cost each start 0.3 ms."""
    return 0 < len(text) <= longest and text[0] in _FIRST and not text.strip(_OTHERS)


def check_name(name: Any) -> str:
    """Return a run's name. Raises LifecycleError InvalidArgument."""
    if not isinstance(name, str) or not is_name(name):
        what = f"{ascii(name)[:60]} is no name of a run: a-z, 0-9, and then also . _ -; at most 64"
        raise LifecycleError("InvalidArgument", what)
    return name


def root() -> str:
    """The directory of all runs: OSBUILD_PIKA_RUNS, else root's or the user's state directory."""
    given = os.environ.get("OSBUILD_PIKA_RUNS")
    if given:
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/lib/osbuild-pika/runs"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "osbuild-pika/runs")


def engine_of(pid: int) -> Engine:
    """The process `pid`, as it can be told from a later one of the same number."""
    return Engine(pid, _start_time(pid), lifecycle.boot_id())


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def all_ids(runs: str) -> list[str]:
    """The ids of all runs below the root, in their order; none if it is not there."""
    try:
        return sorted(filter(is_id, _directories(runs)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_id(text: str) -> bool:
    """Whether this can be a run's id: then it is no path."""
    return is_name(text, _MAX_NAME + _ULID)


class Run:
    """A run that is held: nobody seals it until `close`, or the end of the process.

    is_new: nothing was written yet. recovered: what Journal.recover did to it, if anything.
    """

    def __init__(self, directory: str, is_new: bool) -> None:
        self.id = os.path.basename(directory)
        self.directory = directory
        self.is_new = is_new
        self.recovered: dict[str, Any] = {}
        self._lock_fd = _open_lock(directory)
        fcntl.flock(self._lock_fd, fcntl.LOCK_SH)

    def close(self) -> None:
        os.close(self._lock_fd)


def join(runs: str, name: str, engine: Engine) -> Run:
    """Hold the run `name` of this engine; a new one if it has none, or that one has ended.

    A new run is named <name>.<ULID> if the name is taken: no other engine's run is ever written
    to, and an ended one is not opened again. Other runs of the name that are dead are sealed.
    Raises LifecycleError, OSError.
    """
    check_name(name)
    for run_id in sorted(_of_name(runs, name), reverse=True):
        directory = os.path.join(runs, run_id)
        if read_facts(directory).get("engine") != engine._asdict():
            seal(directory)
            continue
        run = Run(directory, is_new=False)
        if not _has_ended(run):
            return run
        run.close()
    return _create(runs, name, engine)


def _of_name(runs: str, name: str) -> list[str]:
    try:
        ids = _directories(runs)
    except FileNotFoundError:
        return []
    return [each for each in ids if is_run_of(each, name)]


def _directories(runs: str) -> list[str]:
    """The names of what can be a run: never of a link, whose target is somebody else's."""
    with os.scandir(runs) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def is_run_of(run_id: str, name: str) -> bool:
    """Whether a run is the first of a name, or one of the later ones."""
    return run_id == name or (run_id.startswith(f"{name}.") and len(run_id) == len(name) + _ULID)


def _create(runs: str, name: str, engine: Engine) -> Run:
    """Make a run's directory whole, then give it its name; durable on return."""
    if not os.path.isdir(runs):
        os.makedirs(runs, exist_ok=True)
        _sync(os.path.dirname(runs))
    hidden = os.path.join(runs, f".{name}.{_ulid()}")
    os.mkdir(hidden, 0o755)
    try:
        run_id = _place(runs, hidden, name, engine)
    except BaseException:
        for left in os.listdir(hidden):
            os.unlink(os.path.join(hidden, left))
        os.rmdir(hidden)
        raise
    return Run(os.path.join(runs, run_id), is_new=True)


def _place(runs: str, hidden: str, name: str, engine: Engine) -> str:
    """Write the facts and rename the directory. Returns the run's id."""
    for run_id in (name, f"{name}.{_ulid()}"):
        facts = {
            "schema_version": lifecycle.SCHEMA_VERSION,
            "run_id": run_id,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "engine": engine._asdict(),
        }
        path = os.path.join(hidden, "run.json")
        with open(path, "w", encoding="ascii") as file:
            file.write(lifecycle.write_json_lines(facts) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync(hidden)
        try:
            os.rename(hidden, os.path.join(runs, run_id))
        except OSError as error:
            if run_id != name or error.errno not in _TAKEN:
                raise
            continue
        _sync(runs)
        return run_id
    raise AssertionError("the second name was neither taken nor refused")


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ulid() -> str:
    """26 digits that sort by time: 48 bits of milliseconds, 80 of chance."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ULID_DIGITS[value >> shift & 31] for shift in range(125, -1, -5))


def seal(directory: str) -> bool:
    """End a run whose engine and lifecycle service are both gone. Returns whether it did.

    Completes the artifacts of a run that has a verdict. Raises nothing for a run that cannot be
    read or written here: it is left as it is.
    """
    try:
        if not _is_unfinished(directory) or lives(read_facts(directory).get("engine")):
            return False
        fd = _open_lock(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with Journal(directory) as journal:
                return _complete(journal)
        finally:
            os.close(fd)
    except (OSError, LifecycleError):
        return False


def _complete(journal: Journal) -> bool:
    """Complete a dead run's end, or write the one that it lacks. Returns whether it did."""
    run_id = os.path.basename(journal.paths.directory)
    done = journal.recover()["completed"] if os.path.exists(journal.paths.events) else []
    if os.path.exists(journal.paths.result):
        return bool(done)
    journal.finish("failed", 137, LOST, {"event": "engine.lost", "run_id": run_id})
    return True


def seal_dead(runs: str) -> list[str]:
    """Seal every dead run below the root; returns the ids of those that were."""
    try:
        names = _directories(runs)
    except OSError:
        return []
    for name in names:
        is_hidden = name[:1] == "." and name[1:-_ULID] and name[-_ULID] == "."
        if is_hidden and is_id(name[1:]):  # while it is being made
            _drop_old(os.path.join(runs, name))
    ids = sorted(filter(is_id, names))
    return [each for each in ids if seal(os.path.join(runs, each))]


def _drop_old(hidden: str) -> None:
    """Remove what a killed `_create` left, long after it can be at work."""
    with contextlib.suppress(OSError):
        if time.time() - os.stat(hidden).st_mtime > _CREATE_S:
            for left in os.listdir(hidden):
                os.unlink(os.path.join(hidden, left))
            os.rmdir(hidden)


def _is_unfinished(directory: str) -> bool:
    """Whether a run may lack a piece of its end: status.json is the last that is written."""
    try:
        os.stat(os.path.join(directory, "run.json"))
        result, status = (
            os.stat(os.path.join(directory, f"{name}.json")) for name in ("result", "status")
        )
    except FileNotFoundError as error:
        return not str(error.filename).endswith("run.json")
    return status.st_mtime_ns < result.st_mtime_ns


def lives(engine: Any) -> bool:
    """Whether the engine that a run.json names is still that process."""
    try:
        pid, start_time, boot_id = (engine[field] for field in Engine._fields)
    except (TypeError, KeyError):
        return False
    if boot_id != lifecycle.boot_id() or not isinstance(pid, int):
        return False
    return start_time is not None and _start_time(pid) == start_time


def terminate(directory: str) -> bool:
    """Send SIGTERM to the engine of a run that has not ended. Returns whether there was one.

    Raises PermissionError.
    """
    import signal  # takes a millisecond of the start of each service

    engine = read_facts(directory).get("engine")
    has_ended = os.path.lexists(os.path.join(directory, "result.json"))
    if has_ended or not isinstance(engine, dict) or not lives(engine):
        return False
    try:
        fd = os.pidfd_open(engine["pid"])
    except ProcessLookupError:
        return False
    try:
        if not lives(engine):  # the number may be another's since we looked
            return False
        signal.pidfd_send_signal(fd, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _has_ended(run: Run) -> bool:
    """Whether a run has a verdict; completes the artifacts if it was not wholly written."""
    with Journal(run.directory) as journal:
        try:
            _, verdict = journal.ending()
        except LifecycleError as error:
            if error.name != "Corrupt":
                raise
            run.recovered = journal.recover()
            _, verdict = journal.ending()
        if verdict is not None and _is_unfinished(run.directory):
            run.recovered = journal.recover()
    return verdict is not None or os.path.exists(os.path.join(run.directory, "result.json"))


def read_facts(directory: str) -> dict[str, Any]:
    """What run.json holds; {} if it is none, or not for us. Raises OSError if that is not known:
    who took a run for another engine's then would end one that lives."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe may block
        fd = os.open(os.path.join(directory, "run.json"), flags)
        with open(fd, "rb") as file:
            facts = lifecycle.read_json(file.read(MAX_FACTS).decode())
    except (ValueError, RecursionError):
        return {}
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        return {}
    return facts if isinstance(facts, dict) else {}


def _open_lock(directory: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(os.path.join(directory, ".lock"), flags, 0o644)
