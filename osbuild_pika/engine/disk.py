"""What the store needs of a file system: durable names, and deleting what nobody can vouch for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import subprocess
from collections.abc import Iterator

from osbuild_pika.errors import HostError

NO_REPLACE, EXCHANGE = 1, 2  # flags of renameat2

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.renameat2.argtypes = [
    *(ctypes.c_int, ctypes.c_char_p),
    *(ctypes.c_int, ctypes.c_char_p),
    ctypes.c_uint,
]
_AT_FDCWD = -100
_WORDS = {
    errno.ENOSPC: "the disk is full; `osbuild-pika gc` frees what was cached",
    errno.EDQUOT: "the disk quota is used up; `osbuild-pika gc` frees what was cached",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "no right to write there",
    errno.EPERM: "not permitted; mounts take root in a mount namespace of its own",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an OSError into a HostError that begins with `what`."""
    try:
        yield
    except OSError as error:
        words = _WORDS.get(error.errno or 0, error.strerror or str(error))
        raise HostError(f"{what}: {words}") from error


def open_directory(path: str) -> int:
    """A descriptor of a directory, no link; not inherited."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def is_still(path: str, fd: int) -> bool:
    """Whether a path still leads to what was opened."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = open_directory(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(*files: tuple[str, bytes]) -> None:
    """Write files that do not exist; their bytes are durable on return, their names are not."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        opened = []
        for path, content in files:
            file = stack.enter_context(open(os.open(path, flags, 0o644), "wb", buffering=0))
            write_all(file.fileno(), content)
            opened.append(file)
        for file in opened:
            os.fsync(file.fileno())


def write_all(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]


def rename(source: str, target: str, flags: int = 0) -> None:
    """renameat2(2)."""
    names = os.fsencode(source), os.fsencode(target)
    if _LIBC.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def mounts_below(path: str, mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """Where something is mounted on a directory or below it, deepest first."""
    top = os.fsencode(os.path.realpath(path))
    with open(mountinfo, "rb") as file:
        points = [_unescape(line.split(b" ")[4]) for line in file]
    below = [each for each in points if each == top or each.startswith(top + b"/")]
    return [os.fsdecode(each) for each in sorted(below, key=len, reverse=True)]


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def remove_tree(path: str) -> None:
    """Delete a directory and all in it, whoever wrote it.

    No link is followed, no other file system is entered; nothing is deleted while something is
    mounted in it. It is done from outside, as overlayfs leaves files that are the engine's own.
    Raises HostError; some of it may then be gone.
    """
    mounted = mounts_below(path)
    if mounted:
        raise HostError(f"{path} is not deleted: {mounted[0]} is mounted; unmount it first")
    with contextlib.suppress(OSError):  # often it is empty, and a process takes 5 ms
        os.rmdir(path)
        return
    # rm and not Python: a stage can nest directories deeper than we can recurse.
    command = ["rm", "-rf", "--one-file-system", "--", path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise HostError(f"{path} is not deleted: {(done.stderr.splitlines() or ['rm failed'])[-1]}")


def last_word(stderr: bytes, otherwise: str) -> str:
    """The line in which a failed program says why, of all that it wrote."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    telling = [line for line in lines if "Exiting with failure status" not in line]  # GNU tar's
    return (telling or [otherwise])[-1][:500]
