"""What sources have fetched into a store, and who may delete it.

Builds hold the directory shared while they read what lies in it, and mark what they need as used;
garbage collection deletes only while it holds the directory alone, so never under a build.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator

from osbuild_pika.engine import disk
from osbuild_pika.engine.layers import Kept
from osbuild_pika.sources import UNVERIFIED, is_checksum


@contextlib.contextmanager
def reading(directory: str) -> Iterator[None]:
    """While nobody deletes fetched content. Waits for a collection to end. Raises HostError."""
    with contextlib.ExitStack() as stack:
        with disk.explained(directory):
            stack.enter_context(_locked(directory, fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def collecting(directory: str) -> Iterator[dict[str, Kept]]:
    """What may be deleted inside the block: all that `content` finds, but nothing while a build
    reads it."""
    try:
        with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield content(directory)
    except BlockingIOError:
        yield {}


def mark_used(directory: str, checksums: Iterable[str], owner: int) -> None:
    """Remember that a build needs these now. They become the namespace's root's, as upstream's
    belong to root: a stage that copies one keeps its owner.

    owner: the id that root inside has.
    """
    for checksum in checksums:
        path = os.path.join(directory, checksum)
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, owner, owner, follow_symlinks=False)
            os.utime(path, follow_symlinks=False)


def is_fetched(name: str) -> bool:
    """Whether a name that was collected is fetched content's, not a layer's."""
    return is_checksum(os.path.basename(name))


def content(directory: str) -> dict[str, Kept]:
    """All fetched content by its path below the directory, what is not whole yet too."""
    found = {}
    for below in ("", UNVERIFIED):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(os.path.join(directory, below)):
                if is_checksum(entry.name):
                    seen = entry.stat(follow_symlinks=False)
                    path = os.path.join(below, entry.name)
                    found[path] = Kept(None, seen.st_blocks * 512, seen.st_mtime_ns)
    return found


@contextlib.contextmanager
def _locked(directory: str, how: int) -> Iterator[None]:
    os.makedirs(directory, 0o755, exist_ok=True)
    fd = disk.open_directory(directory)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)
