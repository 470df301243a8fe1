"""Says what is wrong with the artifacts of a run: the logic behind `osbuild-pika check DIR`.

`snapshot` reads a directory, `judge` is a pure function of what was read. A file that is not there
is no fault by itself: older helpers may write some of them only.
"""

import errno
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from osbuild_pika import lifecycle
from osbuild_pika.errors import InputError
from osbuild_pika.lifecycle import MAX_DOCUMENT, RESULT_STATUSES, LifecycleError, Paths, printable

MAX_EVENTS = 64 * 1024 * 1024  # bytes of events.jsonl that are looked at
MAX_SEQ_FILE = 4096  # bytes
MAX_LINE = 1024 * 1024  # bytes; a longer line is no event
MAX_LISTED = 100  # faults in events.jsonl
LOCK_WAIT_S = 1.0
LOCK_RETRY_S = 0.01

STATUS, EVENTS, RESULT, SEQ = "status.json", "events.jsonl", "result.json", "events.jsonl.seq"
_LIMITS = {EVENTS: MAX_EVENTS, SEQ: MAX_SEQ_FILE, RESULT: MAX_DOCUMENT, STATUS: MAX_DOCUMENT}
_OBSERVED_ENDS = ("stopped", "destroyed")
_OTHER_KINDS = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "pipe"}

Document = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """Something wrong, and what to do about it, in one line. `line` counts from 1."""

    file: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.text}"


@dataclass(frozen=True)
class Snapshot:
    """What was read: the files' bytes (None: not there, or a fault), each up to its limit + 1.

    is_still: no writer was at work meanwhile, so nothing is half done for a good reason.
    """

    directory: str
    files: dict[str, bytes | None]
    is_still: bool
    faults: tuple[Fault, ...] = ()

    @property
    def recover(self) -> str:
        """What to do about what `recover` can put in order."""
        path = shlex.quote(Paths(self.directory).events)
        return f"run `osbuild-pika lifecycle recover --events-path {path}`"


@dataclass(frozen=True)
class Found:
    """What is there, and what is wrong with it. A document that is missing or bad is None."""

    faults: tuple[Fault, ...]
    events: int
    first_seq: int
    status: Document | None
    result: Document | None

    def summary(self) -> str:
        """What is there, in one line."""
        parts = ["1 event" if self.events == 1 else f"{self.events} events"]
        if self.first_seq > 1:
            parts.append(f"the first has seq {self.first_seq}")
        if self.status:
            parts.append(f"state {self.status['state']}")
        if self.result:
            parts.append(f"result {_told(self.result)}")
        return ", ".join(parts)


def verify(directory: str | os.PathLike[str]) -> Found:
    """Look at the artifacts in a directory. Raises InputError if it is no directory."""
    return judge(snapshot(os.fspath(directory)))


# --- reading -------------------------------------------------------------------------------------


def snapshot(directory: str, lock_wait_s: float = LOCK_WAIT_S) -> Snapshot:
    """Read the artifacts, if possible at a moment when no writer is at work.

    Raises InputError. Files that cannot be read become faults; links are not followed.
    """
    if not os.path.isdir(directory):
        what = "is not a directory" if os.path.lexists(directory) else "no such directory"
        raise InputError(f"{printable(directory)}: {what}")
    files: dict[str, bytes | None] = {}
    faults = []
    lock, is_still = _hold_off(Paths(directory).seq, lock_wait_s)
    for name, limit in _LIMITS.items():
        try:
            files[name] = _read(os.path.join(directory, name), limit + 1)
        except OSError as error:
            files[name] = None
            faults.append(Fault(name, str(error.strerror)))
    if lock is not None:
        os.close(lock)
    elif files[SEQ] is not None:
        is_still = False  # it came meanwhile
    return Snapshot(directory, files, is_still, tuple(faults))


