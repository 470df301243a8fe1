"""Records what a writer does to a directory, and enumerates what a crash can leave of it.

The writer runs on a Process, which has the functions of os and really works on a temporary
directory; the Recorder behind it keeps the list of changes. `crashes` then tells every content of
the directory that a crash can leave, at every boundary between two changes and within them:

* a kill leaves all changes, and of a write in flight also one byte, half, or all but one byte;
* a power loss leaves what was synced, and any subset of the rest: of each write all, nothing,
  its first half, NULs of its length, or NULs for its first half and then its data; a truncation
  or a change of a name is there or not. fsync and fdatasync of a file keep its content, not its
  name; fsync of a directory keeps the names in it. That is more than file systems do. Only a
  write over bytes that were there, all in one sector, is not torn: disks write a sector as one.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
HARMLESS = ("read", "pread", "stat", "lstat", "fstat", "fchmod", "listdir")  # nothing to record
SECTOR = 512  # bytes that a disk writes as one
EXHAUSTIVE = 4096  # combinations up to which every one is taken; see `choices`


class Killed(BaseException):
    """The process is dead. Like SIGKILL, no `except Exception` stops it."""


@dataclass(frozen=True)
class Naming:
    """A change of names: `old` is gone, `new` names the inode (None: a directory); "" is none."""

    old: str
    new: str
    inode: int | None

    def apply(self, names: Names) -> None:
        names.pop(self.old, None)
        if self.new:
            names[self.new] = self.inode


@dataclass(frozen=True)
class Write:
    """is_over: it replaces bytes that were there, in one sector, which a disk writes as one."""

    inode: int
    offset: int
    data: bytes
    is_over: bool = False


@dataclass(frozen=True)
class Resize:
    """A truncation or a preallocation."""

    inode: int
    size: int


@dataclass(frozen=True)
class Sync:
    """fsync or fdatasync of a file (its inode) or of a directory (its path)."""

    target: int | str


Data = Write | Resize
Fates = tuple[Data | None, ...]
Change = Naming | Data | Sync
Names = dict[str, int | None]
Files = tuple[tuple[str, bytes | None], ...]
StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Crash:
    """What one crash leaves: (path, content) of the files, content None for a directory.

    marks: what the test had noted by then. how: says where the crash was, for messages.
    is_exhaustive: False if so much was in flight there that only some crashes were taken.
    """

    files: Files
    marks: tuple[Any, ...]
    how: str
    is_exhaustive: bool = True

    def materialise(self, directory: Path) -> None:
        """Make `directory` hold exactly these files."""
        os.makedirs(directory, exist_ok=True)
        with os.scandir(directory) as entries:
            for entry in entries:
                (shutil.rmtree if entry.is_dir() else os.unlink)(entry.path)
        for path, data in self.files:
            if data is None:
                os.mkdir(f"{directory}/{path}")
            else:
                with open(f"{directory}/{path}", "wb", buffering=0) as file:
                    file.write(data)


class Recorder:
    """The list of what processes did to a directory, and what was in it before: all durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Any] = []  # changes, and between them the marks of the test
        self.contents: dict[int, bytes] = {}
        self.base: Names = {}
        self.changes = 0  # how many were made: the places where a process can be killed
        for path in sorted(root.rglob("*")):
            inode = None if path.is_dir() else self.new_inode(path.read_bytes())
            self.base[str(path.relative_to(root))] = inode
        self.names = dict(self.base)  # as they are now

    def note(self, mark: Any) -> None:
        self.log.append(mark)

    def add(self, change: Change) -> None:
        self.log.append(change)
        self.changes += 1
        if isinstance(change, Naming):
            change.apply(self.names)

    def name(self, path: StrPath) -> str:
        """A path as the log has it: relative to the root, which is ""."""
        name = os.path.relpath(path, self.root)
        return "" if name == "." else name

    def new_inode(self, data: bytes = b"") -> int:
        self.contents[len(self.contents)] = data
        return len(self.contents) - 1


