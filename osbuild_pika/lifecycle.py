#!@python3@
"""Lifecycle artifacts, schema v1: status.json, events.jsonl and result.json, kept whole and true.

This file is the one authoritative implementation. It is imported by the host's code, it is
`osbuild-pika lifecycle`, and alone it is the guest helper `pika-cloud-lifecycle`. So it uses the
standard library only, runs on Python 3.9, and needs no environment.

The format is shared with the pika-cloud guests and their Rust reader, which ignores unknown
fields but rejects a whole event stream for one bad line. Older helpers may write to the same
files at the same time: they lock `events.jsonl.seq`, add one to the number in it, sync it, and
append one line. What is promised here, with its limits, stands at `Journal`.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import stat
import sys
import time

TYPE_CHECKING = False  # spares the guest 5 ms: typing is for the type checker alone
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar, Union

    StrPath = Union[str, os.PathLike[str]]
    _T = TypeVar("_T")

_json: Any
try:
    import _json  # see JsonReader
except ImportError:  # not CPython
    _json = None

SCHEMA_VERSION = 1
_HOST_STATES = ("requested", "provisioning", "booted", "unreachable", "stopped", "destroyed")
_WORKLOAD_STATES = ("starting", "ready", "failed", "completed")
STATES = _HOST_STATES + _WORKLOAD_STATES
RESULT_STATUSES = ("completed", "failed")

MAX_MESSAGE = 16 * 1024  # bytes of UTF-8
MAX_DETAILS = 64 * 1024  # bytes, encoded
MAX_DETAILS_DEPTH = 64
MAX_EVENT = 120 * 1024  # bytes of one line
MAX_BATCH = 256 * 1024  # bytes of one write; see judge_tail for why it is bounded
MAX_LOG = 16 * 1024 * 1024  # bytes of events.jsonl after which only terminal events are taken
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a status.json or result.json; indenting makes them long
MAX_SEQ = 10**19 - 1  # 19 digits are what a sequence file of 21 bytes holds
MAX_READ = 4 * MAX_LOG  # bytes of a file that are ever read: what is larger, no writer wrote
TAIL = 64 * 1024  # bytes at the end of a log that a new writer reads line by line
MARK = 64  # bytes at the end of a log by which its writer knows it again: the last event's seq
RESERVE = 128 * 1024  # bytes kept free for the last words of a run

_RUNNING = ("requested", "provisioning", "booted", "starting", "ready")  # in their order
_OBSERVED_END = ("stopped", "destroyed")
_ENDS = RESULT_STATUSES + _OBSERVED_END
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LifecycleError(Exception):
    """A refused or failed call; str() is one line that names the thing and the fix.

    name: the stable error name: InvalidArgument, TooLarge, Inconsistent, BadTransition,
    AlreadyFinished, Limit, LockTimeout, NoSpace, IOFailed, Corrupt.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name

    @property
    def is_bad_argument(self) -> bool:
        """True if the caller asked for something wrong, False if the disk or a file failed."""
        return self.name not in ("Limit", "LockTimeout", "NoSpace", "IOFailed", "Corrupt")


# --- JSON, without what the package json loads ---------------------------------------------------

# That one imports re, and with it enum: most of what a process would do that writes one event or
# is one stage. The work in it is done by a module of CPython, which does what is right alone as
# well. For what is wrong, and where that module is not there, the package itself is asked.
_SPACE = " \t\n\r"
_ENCODERS: list[Any] = []  # of write_json, by is_ascii


class JsonReader:
    """Reads JSON as json.loads with the same settings does.

    make_object: makes objects of their pairs. parse_float and parse_int: make numbers of their
    digits. parse_constant: of NaN, Infinity and -Infinity.
    """

    strict = True  # the scanner asks its reader for each of these, and for what __init__ sets
    object_hook = None

    def __init__(
        self,
        make_object: Callable[[list[tuple[str, Any]]], object] | None = None,
        parse_float: Callable[[str], Any] = float,
        parse_int: Callable[[str], Any] = int,
        parse_constant: Callable[[str], Any] = float,
    ) -> None:
        self.object_pairs_hook = make_object
        self.parse_float = parse_float
        self.parse_int = parse_int
        self.parse_constant = parse_constant
        self._scan = _json.make_scanner(self) if _json else None

    def read(self, text: str) -> Any:
        """Parse one document. Raises ValueError or RecursionError."""
        if self._scan is None:
            return self._read_by_the_package(text)
        try:
            value, end = self._scan(text, len(text) - len(text.lstrip(_SPACE)))
        except Exception:  # of whatever kind: it has no words of its own for what is wrong
            return self._read_by_the_package(text)
        return self._read_by_the_package(text) if text[end:].strip(_SPACE) else value

    def _read_by_the_package(self, text: str) -> Any:
        import json

        hooks = ("object_pairs_hook", "parse_float", "parse_int", "parse_constant")
        return json.loads(text, **{name: getattr(self, name) for name in hooks})


read_json = JsonReader().read


def write_json(value: Any, is_ascii: bool = True) -> str:
    """Encode a value as json.dumps does. Raises TypeError, ValueError or RecursionError."""
    try:
        if not _ENCODERS:
            quotes = _json.encode_basestring, _json.encode_basestring_ascii
            rest = (None, ": ", ", ", False, False, True)
            _ENCODERS.extend([_json.make_encoder(None, None, quote, *rest) for quote in quotes])
        return "".join(_ENCODERS[is_ascii](value, 0))
    except Exception:  # as in JsonReader.read
        import json

        return json.dumps(value, ensure_ascii=is_ascii)


def write_json_lines(value: Any, margin: str = "\n") -> str:
    """Encode a value whose keys are strings as json.dumps with indent=2 does."""
    inner = f"{margin}  "
    if isinstance(value, dict) and value:
        begin, end = "{}"
        items = [f"{write_json(key)}: {write_json_lines(value[key], inner)}" for key in value]
    elif isinstance(value, (list, tuple)) and value:
        begin, end = "[]"
        items = [write_json_lines(item, inner) for item in value]
    else:
        return write_json(value)
    return begin + inner + f",{inner}".join(items) + margin + end


# --- strict JSON: what the Rust reader (serde_json) accepts --------------------------------------


class _Object(dict):  # type: ignore[type-arg]
    """A JSON object that remembers which keys were given twice."""

    duplicates: tuple[str, ...] = ()

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) != len(pairs):
            from collections import Counter  # 4 ms, which hardly anybody needs

            counts = Counter(key for key, _ in pairs)
            self.duplicates = tuple(key for key, count in counts.items() if count > 1)


def _float(digits: str) -> float:
    value = float(digits)
    if not abs(value) < float("inf"):
        raise ValueError(f"{digits[:40]} is no JSON number")
    return value


