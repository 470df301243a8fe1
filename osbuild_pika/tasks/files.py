"""Files that are there whole or not at all; and names that may become paths."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from osbuild_pika.engine import disk
from osbuild_pika.errors import InputError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(name: object) -> str:
    """Return a task's name, which becomes part of file names. Raises InputError."""
    if not isinstance(name, str) or not is_name(name):
        what = f"{ascii(name)[:60]} is no name of a setup task: A-Z a-z 0-9 _ -, at most 100"
        raise InputError(what)
    return name


def check_below(path: object) -> str:
    """Return a relative path that stays below where it begins. Raises InputError."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if {"", ".", ".."} & set(parts) or any("\0" in each for each in parts):
        raise InputError(f"{ascii(path)[:100]} is no relative path without '..'")
    return "/".join(parts)


def make_directories(path: Path) -> None:
    """Make a directory and those above it so that they survive a power loss."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        _sync(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put a whole file in its place, in one step; durable on return.

    A killed writer leaves one file more, which the next one takes. One writer at a time.
    """
    fd = os.open(path.parent, _DIRECTORY)
    try:
        _replace_at(fd, path.name, content, 0o644)
    finally:
        os.close(fd)


def remove(path: Path) -> bool:
    """Remove a file, durably. Returns whether it was there."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    _sync(path.parent)
    return True


def update_below(root: Path, path: str, content: bytes, mode: int = 0o644) -> bool:
    """Put a file at a relative path below a directory, unless it has that content.

    Directories are made; links are not followed, so it stays below. As `replace` otherwise.
    Returns whether anything changed. Raises OSError, InputError.
    """
    *directories, name = check_below(path).split("/")
    with _directory_below(root, directories) as fd:
        if _content_at(fd, name, len(content)) == content:
            return False
        _replace_at(fd, name, content, mode)
    return True


@contextlib.contextmanager
def _directory_below(root: Path, names: list[str]) -> Iterator[int]:
    fd = os.open(root, _DIRECTORY)
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
                os.fsync(fd)
            below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _content_at(directory_fd: int, name: str, size: int) -> bytes | None:
    """Of a regular file, one byte more than `size` at most; None for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, dir_fd=directory_fd), "rb") as file:
            return file.read(size + 1)
    except OSError:
        return None


def _replace_at(directory_fd: int, name: str, content: bytes, mode: int) -> None:
    new = f".{name}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory_fd)  # of a writer that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, mode, dir_fd=directory_fd)
    try:
        disk.write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(new, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    os.fsync(directory_fd)


def _sync(directory: Path) -> None:
    fd = os.open(directory, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