class Process(AbstractContextManager[Any]):
    """Has the functions of os that a writer uses, for one process; give it as `system`.

    kill_at: the process dies instead of making another change when the recorder has so many;
    with is_torn, if that is a write, its first half is made. Nothing is synced for real: what is
    visible does not depend on it, and tests get faster. `with` closes what it left open.
    """

    def __init__(self, recorder: Recorder, kill_at: int = -1, is_torn: bool = False) -> None:
        self._recorder = recorder
        self._kill_at = kill_at
        self._is_torn = is_torn
        self._is_dead = False
        self.has_torn = False
        self._targets: dict[int, Any] = {}  # descriptor -> inode, or path of a directory

    def __exit__(self, *_: object) -> None:
        for fd in list(self._targets):
            self.close(fd)

    def __getattr__(self, name: str) -> Any:
        if name not in HARMLESS:
            raise AttributeError(f"os.{name} is not recorded")
        if self._is_dead:
            raise Killed
        return getattr(os, name)

    def _step(self) -> None:
        """A change is about to be made."""
        if self._is_dead or self._recorder.changes == self._kill_at:
            self._is_dead = True
            raise Killed

    def open(self, path: StrPath, flags: int, mode: int = 0o777) -> int:
        name = self._recorder.name(path)
        is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        if is_new or flags & os.O_TRUNC or self._is_dead:
            self._step()
        fd = os.open(path, flags, mode)
        if is_new:
            self._recorder.add(Naming("", name, self._recorder.new_inode()))
        inode = self._recorder.names.get(name)
        self._targets[fd] = name if inode is None else inode
        if flags & os.O_TRUNC and not is_new:
            self._recorder.add(Resize(self._targets[fd], 0))
        return fd

    def close(self, fd: int) -> None:
        # Also by a dead process: its descriptors and locks end with it.
        self._targets.pop(fd, None)
        os.close(fd)

    def mkdir(self, path: StrPath, mode: int = 0o777) -> None:
        self._step()
        os.mkdir(path, mode)
        self._recorder.add(Naming("", self._recorder.name(path), None))

    def replace(self, source: StrPath, target: StrPath) -> None:
        self._step()
        os.replace(source, target)
        old, new = self._recorder.name(source), self._recorder.name(target)
        self._recorder.add(Naming(old, new, self._recorder.names[old]))

    def unlink(self, path: StrPath) -> None:
        self._step()
        os.unlink(path)
        self._recorder.add(Naming(self._recorder.name(path), "", None))

    def write(self, fd: int, data: bytes) -> int:
        is_append = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        offset = os.lseek(fd, 0, os.SEEK_END if is_append else os.SEEK_CUR)
        return self._write(lambda piece: os.write(fd, piece), fd, offset, data)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self._write(lambda piece: os.pwrite(fd, piece, offset), fd, offset, data)

    def _write(self, write: Callable[[bytes], int], fd: int, offset: int, data: bytes) -> int:
        end = offset + len(data)
        is_over = end <= os.fstat(fd).st_size and offset // SECTOR == (end - 1) // SECTOR
        change = Write(self._targets[fd], offset, data, is_over)
        is_alive = not self._is_dead
        try:
            self._step()
        except Killed:
            if self._is_torn and is_alive and not is_over:
                self.has_torn = True
                half = data[: write(data[: len(data) // 2])]
                self._recorder.add(replace(change, data=half))
            raise
        size = write(data)
        self._recorder.add(replace(change, data=data[:size]))
        return size

    def ftruncate(self, fd: int, size: int) -> None:
        self._step()
        os.ftruncate(fd, size)
        self._recorder.add(Resize(self._targets[fd], size))

    def posix_fallocate(self, fd: int, offset: int, size: int) -> None:
        self._step()
        os.posix_fallocate(fd, offset, size)
        self._recorder.add(Resize(self._targets[fd], os.fstat(fd).st_size))

    def fsync(self, fd: int) -> None:
        self._step()
        self._recorder.add(Sync(self._targets[fd]))

    fdatasync = fsync


def crashes(recorder: Recorder, start: int = 0) -> Iterator[Crash]:
    """Yield every distinct crash (content and marks) at or after entry `start` of the log."""
    seen = set()
    for position in range(start, len(recorder.log) + 1):
        past = recorder.log[:position]
        marks = tuple(entry for entry in past if not isinstance(entry, Change))
        changes = [entry for entry in past if isinstance(entry, Change)]
        how = f"entry {position}, after {str(changes[-1])[:100] if changes else 'nothing'}"
        left, is_exhaustive = _left(recorder, changes)
        for files in left:
            if (files, len(marks)) not in seen:
                seen.add((files, len(marks)))
                yield Crash(files, marks, how, is_exhaustive)


def choices(options: Sequence[Sequence[T]]) -> tuple[Iterator[tuple[T, ...]], bool]:
    """All ways to take one of each option. Returns (the ways, are they all).

    Beyond EXHAUSTIVE ways: those where at most two options are not their first (all is there),
    and those where at most two are not their second (nothing is there).
    """
    if math.prod(map(len, options)) <= EXHAUSTIVE:
        return itertools.product(*options), True
    return itertools.chain(_near(options, 0), _near(options, 1)), False


def _near(options: Sequence[Sequence[T]], usual: int) -> Iterator[tuple[T, ...]]:
    base = [option[usual : usual + 1] or option[:1] for option in options]
    for pair in itertools.combinations(range(len(options)), 2):
        yield from itertools.product(
            *(options[at] if at in pair else base[at] for at in range(len(options)))
        )


def _left(recorder: Recorder, changes: Sequence[Change]) -> tuple[Iterator[Files], bool]:
    """What a crash right after, or in, the last of these changes can leave; are these all."""
    synced = {change.target: at for at, change in enumerate(changes) if isinstance(change, Sync)}
    namings: list[tuple[Naming | None, ...]] = []
    fates: dict[int, list[Fates]] = {inode: [] for inode in recorder.contents}
    for at, change in enumerate(changes):
        if isinstance(change, Naming):
            is_sure = synced.get(os.path.dirname(change.new or change.old), -1) > at
            namings.append((change,) if is_sure else (change, None))
        elif not isinstance(change, Sync):
            is_sure = synced.get(change.inode, -1) > at
            is_last = at == len(changes) - 1
            fates[change.inode].append((change,) if is_sure else _fates(change, is_last))
    ways, are_all = choices(namings)
    names = dict.fromkeys(_named(recorder.base, way) for way in ways)
    data: dict[int | None, tuple[Sequence[bytes | None], bool]] = {None: ((None,), True)}
    for inode, before in recorder.contents.items():
        data[inode] = _contents(before, tuple(fates[inode]))
    combined = [(named, choices([data[inode][0] for _, inode in named])) for named in names]
    return (
        tuple(zip((path for path, _ in named), contents, strict=True))
        for named, (many, _) in combined
        for contents in many
    ), are_all and all(is_all for _, is_all in (*data.values(), *(many for _, many in combined)))


def _fates(change: Data, is_last: bool) -> Fates:
    """What a crash can make of a change: first all, second nothing, then what is torn."""
    if isinstance(change, Resize) or change.is_over:
        return (change, None)
    whole, half = change.data, len(change.data) // 2
    torn = [whole[:half], bytes(len(whole)), bytes(half) + whole[half:]]
    torn += [whole[:1], whole[:-1]] if is_last else []
    return (change, None, *(replace(change, data=data) for data in torn))


@lru_cache(512)  # most boundaries leave most files as they were
def _contents(before: bytes, fates: tuple[Fates, ...]) -> tuple[Sequence[bytes], bool]:
    ways, are_all = choices(fates)
    return list(dict.fromkeys(_written(before, way) for way in ways)), are_all


def _named(base: Names, namings: Iterable[Naming | None]) -> tuple[tuple[str, int | None], ...]:
    names = dict(base)
    for naming in namings:
        if naming is not None:
            naming.apply(names)
    there = {"", *(path for path, inode in names.items() if inode is None)}
    return tuple(sorted(item for item in names.items() if os.path.dirname(item[0]) in there))


def _written(before: bytes, changes: Iterable[Data | None]) -> bytes:
    data = bytearray(before)
    for change in changes:
        if isinstance(change, Write):
            data = data.ljust(change.offset, b"\0")
            data[change.offset : change.offset + len(change.data)] = change.data
        elif change is not None:
            data = data.ljust(change.size, b"\0")[: change.size]
    return bytes(data)
