"""Readers of a run's artifacts: its status and result, and its events as they come.

Nothing here raises on the last line of events.jsonl: a writer may be in the middle of it, or may
have died there. The format and its writer are in osbuild_pika/lifecycle.py.
"""

import errno
import os
import select
import stat
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import LifecycleError, Paths, printable

MAX_LINE = 1024 * 1024  # bytes; a longer line is no event
ANCHOR = 4096  # bytes before our place in a log that tell whether it is still the same
POLL_S = 1.0  # inotify does not cross NFS, 9p and virtiofs, so we look by ourselves as well
IN_CHANGES = 0x2 | 0x80 | 0x100 | 0x01000000  # inotify: modify, moved to, create; directory only
GRACE_S = 5.0  # how long the other half of a run's end is waited for

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Cursor:
    """A place in a run's events: that of the event `seq`, of the boot `boot_id` if given."""

    seq: int
    boot_id: str | None = None


@dataclass(frozen=True)
class Event:
    """One event. `timestamp`: RFC 3339, as the writer gave it. `raw`: all fields of the line."""

    seq: int
    kind: str
    timestamp: str
    message: str
    boot_id: str | None
    details: Any
    raw: dict[str, Any] = field(repr=False, compare=False)


def _open_regular(path: str) -> int | None:
    """Open a file of foreign hands to read; None if it is not there.

    Raises OSError, also if it is no regular file: a link leads elsewhere, a pipe may block.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None


def _read_document(path: str, kind: str) -> dict[str, Any] | None:
    try:
        fd = _open_regular(path)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            # What is too long is cut, and so no document.
            return lifecycle.decode(kind, file.read(lifecycle.MAX_DOCUMENT))
    except OSError as error:
        raise LifecycleError("IOFailed", f"{printable(path)}: {error.strerror}") from error
    except LifecycleError as error:
        raise LifecycleError(error.name, f"{printable(path)}: {error}") from None


def read_status(directory: StrPath) -> dict[str, Any] | None:
    """A run's status.json; None if there is none. Raises LifecycleError Corrupt or IOFailed."""
    return _read_document(Paths(directory).status, "status")


def read_result(directory: StrPath) -> dict[str, Any] | None:
    """A run's result.json; None if there is none. Raises LifecycleError Corrupt or IOFailed."""
    return _read_document(Paths(directory).result, "result")


class _Log:
    """One open file of events, read in bounded pieces up to its last newline. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stat = os.fstat(fd)
        self._offset = 0
        self._anchor = b""
        self._is_in_long_line = False

    def read(self) -> list[bytes] | None:
        """Return the next whole lines, [] if there are none now.

        None: what was read before is no longer there, and all is read anew from the start. Of a
        line that is longer than MAX_LINE only the start is returned.
        """
        while True:
            data = os.pread(self.fd, len(self._anchor) + MAX_LINE, self._offset - len(self._anchor))
            if not data.startswith(self._anchor):
                self._offset, self._anchor, self._is_in_long_line = 0, b"", False
                return None
            start, whole = len(self._anchor), data.rfind(b"\n") + 1
            is_long = whole <= start and (self._is_in_long_line or len(data) - start == MAX_LINE)
            end = len(data) if is_long else whole
            if end <= start:
                return []
            lines = data[start:end].split(b"\n")[self._is_in_long_line : None if is_long else -1]
            self._offset += end - start
            self._anchor = data[:end][-ANCHOR:]
            self._is_in_long_line = is_long
            if lines:
                return lines


class _Since:
    """Holds back the events up to a cursor; all pass once a later boot starts its seqs over."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._last: Event | None = None  # the last one of the wanted boot
        self._is_restarted = False

    def admits(self, event: Event) -> bool:
        """Say whether the next event of a log comes after the cursor."""
        if self.cursor.boot_id not in (None, event.boot_id):
            return self._last is not None
        if self._last and event.boot_id != self._last.boot_id:
            self._is_restarted |= event.seq <= self._last.seq
        self._last = event
        return self._is_restarted or event.seq > self.cursor.seq


