"""The end of a layer's making: no time in it is too late, all of it is durable, and it is measured.

Small layers are walked here, as most stages change little and a process costs more than that. The
walk reads no content, follows no link, and is bounded. Large layers are left to programs inside.
"""

from __future__ import annotations

import os
import stat

from osbuild_pika import libc
from osbuild_pika.engine.copytree import Inside

SMALL = 64  # entries that are synced one by one
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# $1: an epoch, or -. Whiteouts are the engine's own: the namespace's root cannot touch them.
_LARGE = """
[ "$1" = - ] || find . -xdev ! -type c -newermt "@$1" -exec touch -hcd "@$1" {} +
sync -f .
du -sxB1 .
"""


class _Large(Exception):
    """There are more than SMALL entries."""


def settle(inside: Inside, layer: str, source_epoch: int | None) -> int:
    """Set times after source_epoch (Unix seconds) to it, and make a layer durable.

    Nobody may still write to it. Returns the bytes that it takes on the disk. Raises HostError,
    OSError.
    """
    try:
        return _Walk(source_epoch).directory(os.open(layer, _FLAGS | os.O_DIRECTORY))
    except _Large:
        epoch = "-" if source_epoch is None else str(source_epoch)
        return int(inside(["sh", "-euc", _LARGE, "sh", epoch], layer).split()[0])


def make_durable(directory: str) -> None:
    """Write back a directory that nobody writes to any more: of a few files just these, for a
    whole file system may hold much that others wrote. Raises OSError."""
    try:
        _Walk(None).directory(os.open(directory, _FLAGS | os.O_DIRECTORY))
    except _Large:
        libc.sync_file_system(directory)


class _Walk:
    """A walk over at most SMALL entries: as deep as that, and no deeper."""

    def __init__(self, source_epoch: int | None) -> None:
        self._epoch_ns = None if source_epoch is None else source_epoch * 10**9
        self._seen: set[int] = set()
        self._count = 0

    def directory(self, fd: int) -> int:
        """Settle an open directory, which is closed, and what it holds."""
        try:
            size = sum(self._entry(fd, name) for name in self._names(fd))
            found = os.fstat(fd)
            if self._is_late(found):
                os.utime(fd, ns=(self._epoch_ns or 0, self._epoch_ns or 0))
            os.fsync(fd)
        finally:
            os.close(fd)
        return size + found.st_blocks * 512

    def _names(self, fd: int) -> list[str]:
        names = []
        with os.scandir(fd) as entries:
            for entry in entries:
                names.append(entry.name)
                self._count += 1
                if self._count > SMALL:
                    raise _Large
        return names

    def _entry(self, parent: int, name: str) -> int:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return self.directory(os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=parent))
        if self._is_late(found) and not stat.S_ISCHR(found.st_mode):
            both = (self._epoch_ns or 0, self._epoch_ns or 0)
            os.utime(name, ns=both, dir_fd=parent, follow_symlinks=False)
        if found.st_ino in self._seen:  # a hard link
            return 0
        self._seen.add(found.st_ino)
        if stat.S_ISREG(found.st_mode):
            fd = os.open(name, _FLAGS, dir_fd=parent)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        return found.st_blocks * 512

    def _is_late(self, found: os.stat_result) -> bool:
        return self._epoch_ns is not None and found.st_mtime_ns > self._epoch_ns