def _open(path: str) -> int | None:
    """Open a file of foreign hands to read, None if it is not there. Raises OSError."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = _OTHER_KINDS.get(stat.S_IFMT(mode), "special file")
            raise OSError(errno.EINVAL, f"is a {kind}, not a regular file; remove it")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None


def _read(path: str, size: int) -> bytes | None:
    fd = _open(path)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read(size)


def _hold_off(path: str, wait_s: float) -> tuple[int | None, bool]:
    """Hold writers off by a shared lock on the sequence file.

    Returns (descriptor to close when done, whether no writer is at work).
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fd = _open(path)
        except OSError:
            return None, False
        if fd is None or _is_locked(fd, path):
            return fd, True
        os.close(fd)
        if time.monotonic() >= deadline:
            return None, False
        time.sleep(LOCK_RETRY_S)


def _is_locked(fd: int, path: str) -> bool:
    """Take the lock if it is free, and if this file still is the one that writers lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


# --- judging -------------------------------------------------------------------------------------


def judge(shot: Snapshot) -> Found:
    """Say what is wrong with what was read."""
    faults = list(shot.faults)
    status = _judge_document(shot, STATUS, faults)
    result = _judge_document(shot, RESULT, faults)
    story = _Story(shot.recover)
    if (log := shot.files[EVENTS]) is not None:
        story.read(log, shot.is_still)
    faults += story.listed()
    faults += _judge_seq(shot, story)
    faults += _judge_end(shot, story, status, result)
    if not faults and all(shot.files[name] is None for name in (STATUS, EVENTS, RESULT)):
        text = f"holds none of {STATUS}, {EVENTS} and {RESULT}: is it the directory of a run?"
        faults.append(Fault(printable(shot.directory), text))
    return Found(tuple(faults), story.count, story.first_seq, status, result)


def _told(result: Document) -> str:
    code = result.get("exit_code")
    return f"{result['status']}{'' if code is None else f' (exit code {code})'}"


def _judge_document(shot: Snapshot, name: str, faults: list[Fault]) -> Document | None:
    data = shot.files[name]
    if data is None:
        return None
    try:
        if len(data) > _LIMITS[name]:
            raise LifecycleError("Corrupt", f"has more than {_LIMITS[name]} bytes")
        return lifecycle.decode(name.removesuffix(".json"), data)
    except LifecycleError as error:
        fix = "remove it" if shot.files[EVENTS] is None else shot.recover
        faults.append(Fault(name, f"{error}; {fix}"))
        return None


class _Story:
    """The events of a log, read one after the other."""

    def __init__(self, recover: str) -> None:
        self.count = 0
        self.first_seq = 0
        self.last: Document | None = None  # of the latest boot, the one with the highest seq
        self.end: Document | None = None  # the latest completed or failed
        self.verdict: Document | None = None  # the result.json that `finish` makes of it
        self._over: Document | None = None  # what only stopped or destroyed may follow
        self._faults: list[Fault] = []
        self._unlisted = 0
        self._recover = recover
        self._line = 0

    def listed(self) -> list[Fault]:
        """The faults, of which a long log may have too many to list."""
        more = [Fault(EVENTS, f"and {self._unlisted} faults more")] if self._unlisted else []
        return self._faults + more

    def read(self, log: bytes, is_still: bool) -> None:
        """Read a log; of what is longer than MAX_EVENTS only the start."""
        begin = 0
        while (end := log.find(b"\n", begin, MAX_EVENTS)) >= 0:
            self._line += 1
            self._read_line(log[begin:end])
            begin = end + 1
        self._line += 1
        if len(log) > MAX_EVENTS:
            self._blame(f"only the first {MAX_EVENTS} bytes of the file are checked")
        elif begin < len(log) and is_still:
            torn = f"torn: {len(log) - begin} bytes without a newline, of a killed writer"
            self._blame(f"{torn}; {self._recover}")

    def _blame(self, text: str) -> None:
        if len(self._faults) < MAX_LISTED:
            self._faults.append(Fault(EVENTS, text, self._line))
        else:
            self._unlisted += 1

    def _read_line(self, line: bytes) -> None:
        if not line.strip():
            return
        if len(line) > MAX_LINE:
            self._blame(f"not a lifecycle event: has more than {MAX_LINE} bytes; {self._recover}")
            return
        try:
            event = lifecycle.decode("event", line)
        except LifecycleError as error:
            self._blame(f"{error}; {self._recover}")
            _, glued, _ = lifecycle.part_log(line + b"\n", False)[0]
            if glued is None:
                return
            event = glued
        if self.last and event.get("boot_id") not in (None, self.last.get("boot_id")):
            self._over = self.end = self.verdict = None  # a guest that booted anew starts anew
        self._judge_seq(event)
        self._judge_verdict(event)

    def _judge_seq(self, event: Document) -> None:
        self.count += 1
        seq, boot = event["seq"], event.get("boot_id")
        if self.last is None:
            self.first_seq, self.last = seq, event
            return
        before = self.last["seq"]
        if seq > before + 1:
            missing = seq - before - 1
            what = "1 event is" if missing == 1 else f"{missing} events are"
            self._blame(f"{what} missing between seq {before} and {seq}")
        elif seq <= before and boot in (None, self.last.get("boot_id")):
            self._blame(f"seq {seq} comes after seq {before}: two events may share a seq")
            return
        self.last = event

    def _judge_verdict(self, event: Document) -> None:
        kind = event["kind"]
        over = self._over
        if over and (over["kind"] == "destroyed" or kind not in _OBSERVED_ENDS):
            self._blame(f"{kind} comes after {over['kind']} (seq {over['seq']})")
        if kind not in _OBSERVED_ENDS:
            self.verdict = lifecycle.result_of(event)
            # Without a verdict it is the word of a guest, in which a failed unit may start again.
            self.end = event if kind in RESULT_STATUSES else None
        if kind == "destroyed" or (self.verdict and kind in RESULT_STATUSES):
            self._over = event


def _judge_seq(shot: Snapshot, story: _Story) -> list[Fault]:
    data = shot.files[SEQ]
    if data is None or not shot.is_still:
        return []
    used, is_in_flight = lifecycle.parse_seq(data)
    if used is None:
        text = "holds no sequence number"
    elif is_in_flight:
        text = "a writer died in the middle of an append"
    elif story.last and used < story.last["seq"]:
        text = f"{used} is lower than the last seq, {story.last['seq']}"
    else:
        return []
    return [Fault(SEQ, f"{text}; {shot.recover}")]


def _judge_end(
    shot: Snapshot, story: _Story, status: Document | None, result: Document | None
) -> Iterator[Fault]:
    """Compare what the three files say about the end of the run."""
    end = story.end
    if result:
        yield from _judge_result(result, end)
    verdict = result["status"] if result else end["kind"] if end else None
    can_recover = (story.verdict or result) and shot.files[EVENTS] is not None
    fix = f"; {shot.recover}" if can_recover else ""
    state = status["state"] if status else None
    is_last_word = shot.is_still or state in RESULT_STATUSES  # a writer comes to it last
    if verdict and state not in (None, verdict, *_OBSERVED_ENDS) and is_last_word:
        yield Fault(STATUS, f"says {state}, but the run is {verdict}{fix}")
    if shot.is_still and story.verdict:
        bad = {fault.file for fault in shot.faults}
        for name in (RESULT, STATUS):
            if shot.files[name] is None and name not in bad:
                yield Fault(name, f"is missing, but a writer was about to end the run{fix}")


def _judge_result(result: Document, end: Document | None) -> Iterator[Fault]:
    code = result.get("exit_code")
    if code is not None and (result["status"] == "completed") != (code == 0):
        yield Fault(RESULT, f"contradicts itself: {_told(result)}")
    if end is None:
        return
    told = lifecycle.result_of(end) or {"status": end["kind"]}
    other = told.get("exit_code", code)
    if told["status"] != result["status"] or (code is not None and other != code):
        text = f"says {_told(result)}, but the event of seq {end['seq']} says {_told(told)}"
        yield Fault(RESULT, text)