class Follower:
    """Gives the events of a run's events.jsonl, each one once, in the order of the file.

    The directory and the file need not be there yet. An event is known by its line, so it is not
    given again when the file shrinks (a writer or `recover` cut what was never acknowledged),
    is written anew or replaced; and what a restarted guest writes is new, whatever its seqs.
    Limit: an event that was never acknowledged, and is cut again, may have been given.
    """

    def __init__(self, directory: StrPath, since: Cursor | None = None) -> None:
        """since: give only what comes after. A boot that the log does not have holds back none."""
        self.directory = os.fspath(directory)
        self.skipped = 0  # whole lines in the file, as far as it was read, that are no events
        self.verdict: str | None = None  # completed, failed, or destroyed; None if it goes on
        self._path = Paths(directory).events
        self._since = _Since(since) if since else None
        self._log: _Log | None = None
        self._marks = array("q")  # of the events read since the file was begun
        self._owed: Counter[int] = Counter()  # of those given before that may come again
        self._has_caught_up = False

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log.fd)
            self._log = None

    def poll(self) -> list[Event]:
        """Return the next events (of about 1 MiB of lines at most), [] if there are none now.

        Raises LifecycleError IOFailed if events.jsonl cannot be read or is no regular file.
        """
        try:
            while True:
                there = _lstat(self._path)  # first: a file that is replaced is read to its end
                lines = self._log.read() if self._log else []
                if lines is None:
                    self._begin()
                elif events := self._events_in(lines):
                    return events
                elif not lines and (self._is_current(there) or not self._reopen()):
                    self._has_caught_up = True
                    return []
        except OSError as error:
            if error.errno == errno.ESTALE:  # NFS: the old file is gone, the next poll reopens
                self.close()
                return []
            message = f"{printable(self._path)}: {error.strerror}"
            raise LifecycleError("IOFailed", message) from error

    def _is_current(self, there: os.stat_result | None) -> bool:
        return bool(self._log and (there is None or os.path.samestat(there, self._log.stat)))

    def _reopen(self) -> bool:
        fd = _open_regular(self._path)
        if fd is None:
            return False
        self.close()
        self._log = _Log(fd)
        # What another file brings, after all of the last one was read, is new whatever its seqs.
        is_another = self._has_caught_up and len(self._marks) > 0
        if self._since and (is_another or not _has_boot(fd, self._since.cursor.boot_id)):
            self._since = None
        self._begin()
        return True

    def _begin(self) -> None:
        """Read the log from its start: the events that were given are owed, and passed over."""
        self.skipped = 0
        if self._has_caught_up:
            self._owed.clear()
        self._owed.update(self._marks)
        self._marks = array("q")
        self._has_caught_up = False

    def _events_in(self, lines: list[bytes]) -> list[Event]:
        events = []
        for line in filter(bytes.strip, lines):
            if self._is_owed(line):
                continue
            event, piece = _event_of(line), line
            if event is None:
                self.skipped += 1
                piece = _glued(line)
                event = None if self._is_owed(piece) else _event_of(piece)
            if event is not None:
                self._marks.append(hash(piece))
                events.append(event)
        return list(filter(self._is_wanted, events))

    def _is_owed(self, piece: bytes) -> bool:
        mark = hash(piece)
        if not self._owed[mark]:
            return False
        self._owed[mark] -= 1
        self._marks.append(mark)
        return True

    def _is_wanted(self, event: Event) -> bool:
        if event.kind != "stopped":
            is_end = event.kind in (*lifecycle.RESULT_STATUSES, "destroyed")
            self.verdict = event.kind if is_end else None
        return self._since is None or self._since.admits(event)


def _lstat(path: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.lstat(path)
    return None


def _event_of(line: bytes) -> Event | None:
    try:
        raw = lifecycle.decode("event", line)
    except LifecycleError:
        return None
    text = (raw["kind"], raw["timestamp"], raw["message"])
    return Event(raw["seq"], *text, raw.get("boot_id"), raw.get("details"), raw)


def _glued(line: bytes) -> bytes:
    """The event that an older helper appended to this torn line; b"" if there is none."""
    _, event, piece = lifecycle.part_log(line + b"\n", False)[0]
    return piece if event else b""


def _has_boot(fd: int, boot_id: str | None) -> bool:
    """Say whether a log has an event of this boot (None: of any)."""
    log = _Log(fd)
    while boot_id is not None and (lines := log.read()):
        if boot_id in (event.boot_id for line in lines if (event := _event_of(line))):
            return True
    return boot_id is None


class _Waiter:
    """Waits until something in a directory changes, or a time is over."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._watched: os.stat_result | None = None
        self._fd = -1
        with suppress(AttributeError, ImportError, OSError):  # else the poll alone has to do
            import ctypes  # 10 ms, for who waits only

            self._libc = ctypes.CDLL(None)
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLIN)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def renew(self) -> None:
        """Watch what is at the directory's path now. To be called before each look."""
        there = _lstat(os.path.join(self._directory, "."))
        is_watched = there and self._watched and os.path.samestat(there, self._watched)
        if there and not is_watched and self._fd >= 0:
            path = os.fsencode(self._directory)
            is_watched = self._libc.inotify_add_watch(self._fd, path, IN_CHANGES) >= 0
        self._watched = there if is_watched else None

    def wait(self, timeout_s: float) -> None:
        if self._poll.poll(timeout_s * 1000):
            os.read(self._fd, 64 * 1024)


def _has_new_result(follower: Follower) -> bool:
    """Say whether result.json is there, and of this run: another may have begun behind it."""
    paths = Paths(follower.directory)
    try:
        is_there = read_result(follower.directory) is not None
    except LifecycleError:
        return False
    result, events = _lstat(paths.result), _lstat(paths.events)
    is_last = not (result and events) or result.st_mtime_ns >= events.st_mtime_ns
    return is_there and (is_last or follower.verdict is not None)


def follow(follower: Follower, poll_s: float = POLL_S) -> Iterator[list[Event]]:
    """Yield batches of events as they come, until the run is over.

    Over: a terminal event and result.json are there; or one of them, and the other does not come
    within GRACE_S (older helpers may write one only). Raises what `Follower.poll` raises.
    """
    with closing(_Waiter(follower.directory)) as waiter:
        half_since: float | None = None
        while True:
            waiter.renew()
            has_result = _has_new_result(follower)  # first: the events before it are there
            if events := follower.poll():
                yield events
                half_since = None
                continue
            if has_result and follower.verdict:
                return
            is_half = has_result or follower.verdict is not None
            half_since = (half_since or time.monotonic()) if is_half else None
            if half_since and time.monotonic() - half_since >= GRACE_S:
                return
            waiter.wait(poll_s)