def _int(digits: str) -> int | float:
    # serde_json reads -0 and integers beyond 64 bits as floats, and refuses what is no float.
    value = _float(digits)
    return value if digits == "-0" else int(digits)


_READER = JsonReader(_Object, _float, _int, _float)


def _load(text: str) -> Any:
    """Parse one JSON document. Raises ValueError with a short reason."""
    try:
        value = _READER.read(text)
        if text.count("[") + text.count("{") > 127 and _depth(value) > 127:
            raise ValueError("nested too deeply")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:  # only an escape can bring a lone surrogate, which cannot be encoded
        write_json(value, is_ascii=False).encode()
    return value


def _depth(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


# --- reading: what a document must look like -----------------------------------------------------

# What a field may hold; those that are not here hold any string.
_VALUES: dict[str, Sequence[Any]] = {
    "schema_version": range(2**32),
    "state": STATES,
    "kind": STATES,
    "status": RESULT_STATUSES,
    "exit_code": range(-(2**31), 2**31),
    "seq": range(2**64),
}
# kind of document -> its required fields, and one that may be missing or null; all others may be
# anything
_SHAPES = {
    "status": (("schema_version", "state", "updated_at", "message"), "boot_id"),
    "event": (("schema_version", "kind", "timestamp", "message", "seq"), "boot_id"),
    "result": (("schema_version", "status", "finished_at", "message"), "exit_code"),
}


def _is_good(name: str, value: Any) -> bool:
    known = _VALUES.get(name)
    if known is None:
        return isinstance(value, str)
    return type(value) is type(known[0]) and value in known  # neither True nor 1.0 is 1


def decode(kind: str, data: bytes) -> dict[str, Any]:
    """Decode a document as strictly as the Rust reader does.

    kind: "status", "result", or "event" (one line of events.jsonl). Unknown fields are kept.
    Raises LifecycleError Corrupt.
    """
    required, optional = _SHAPES[kind]
    try:
        value = _load(data.decode())
        if not isinstance(value, _Object):
            raise ValueError("not a JSON object")
        for name in required:
            if name not in value:
                raise ValueError(f"{name} is missing")
            if not _is_good(name, value[name]):
                raise ValueError(f"{name} is wrong: {ascii(value[name])[:60]}")
        if value.get(optional) is not None and not _is_good(optional, value[optional]):
            raise ValueError(f"{optional} is wrong: {ascii(value[optional])[:60]}")
        for name in value.duplicates:
            if name in (*required, optional, "details"):
                raise ValueError(f"{name} is given twice")
    except ValueError as error:
        raise LifecycleError("Corrupt", f"not a lifecycle {kind}: {error}") from None
    return value


# --- checking: what may be written ---------------------------------------------------------------


def parse_details(text: str) -> Any:
    """Parse the text of a details argument; None for null.

    Raises LifecycleError InvalidArgument for all that is not strict JSON: NaN, a number out of
    range, a lone surrogate, a key given twice, more than 64 levels.
    """
    try:
        value = _load(text)
    except ValueError as error:
        raise LifecycleError("InvalidArgument", f"details are not JSON: {error}") from None
    check_details(value)
    return value


def check_details(value: Any, depth: int = 0) -> None:
    """Refuse a details value that a reader could not take. Raises LifecycleError."""
    fault = ""
    if isinstance(value, (dict, list, tuple)):
        if depth >= MAX_DETAILS_DEPTH:
            fault = f"are nested deeper than {MAX_DETAILS_DEPTH} levels"
        elif isinstance(value, _Object) and value.duplicates:
            fault = f"give the key {value.duplicates[0]!a} twice"
        elif isinstance(value, dict):
            for key in value:
                if type(key) is not str or not key.isascii():
                    _check_text("a key of details", key)
            value = value.values()
        for item in () if fault else value:
            if (type(item) is int and 0 <= item < 2**63) or (type(item) is str and item.isascii()):
                continue  # as most are: spares a call
            check_details(item, depth + 1)
    elif isinstance(value, int):  # so is a bool
        fault = "" if -(2**63) <= value < 2**64 else "hold an integer beyond 64 bits"
    elif isinstance(value, float):
        fault = "" if abs(value) < float("inf") else f"hold {value}, which is not JSON"
    elif value is not None:
        _check_text("a value of details", value)
    if fault:
        raise LifecycleError("InvalidArgument", f"details {fault}")


def _check_text(what: str, text: Any, limit: int | None = None) -> None:
    if not isinstance(text, str):
        raise LifecycleError("InvalidArgument", f"{what} is a {type(text).__name__}, not a string")
    try:
        size = len(text if text.isascii() else text.encode())
    except UnicodeEncodeError:
        raise LifecycleError("InvalidArgument", f"{what} holds a lone surrogate") from None
    if limit is not None and size > limit:
        raise LifecycleError("TooLarge", f"{what} has {size} bytes; at most {limit}")


def _check_known(what: str, word: Any, known: Sequence[str]) -> None:
    if word not in known:
        text = f"unknown {what} {ascii(word)[:60]}; known are {', '.join(known)}"
        raise LifecycleError("InvalidArgument", text)


def check_result(status: Any, exit_code: Any) -> None:
    """Refuse a status that is unknown or contradicts its exit code. Raises LifecycleError."""
    _check_known("status", status, RESULT_STATUSES)
    if not _is_good("exit_code", exit_code):
        raise LifecycleError("InvalidArgument", "exit code is not a 32-bit integer")
    if (status == "completed") != (exit_code == 0):
        raise LifecycleError("Inconsistent", f"{status} with exit code {exit_code}")


def check_transition(previous: str | None, state: str) -> None:
    """Refuse a state that cannot follow `previous` (None: nothing before).

    Running states may repeat or go up, and every one of them may end. An unreachable instance
    may be found in any state again; a stopped one may boot or be destroyed; after a verdict only
    the host's stopped and destroyed are left. Raises LifecycleError BadTransition.
    """
    if previous in RESULT_STATUSES:
        is_good = state in _OBSERVED_END
    elif previous == "stopped":
        is_good = state in ("booted", "stopped", "destroyed")
    elif previous in _RUNNING and state in _RUNNING:
        is_good = _RUNNING.index(state) >= _RUNNING.index(previous)
    else:
        is_good = previous != "destroyed"
    if not is_good:
        raise LifecycleError("BadTransition", f"{state} cannot follow {previous}")


def _check_order(
    previous: str | None, states: Sequence[str], result: dict[str, Any] | None
) -> None:
    """Refuse states that cannot follow `previous` or, but for what the host sees, a result."""
    for state in states:
        if result is not None and state not in _OBSERVED_END:
            raise LifecycleError("AlreadyFinished", f"{state} after the result")
        check_transition(previous, state)
        previous = state


def _check_same(before: dict[str, Any] | None, result: dict[str, Any]) -> None:
    """Refuse a second result that differs in more than its time."""
    if before is None:
        return
    import json

    names = ("status", "exit_code", "message", "details")
    ours, theirs = ([fields.get(name) for name in names] for fields in (result, before))
    if json.dumps(ours, sort_keys=True) != json.dumps(theirs, sort_keys=True):
        raise LifecycleError("AlreadyFinished", f"the run is {before['status']} already")


# --- encoding ------------------------------------------------------------------------------------


def _now() -> str:
    """The local time in RFC 3339 with its offset, to the second."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return f"{now[:-2]}:{now[-2:]}"


def boot_id() -> str | None:
    """The kernel's id of this boot; None where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _document(head: dict[str, Any], details: Any) -> dict[str, Any]:
    """The fields of a document in schema order; those that are None are left out."""
    _check_text("message", head["message"], MAX_MESSAGE)
    check_details(details)
    size = len(write_json(details))
    if size > MAX_DETAILS:
        raise LifecycleError("TooLarge", f"details have {size} bytes; at most {MAX_DETAILS}")
    fields = {"schema_version": SCHEMA_VERSION, **head, "details": details}
    return {name: value for name, value in fields.items() if value is not None}


def _event_body(kind: str, message: str, details: Any, boot: str | None) -> bytes:
    """One event's line up to its seq, which is only known under the lock."""
    _check_known("kind", kind, STATES)
    head = {"kind": kind, "timestamp": _now(), "message": message, "boot_id": boot}
    body = write_json(_document(head, details))[:-1].encode()
    if len(body) > MAX_EVENT - 40:  # 40 bytes: the seq and the end of the line
        raise LifecycleError("TooLarge", f"event has {len(body)} bytes; at most {MAX_EVENT - 40}")
    return body


def _result(status: str, exit_code: Any, time: str, message: str, details: Any) -> dict[str, Any]:
    check_result(status, exit_code)
    head = {"status": status, "exit_code": exit_code, "finished_at": time, "message": message}
    return _document(head, details)


def result_of(event: dict[str, Any] | None) -> dict[str, Any] | None:
    """The result.json that a run's terminal event stands for; None for any other event.

    Only `Journal.finish` writes such an event: its details hold the exit code.
    """
    if not event or not isinstance(event.get("details"), dict):
        return None
    facts = dict(event["details"])
    code = facts.pop("exit_code", None)
    try:
        return _result(event["kind"], code, event["timestamp"], event["message"], facts or None)
    except LifecycleError:
        return None


def encode_seq(last: int, in_flight: bool) -> bytes:
    """The 21 bytes of the sequence file: `0<19 digits>` exact, `+<19 digits>` in flight.

    Older helpers read both with Python's int().
    """
    return b"%c%019d\n" % (b"+" if in_flight else b"0", last)


def parse_seq(text: bytes) -> tuple[int | None, bool]:
    """Return (last seq or None if the text is no number of ours, whether it is in flight)."""
    text = text.strip()
    digits = text[1:] if text.startswith(b"+") else text
    if not digits.isdigit() or len(digits) > 40 or int(digits) > MAX_SEQ:
        return None, False
    return int(digits), digits != text


# --- the tail of a log ---------------------------------------------------------------------------


def _find_hole(log: bytes, in_flight: bool) -> int:
    """Where a log with a hole is to be cut; its length if there is none.

    After a power loss a batch in flight can have holes: NULs with good lines behind them. No
    batch is larger than MAX_BATCH, and none is begun while that much of the log's end holds a
    NUL; so a NUL found there, while one is in flight, is in it.
    """
    hole = log.find(b"\0", max(0, len(log) - MAX_BATCH)) if in_flight else -1
    return len(log) if hole < 0 else log.rfind(b"\n", 0, hole) + 1


def _find_event(line: bytes) -> tuple[int, dict[str, Any] | None]:
    """The event in a line, and where it begins: behind a torn piece if it is not at 0."""
    start = 0
    for _ in range(9):  # more than an event can hold in its details without meaning harm
        try:
            return start, decode("event", line[start:])
        except LifecycleError:
            start = line.find(b'{"schema_version"', start + 1)
        if start < 0:
            break
    return 0, None


def part_log(log: bytes, in_flight: bool) -> list[tuple[bytes, dict[str, Any] | None, bytes]]:
    """Part a log, or its end from the start of a line, into what is good and what is not.

    in_flight: the sequence file says that a batch was being written.
    Returns for each line (bad piece, event, its bytes without newline): a good line has an event
    and no bad piece; a bad one no event; and one with both is that of an older helper, which
    appended its event behind a torn piece and acknowledged it. Last come the bytes after the last
    newline and what is behind a hole, if there are any, as a bad piece.
    """
    hole = _find_hole(log, in_flight)
    *lines, torn = log[:hole].split(b"\n")
    parts: list[tuple[bytes, dict[str, Any] | None, bytes]] = []
    for line in lines:
        start, event = _find_event(line)
        bad = line.strip() and line if event is None else line[:start]
        parts.append((bad, event, line[start:]))
    return parts + [(piece, None, piece) for piece in (torn, log[hole:]) if piece]


def judge_tail(tail: bytes, in_flight: bool) -> tuple[list[dict[str, Any]], int]:
    """Say which bytes at the end of an event log belong to a dead writer.

    Returns (the events in it, how many bytes to keep). Bytes after the last newline, and lines at
    the end that are no events, are of a writer that died in mid-append: nobody was told that they
    exist. A bad piece before an event is nobody's to cut: LifecycleError Corrupt.
    """
    events: list[dict[str, Any]] = []
    offset = keep = 0
    is_bad = False
    for bad, event, line in part_log(tail, in_flight):
        is_bad = is_bad or bool(bad)
        if event is not None:
            if is_bad:
                message = "a bad line stands before a good event; run `recover` to set it aside"
                raise LifecycleError("Corrupt", message)
            events.append(event)
        offset += len(line) + 1
        if not is_bad:
            keep = offset
    return events, keep


# --- files ---------------------------------------------------------------------------------------


class Paths:
    """Where a journal's files are. Only `directory` is needed; the rest have their usual names."""

    def __init__(
        self,
        directory: StrPath,
        *,
        events: StrPath | None = None,
        seq: StrPath | None = None,
        status: StrPath | None = None,
        result: StrPath | None = None,
    ) -> None:
        self.directory = os.fspath(directory) or "."
        self.events = self._place(events, "events.jsonl")
        self.seq = self._place(f"{self.events}.seq" if seq is None else seq, "")
        self.status = self._place(status, "status.json")
        self.result = self._place(result, "result.json")
        if os.path.abspath(self.events) == os.path.abspath(self.seq):
            raise LifecycleError("InvalidArgument", "the log cannot be its own sequence file")

    def _place(self, given: StrPath | None, usual: str) -> str:
        path = os.path.join(self.directory, usual) if given is None else os.fspath(given)
        try:
            is_good = os.path.basename(path) and b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            is_good = False
        if not is_good:
            raise LifecycleError("InvalidArgument", f"{ascii(path)[:60]} is no path of a file")
        return path


class _Naming:
    """Turns an OSError in its block into a LifecycleError that names the path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            name = "NoSpace" if error.errno in _NO_SPACE else "IOFailed"
            path = error.filename if isinstance(error.filename, str) else self._path
            raise LifecycleError(name, f"{printable(path)}: {error.strerror}") from error


def printable(path: str) -> str:
    """A path as it may stand in a message of one line."""
    return path if path.isprintable() else ascii(path)


def _directory(path: str) -> str:
    return os.path.dirname(path) or "."


def lock_file(fd: int, timeout_s: float) -> bool:
    """Take an exclusive flock; False if it could not be had in time.

    Older helpers queue for the lock inside the kernel, and one who only polls starves behind
    them; so a thread queues for us. If we give up, it lives on until it gets the lock, and
    drops it with its own descriptor; so the caller has to close `fd` then.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        is_over = _thread.allocate_lock()
        errors: list[OSError] = []

    def queue(queued: int) -> None:
        try:
            fcntl.flock(queued, fcntl.LOCK_EX)
        except OSError as error:
            errors.append(error)
        finally:
            os.close(queued)
            is_over.release()

    is_over.acquire()
    _thread.start_new_thread(queue, (os.dup(fd),))
    if not is_over.acquire(timeout=max(0.0, timeout_s)):
        return False
    if errors:
        raise errors[0]
    return True


class _Files:
    """The few file operations that the writer is made of; they raise OSError.

    system: the module os, or what stands in for it in a test.
    """

    def __init__(self, system: Any, mode: int, lock_timeout_s: float) -> None:
        self.system = system
        self._mode = mode
        self._lock_timeout_s = lock_timeout_s

    def check_regular(self, path: str) -> bool:
        """Refuse a directory, a link, a pipe. Returns whether there is anything."""
        try:
            if not stat.S_ISREG(self.system.lstat(path).st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", path)
        except FileNotFoundError:
            return False
        return True

    def open(self, path: str, flags: int = 0) -> tuple[int, bool]:
        """Open a file to read and write, making it and its directories. Returns (fd, is new)."""
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self.check_regular(path)
        while True:
            try:
                return self.system.open(path, flags), False
            except FileNotFoundError:
                self._make_directory(_directory(path))
            try:
                fd = self.system.open(path, flags | os.O_CREAT | os.O_EXCL, self._mode)
            except FileExistsError:
                continue  # somebody else was faster
            try:
                self.system.fchmod(fd, self._mode)  # whatever the umask is
            except BaseException:
                self.system.close(fd)
                self.system.unlink(path)
                raise
            return fd, True

    def open_locked(self, path: str) -> int:
        """Open a file and lock it, and make sure that it still is the one at this path."""
        while True:
            fd, _ = self.open(path)
            try:
                self.lock(fd, path)
                if self.is_at(self.system.fstat(fd), path):
                    return fd
            except BaseException:
                self.system.close(fd)
                raise
            self.system.close(fd)

    def lock(self, fd: int, path: str) -> None:
        if not lock_file(fd, self._lock_timeout_s):
            message = f"locked by another process; not free within {self._lock_timeout_s:g} s"
            raise LifecycleError("LockTimeout", f"{printable(path)}: {message}")

    def is_at(self, file: os.stat_result, path: str) -> bool:
        try:
            return os.path.samestat(file, self.system.lstat(path))
        except FileNotFoundError:
            return False

    def _make_directory(self, path: str) -> None:
        """Make a directory and those above it so that they survive a power loss."""
        if os.path.isdir(path):
            return
        self._make_directory(_directory(path))
        try:
            self.system.mkdir(path)
        except FileExistsError:
            return
        self.sync_directory(_directory(path))

    def sync_directory(self, path: str) -> None:
        fd = self.system.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.system.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
                raise
        finally:
            self.system.close(fd)

    def read(self, path: str) -> bytes | None:
        """Read a document; None if it is not there."""
        if not self.check_regular(path):
            return None
        try:
            fd = self.system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            return self.read_at(fd, 0, MAX_DOCUMENT)
        finally:
            self.system.close(fd)

    def read_at(self, fd: int, offset: int, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        if size > MAX_READ:
            raise OSError(errno.EINVAL, f"{size} bytes would have to be read; set the file aside")
        pieces = []
        while size > 0 and (piece := self.system.pread(fd, size, offset)):
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def write(self, fd: int, data: bytes) -> None:
        """Write with one call. Raises OSError ENOSPC if not all of it is taken."""
        if self.system.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace(
        self,
        path: str,
        data: bytes,
        check: Callable[[], None] | None = None,
        mode: int | None = None,
    ) -> None:
        """Put a whole new file at `path`; durable on return, and never half there.

        The temporary file has a fixed name, so a killed writer leaves one at most, and it is
        its own lock: who waited for it finds it renamed away and starts over. `check` is called
        under that lock and may refuse.
        """
        self.check_regular(path)
        temporary = os.path.join(_directory(path), f".{os.path.basename(path)}.tmp")
        fd = self.open_locked(temporary)
        try:
            if check is not None:
                check()
            self.system.ftruncate(fd, 0)
            self.system.fchmod(fd, self._mode if mode is None else mode)
            self.write(fd, data)
            self.system.fsync(fd)
            self.system.replace(temporary, path)
        except BaseException:
            if self.is_at(self.system.fstat(fd), temporary):
                self.system.unlink(temporary)
            raise
        finally:
            self.system.close(fd)
        self.sync_directory(_directory(path))


class _EventLog:
    """events.jsonl and its sequence file. Between `with` its lock is held, and it is in order.

    The order of writes of a batch that ends with seq N, two syncs whatever its size:
      1. sequence file: `+N`, synced: an older helper that runs after a power loss makes a gap,
         never a duplicate;
      2. events.jsonl: the batch in one write, synced: now it may be acknowledged;
      3. sequence file: `0N`, not synced: losing it costs the next writer a look at the log.
    """

    def __init__(self, paths: Paths, files: _Files) -> None:
        self._paths, self._files, self._system = paths, files, files.system
        self._lock_fd = self._fd = -1
        self._lock_file = self._file = os.stat_result((0,) * 10)  # what they are
        self._is_long = False  # the sequence file: longer than a writer of ours leaves it
        self._is_first = False  # an empty log: no seq was used up before
        self._poison = ""  # why there is no going on
        self._forget()

    def _forget(self) -> None:
        self._base = 0  # the highest seq that is used up
        self._last: dict[str, Any] | None = None  # kind and seq of our own last event, if no end
        self._left: tuple[bytes, int] | None = None  # what is there (sequence file, log's size)
        self._mark = b""  # what stood at the log's end then: it is still the same log
        self._has_events = False

    def __enter__(self) -> _EventLog:
        is_new = self._acquire()
        try:
            try:
                self._look(is_new)
            except LifecycleError as error:
                if error.name != "Corrupt" or not self._set_aside(only_glued=True):
                    raise
                self._look(is_new)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock_fd >= 0:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def repair(self) -> int:
        """Set every bad line aside, and make the sequence file exact. Returns the pieces cut."""
        is_new = self._acquire()
        try:
            pieces = self._set_aside()
            self._look(is_new)
            if self._has_events or not self._base:  # else see _is_first
                self._settle(self._system.fstat(self._fd).st_size)
            return pieces
        finally:
            self.__exit__()

    def _acquire(self) -> bool:
        """Lock, and open what is at the paths now. Returns whether the log is new."""
        if self._poison:
            raise LifecycleError("IOFailed", f"{self._poison}; start a new writer")
        files, paths = self._files, self._paths
        is_new = False
        try:
            if self._lock_fd >= 0:
                files.lock(self._lock_fd, paths.seq)
                if not files.is_at(self._lock_file, paths.seq):
                    self.close()
            if self._lock_fd < 0:
                files.check_regular(paths.events)  # before a sequence file is left beside it
                self._lock_fd = files.open_locked(paths.seq)
                self._lock_file = self._system.fstat(self._lock_fd)
            if self._fd >= 0 and not files.is_at(self._file, paths.events):
                self._close_log()
            if self._fd < 0:
                self._fd, is_new = files.open(paths.events, os.O_APPEND)
                self._file = self._system.fstat(self._fd)
        except BaseException:
            self.close()  # a thread that still waits for the lock must not get it for us
            raise
        return is_new

    def close(self) -> None:
        if self._lock_fd >= 0:
            self._system.close(self._lock_fd)
            self._lock_fd = -1
        self._close_log()

    def _close_log(self) -> None:
        if self._fd >= 0:
            self._system.close(self._fd)
        self._fd = -1
        self._forget()

    def ending(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The last event, and the result.json that the log stands for; None: there is none."""
        last = self._last
        size = self._system.fstat(self._fd).st_size
        start, span = 0 if last else size, 4096
        while start > 0:
            start = max(0, size - span)
            data = self._files.read_at(self._fd, start, size - start)
            lines = data.split(b"\n")[1 if start else 0 : -1]
            for event in (_find_event(line)[1] for line in reversed(lines)):
                last = last or event
                if event is not None and event["kind"] not in _OBSERVED_END:
                    return last, result_of(event)  # what the host sees comes after a verdict
            span *= 4
        return last, None

    def _look(self, is_new: bool) -> None:
        """Find the last event and the highest seq; cut what a dead writer left."""
        seq_text = self._system.pread(self._lock_fd, 64, 0)
        size = self._system.fstat(self._fd).st_size
        self._is_long = len(seq_text) > 21
        if self._left == (seq_text, size):
            return
        used, in_flight = parse_seq(seq_text)
        news = self._news(size)
        is_ours = len(seq_text) == 21 and not in_flight  # no older helper leaves 21 bytes
        if is_ours and news and news[1].endswith(b', "seq": %d}\n' % (used or 0)):
            # A writer of ours came last: it has judged all that stands before its own events.
            self._go_on(news[1], used or 0)
            self._left = (seq_text, size)
            return
        start, tail, events, keep = self._judge(seq_text, size, news)
        self._left = self._last = None
        if keep < len(tail):
            self._save_torn([tail[keep:]], is_needed=False)
            self._sync(self._fd, self._paths.events, start + keep)
        elif in_flight:  # its writer may have died before its sync: now it may be built upon
            self._sync(self._fd, self._paths.events)
        self._mark = (self._mark + tail[:keep])[-MARK:]
        self._has_events = self._has_events or bool(events)
        self._base = max([self._base, *(event["seq"] for event in events)])
        # Beside `+N` all seqs that are used up stand in the log, unless it was taken away since.
        # An unreadable sequence file counts as none.
        if used is not None and (is_new or not in_flight):
            self._base = max(self._base, used)
        # If somebody took the events away, an empty log does not say that no seq is used up. But
        # a lone 1 may be that of an older helper that died before its first event.
        self._is_first = not self._base or (self._base == 1 and len(seq_text) != 21)
        self._left = (seq_text, start + keep)

    def _go_on(self, data: bytes, last: int) -> None:
        """Take note of good events at the log's end, the last of which has the seq `last`."""
        self._base, self._last = last, None
        self._has_events = True
        self._mark = (self._mark + data)[-MARK:]

    def _judge(
        self, seq_text: bytes, size: int, news: tuple[int, bytes] | None
    ) -> tuple[int, bytes, list[dict[str, Any]], int]:
        """Judge what is new in the log: (its offset, its bytes, and what judge_tail says)."""
        in_flight = parse_seq(seq_text)[1]
        path = self._paths.events
        try:
            if news is not None:
                return (*news, *judge_tail(news[1], in_flight))
            self._forget()
            if seq_text.startswith(b"{"):
                path = self._paths.seq
                raise LifecycleError("Corrupt", "this is no sequence file; name another path")
            if in_flight or len(seq_text) != 21 or not size:
                # No writer of ours has ended well here: names must outlive a power loss.
                for directory in {_directory(self._paths.seq), _directory(path)}:
                    self._files.sync_directory(directory)
            return self._judge_end(size, in_flight)
        except LifecycleError as error:
            raise LifecycleError(error.name, f"{printable(path)}: {error}") from None

    def _news(self, size: int) -> tuple[int, bytes] | None:
        """What others appended since we left, and where; None if this is not the log we left."""
        if self._left is None:
            return None
        end = self._left[1]
        start = end - len(self._mark)
        data = self._files.read_at(self._fd, start, size - start)
        return (end, data[len(self._mark) :]) if data.startswith(self._mark) else None

    def _judge_end(self, size: int, in_flight: bool) -> tuple[int, bytes, list[Any], int]:
        """Judge as much of the log's end as it takes to find an event; see _judge."""
        span = MAX_BATCH
        while True:
            offset = max(0, size - span)
            data = self._files.read_at(self._fd, offset, size - offset)
            begin = max(0, len(data) - span * TAIL // MAX_BATCH)
            hole = data.find(b"\0", 0, begin)
            begin = data.rfind(b"\n", 0, begin if hole < 0 else hole) + 1
            if begin or not offset:
                events, keep = judge_tail(data[begin:], in_flight)
                if not events and not offset and data[:1] not in (b"", b"\0", b"{"):
                    raise LifecycleError("Corrupt", "this is no event log; name another path")
                if events or not offset + begin:
                    return offset + begin, data[begin:], events, keep
            span *= 2

    def append(self, bodies: Sequence[bytes], kinds: Sequence[str]) -> tuple[int, int]:
        """Append events; durable on return. Returns the first and last seq.

        bodies: from _event_body, of these kinds. All are taken or, on any error, none.
        """
        size = self._left[1] if self._left else self._system.fstat(self._fd).st_size
        first, last = self._base + 1, self._base + len(bodies)
        data = b"".join([b'%s, "seq": %d}\n' % (body, first + n) for n, body in enumerate(bodies)])
        if last > MAX_SEQ or (size + len(data) > MAX_LOG and not {*kinds} <= {*_ENDS}):
            what = "seqs" if last > MAX_SEQ else f"{MAX_LOG} bytes"
            message = f"{printable(self._paths.events)}: all {what} are used up"
            raise LifecycleError("Limit", message)
        self._left = self._last = None  # until this has ended well, the next one looks again
        in_flight = self._has_events or self._is_first
        if self._system.pwrite(self._lock_fd, encode_seq(last, in_flight), 0) != 21:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._paths.seq)
        self._sync(self._lock_fd, self._paths.seq)
        try:
            self._files.write(self._fd, data)
        except OSError:
            self._sync(self._fd, self._paths.events, size)
            self._settle(size)
            raise
        self._sync(self._fd, self._paths.events)
        self._go_on(data, last)
        self._last = None if kinds[-1] in _ENDS else {"kind": kinds[-1], "seq": last}
        self._settle(size + len(data))
        return first, last

    def _settle(self, size: int) -> None:
        """Write `0N`. A failure is no error: with `+N` the next writer looks at the log."""
        text = encode_seq(self._base, False)
        try:
            if self._system.pwrite(self._lock_fd, text, 0) == len(text):
                if self._is_long:
                    self._system.ftruncate(self._lock_fd, len(text))
                    self._is_long = False
                self._left = (text, size)
        except OSError:
            self._left = None

    def _sync(self, fd: int, path: str, cut_to: int | None = None) -> None:
        """Sync a file, which is cut first if `cut_to` is given.

        A failure is final: the kernel reports it once and forgets what was not written.
        """
        try:
            if cut_to is not None:
                self._system.ftruncate(fd, cut_to)
            self._system.fdatasync(fd)
        except OSError as error:
            self._poison = f"{printable(path)}: {error.strerror}"
            raise LifecycleError("IOFailed", self._poison) from error

    def _set_aside(self, only_glued: bool = False) -> int:
        """Put the bad lines of the whole log into `*.torn`. Returns the number of pieces.

        only_glued: do so only if no bad line is anything but an event glued to a torn line.
        """
        log = self._files.read_at(self._fd, 0, self._system.fstat(self._fd).st_size)
        seq_text = self._files.read_at(self._lock_fd, 0, 64)
        parts = part_log(log, parse_seq(seq_text)[1])
        bad = [piece for piece, _, _ in parts if piece]
        are_bad = [event is None for piece, event, _ in parts if piece or event is not None]
        is_tail = are_bad == sorted(are_bad)  # those without an event come behind those with one
        if not bad or (only_glued and (all(are_bad) or not is_tail)):
            return 0
        self._save_torn(bad, is_needed=True)
        data = b"".join(line + b"\n" for _, event, line in parts if event is not None)
        if log.startswith(data):
            self._sync(self._fd, self._paths.events, len(data))
        else:
            # One byte more than ours has: who comes after a kill syncs the new log's name.
            self._system.pwrite(self._lock_fd, seq_text.ljust(21, b"\n")[:21] + b"\n", 0)
            mode = stat.S_IMODE(self._system.fstat(self._fd).st_mode)
            self._files.replace(self._paths.events, data, mode=mode)
            self._close_log()
            self._fd, _ = self._files.open(self._paths.events, os.O_APPEND)
            self._file = self._system.fstat(self._fd)
        self._forget()
        return len(bad)

    def _save_torn(self, pieces: Sequence[bytes], is_needed: bool) -> None:
        """Keep what is cut from the log, a piece a line, for who wants to look at it.

        is_needed: a failure is an error; else nobody was told that the bytes exist, and a full
        disk must not stop who comes to report that.
        """
        try:
            fd, is_new = self._files.open(f"{self._paths.events}.torn", os.O_APPEND)
            try:
                self._files.write(fd, b"".join(piece + b"\n" for piece in pieces))
                self._system.fsync(fd)
            finally:
                self._system.close(fd)
            if is_new:
                self._files.sync_directory(_directory(self._paths.events))
        except OSError:
            if is_needed:
                raise


class Journal:
    """The one writer of a run's lifecycle artifacts. Not for use by several threads at once.

    where: a directory, or Paths. strict: refuse states out of order and anything after the
    result, as builds do; else any order is taken, as older helpers did. mode: of the files.
    system: the module os, or what stands in for it in a test.

    Promise: when a method returns, what it wrote survives a kill and a power loss (as far as the
    disk honours fdatasync). When it raises, nothing was written; but after a failed sync
    (IOFailed) nobody can know, and the journal refuses all further events; and a `finish` that
    raises may be called again, or `recover` completes it. At any moment, also with older helpers
    at work beside it, the three files are whole for a reader, but for the last line of
    events.jsonl while it is being written. Every method raises LifecycleError.
    """

    def __init__(
        self,
        where: StrPath | Paths,
        *,
        strict: bool = False,
        mode: int = 0o644,
        lock_timeout_s: float = 5.0,
        system: Any = os,
    ) -> None:
        self.paths = where if isinstance(where, Paths) else Paths(where)
        self._strict = strict
        self._files = _Files(system, mode, lock_timeout_s)
        self._log = _EventLog(self.paths, self._files)
        self._boot_id = boot_id()
        self._reserve = os.path.join(self.paths.directory, ".reserve")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Nothing is lost without it."""
        self._log.close()

    def append(self, kind: str, message: str, details: Any = None) -> int:
        """Append one event; returns its seq."""
        return self.append_many([(kind, message, details)])[1]

    def append_many(self, items: Sequence[tuple[str, str, Any]]) -> tuple[int, int]:
        """Append events (kind, message, details), all or none; returns the first and last seq."""
        return self.append_encoded([self.encode(*one) for one in items], [one[0] for one in items])

    def encode(self, kind: str, message: str, details: Any = None) -> bytes:
        """Check an event and encode it up to its seq; its time is now. For append_encoded."""
        return _event_body(kind, message, details, self._boot_id)

    def append_encoded(self, bodies: Sequence[bytes], kinds: Sequence[str]) -> tuple[int, int]:
        """Append what `encode` made, with one batch's syncs for all; see append_many."""
        size = sum(map(len, bodies)) + 40 * len(bodies)
        if not bodies:
            raise LifecycleError("InvalidArgument", "no events are given")
        if size > MAX_BATCH:
            raise LifecycleError("TooLarge", f"{size} bytes of events at once; at most {MAX_BATCH}")
        is_end = {*kinds} <= {*_ENDS}
        with _Naming(self.paths.events), self._log as log:
            if self._strict:
                last, _ = log.ending()
                _check_order(last["kind"] if last else None, kinds, self._read("result"))
            return self._with_reserve(lambda: log.append(bodies, kinds), is_end)

    def ending(self) -> tuple[str | None, dict[str, Any] | None]:
        """The last event's kind, None before the first, and the verdict that the log holds."""
        with _Naming(self.paths.events), self._log as log:
            last, verdict = log.ending()
            return (last["kind"] if last else None), verdict

    def write_status(self, state: str, message: str, details: Any = None) -> None:
        """Replace status.json."""
        _check_known("state", state, STATES)

        def check() -> None:
            result = self._read("result")
            if result is not None and result["status"] == state:
                result = None  # of a run's end the status comes last, see finish
            previous = self._state()
            if previous != state:
                _check_order(previous, [state], result)

        self._replace("status", self._status(state, message, details), check, state in _ENDS)

    def write_result(self, status: str, exit_code: int, message: str, details: Any = None) -> None:
        """Replace result.json. With strict a second, different result is AlreadyFinished."""
        result = _result(status, exit_code, _now(), message, details)
        self._replace("result", result, lambda: _check_same(self._read("result"), result))

    def finish(self, status: str, exit_code: int, message: str, details: Any = None) -> int:
        """End a run: terminal event, result.json, status.json, in this order (invariant I9).

        details: None or a dict. The event's details hold the exit code too, so that it alone is
        enough for `recover` to complete the other two. The same call again completes what is
        missing; a different one is AlreadyFinished. Returns the terminal event's seq.
        """
        if details is not None and not isinstance(details, dict):
            raise LifecycleError("InvalidArgument", "details of a result are not an object")
        facts = dict(details or {})
        facts.pop("exit_code", None)
        wanted = _result(status, exit_code, _now(), message, facts or None)
        with _Naming(self.paths.events), self._log as log:
            last, verdict = log.ending()
            before = verdict or self._read("result")
            _check_same(before, wanted)
            if self._strict and verdict is None:
                _check_order(last["kind"] if last else None, [status], before)
            return self._end(log, wanted)

    def _end(self, log: _EventLog, wanted: dict[str, Any]) -> int:
        if log.ending()[1] is None:
            facts = {**(wanted.get("details") or {}), "exit_code": wanted["exit_code"]}
            body = _event_body(wanted["status"], wanted["message"], facts, self._boot_id)
            self._with_reserve(lambda: log.append([body], [wanted["status"]]))
        last, verdict = log.ending()
        self._complete(verdict or wanted)
        return last["seq"] if last else 0

    def reserve(self) -> None:
        """Set disk space aside for the last words of a run, for when the disk is full."""
        with _Naming(self._reserve):
            fd, is_new = self._files.open(self._reserve)
            try:
                self._files.system.posix_fallocate(fd, 0, RESERVE)
            except OSError:
                if is_new:
                    self._files.system.unlink(self._reserve)
                raise
            finally:
                self._files.system.close(fd)

    def recover(self, lost: str | None = None) -> dict[str, Any]:
        """Put the artifacts of dead writers in order.

        Sets bad lines and unreadable documents aside (`*.torn`), makes the sequence file exact,
        and completes what a killed `finish` left. lost: the caller knows that the run's owner is
        dead; a run without a verdict is then ended as failed with this message.
        Returns {"set_aside": pieces cut, "completed": [file names written]}.
        """
        completed: list[str] = []
        with _Naming(self.paths.events):
            if lost is None:
                os.stat(self.paths.events)  # never make what is not there
            aside = self._set_aside("status") + self._set_aside("result") + self._log.repair()
            with self._log as log:
                verdict = log.ending()[1] or self._read("result")
                if verdict is not None:
                    completed = self._complete(verdict)
                elif lost is not None:
                    self._end(log, _result("failed", 137, _now(), lost, {"event": "engine.lost"}))
                    completed = ["events.jsonl", "result.json", "status.json"]
        return {"set_aside": aside, "completed": completed}

    def _replace(
        self,
        kind: str,
        fields: dict[str, Any],
        check: Callable[[], None] | None = None,
        is_terminal: bool = True,
    ) -> None:
        """Write a document. check: what is to be refused, under its lock, with strict."""
        path = getattr(self.paths, kind)
        data = write_json_lines(fields).encode() + b"\n"
        check = check if self._strict else None
        with _Naming(path):
            self._with_reserve(lambda: self._files.replace(path, data, check), is_terminal)

    def _with_reserve(self, work: Callable[[], _T], is_terminal: bool = True) -> _T:
        """Do `work`; again, with the reserve freed, if it finds no space and is a run's end."""
        try:
            return work()
        except OSError as error:
            if error.errno not in _NO_SPACE or not is_terminal or not os.path.exists(self._reserve):
                raise
        self._files.system.unlink(self._reserve)
        return work()

    def _complete(self, verdict: dict[str, Any]) -> list[str]:
        """Write what is missing of a run's end, under the log's lock. Returns the file names."""
        state, message, details = verdict["status"], verdict["message"], verdict.get("details")
        missing = {}
        if self._read("result") is None:
            missing["result"] = verdict
        if self._state() not in (state, *_OBSERVED_END):
            missing["status"] = self._status(state, message, details)
        for kind in ("result", "status"):
            if kind in missing:
                self._replace(kind, missing[kind])
            else:  # who renamed it may have died before its name was durable
                self._files.sync_directory(_directory(getattr(self.paths, kind)))
        return [os.path.basename(getattr(self.paths, kind)) for kind in missing]

    def _status(self, state: str, message: str, details: Any) -> dict[str, Any]:
        head = {"state": state, "updated_at": _now(), "message": message, "boot_id": self._boot_id}
        return _document(head, details)

    def _state(self) -> str | None:
        """The state in status.json; None if it is not there or unreadable: it tells no order."""
        try:
            status = self._read("status")
        except LifecycleError:
            return None
        return status["state"] if status else None

    def _set_aside(self, kind: str) -> int:
        """Rename an unreadable document to `*.torn`. Returns how many there were."""
        path = getattr(self.paths, kind)
        try:
            self._read(kind)
        except LifecycleError:
            self._files.system.replace(path, f"{path}.torn")
            self._files.sync_directory(_directory(path))
            return 1
        return 0

    def _read(self, kind: str) -> dict[str, Any] | None:
        path = getattr(self.paths, kind)
        data = self._files.read(path)
        try:
            return None if data is None else decode(kind, data)
        except LifecycleError as error:
            raise LifecycleError(error.name, f"{printable(path)}: {error}; run `recover`") from None


# --- the command line of the guest helper --------------------------------------------------------


# verb -> (what it does, options that it needs, the others)
_PATH, _MORE = "events-path", ("details-json",)
_VERBS = {
    "status": ("replace status.json", ("status-path", "state", "message"), _MORE),
    "event": ("append to events.jsonl", (_PATH, "kind", "message"), ("seq-path", *_MORE)),
    "result": ("replace result.json", ("result-path", "status", "exit-code", "message"), _MORE),
    "recover": ("put the files of killed writers in order", (_PATH,), ("seq-path",)),
}


def _usage(prog: str) -> str:
    lines = [f"usage: {prog} VERB OPTIONS", "", "Write pika-cloud lifecycle artifacts durably.", ""]
    for verb, (text, needed, others) in _VERBS.items():
        options = [f"--{name} {name.upper()}" for name in needed]
        options += [f"[--{name} {name.upper()}]" for name in others]
        lines += [f"  {verb:<8} {text}", f"           {' '.join(options)}"]
    return (
        "\n".join(lines)
        + f"""

STATE and KIND: {" ".join(STATES)}
STATUS: {" ".join(RESULT_STATUSES)}
Every VERB also takes --strict (refuse what is out of order) and --mode OCTAL (of the files;
default 0644). Options may be shortened. SEQ-PATH is EVENTS-PATH.seq if not given."""
    )


def _part_ours(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take --strict and --mode out: abbreviations that older helpers took stay unambiguous."""
    given = {"mode": "0644"}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--strict":
            given["strict"] = "yes"
        elif name == "--mode":
            given["mode"] = value if equals else next(words, "")
        else:
            rest.append(word)
    return given, rest


def _option(given: str, known: Sequence[str]) -> str:
    """The option that is meant: its name may be shortened. Raises LifecycleError."""
    name = given[2:] if given.startswith("--") else "-"
    fitting = [name] if name in known else [each for each in known if each.startswith(name)]
    if len(fitting) != 1:
        fault = "not a unique prefix" if fitting else "not recognized"
        message = f"option {printable(given[:200])} {fault}; see --help"
        raise LifecycleError("InvalidArgument", message)
    return fitting[0]


def _take_options(argv: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Values by option, as getopt would take them: `--name VALUE` and `--name=VALUE`.

    getopt itself loads re, as argparse does: longer than an event takes. Raises LifecycleError.
    """
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            message = f"{ascii(word)[:60]} is no option; see --help"
            raise LifecycleError("InvalidArgument", message)
        given, equals, value = ("--help" if word == "-h" else word).partition("=")
        name = _option(given, known)
        found[name] = value if equals or name == "help" else next(words, "\0")
        if found[name] == "\0":  # which no argument can hold
            message = f"option {printable(given[:200])} requires argument; see --help"
            raise LifecycleError("InvalidArgument", message)
    return found


def _parse(argv: Sequence[str]) -> dict[str, str]:
    """Options by name, and "verb"; {} if help is asked for. Raises LifecycleError."""
    given, rest = _part_ours(argv)
    if rest[:1] in (["-h"], ["--help"]):
        return {}
    if not rest or rest[0] not in _VERBS:
        what = f"unknown VERB {ascii(rest[0])[:60]}" if rest else "no VERB is given"
        raise LifecycleError("InvalidArgument", f"{what}; known are {', '.join(_VERBS)}")
    _, needed, others = _VERBS[rest[0]]
    pairs = _take_options(rest[1:], (*needed, *others, "help"))
    if "help" in pairs:
        return {}
    given.update(pairs)
    missing = [f"--{name}" for name in needed if name not in given]
    if missing:
        raise LifecycleError("InvalidArgument", f"{', '.join(missing)} must be given; see --help")
    return {**given, "verb": rest[0]}


def _to_int(what: str, text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        kind = "an octal file mode such as 0644" if base == 8 else "an integer"
        message = f"{what} {ascii(text)[:60]} is not {kind}"
        raise LifecycleError("InvalidArgument", message) from None


def _run(given: dict[str, str]) -> str:
    """Do what the command line says. Returns what is to be printed."""
    mode = _to_int("--mode", given["mode"], 8)
    if not 0 <= mode <= 0o777:
        raise LifecycleError("InvalidArgument", "--mode is not between 0 and 0777")
    files = {name: given.get(f"{name}-path") for name in ("events", "seq", "status", "result")}
    directory = _directory(next(path for path in files.values() if path is not None))
    text, message = given.get("details-json"), given.get("message", "")
    details = None if text is None else parse_details(text)
    with Journal(Paths(directory, **files), strict="strict" in given, mode=mode) as journal:
        if given["verb"] == "status":
            journal.write_status(given["state"], message, details)
        elif given["verb"] == "event":
            journal.append(given["kind"], message, details)
        elif given["verb"] == "result":
            code = _to_int("--exit-code", given["exit-code"], 10)
            journal.write_result(given["status"], code, message, details)
        else:
            done = journal.recover()
            return (
                f"set aside: {done['set_aside']}; completed: {', '.join(done['completed']) or 0}\n"
            )
    return ""


def main(argv: Sequence[str] | None = None, prog: str = "pika-cloud-lifecycle") -> int:
    """The command line. Returns 0 done, 1 the disk or a file failed, 2 bad argument."""
    try:
        given = _parse(sys.argv[1:] if argv is None else argv)
        told = _run(given) if given else _usage(prog) + "\n"
        with _Naming("standard output"):
            sys.stdout.write(told)
            sys.stdout.flush()
    except LifecycleError as error:
        print(f"{prog}: {error.name}: {error}", file=sys.stderr)
        return 2 if error.is_bad_argument else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
