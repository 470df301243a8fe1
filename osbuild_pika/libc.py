"""The system calls that Python 3.11 does not have: mounts, namespaces, keyrings.

Each raises OSError with the kernel's errno, and the path it is about where there is one.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
READ_ONLY, NO_SETUID, NO_DEVICES = 1, 2, 4

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_PR_SET_DUMPABLE = 4
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442  # on every architecture
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_MOUNT_ATTR_IDMAP = 0x100000
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_LIBC.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_LIBC.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    """Leave namespaces. The caller must have one thread (CLONE_NEWUSER: else EINVAL)."""
    _check(_LIBC.unshare(flags))


def mount(
    source: str, target: str | Path, kind: str | None, flags: int = 0, data: str | None = None
) -> None:
    """mount(2)."""
    at = os.fsencode(target)
    given = [None if text is None else text.encode() for text in (kind, data)]
    _check(_LIBC.mount(os.fsencode(source), at, given[0], flags, given[1]), target)


def bind(source: str | Path, target: str | Path, recursive: bool = True) -> None:
    """Let what is at `source`, with the mounts below it, be at `target` too."""
    mount(str(source), target, None, MS_BIND | (MS_REC if recursive else 0))


def unmount(target: str | Path) -> None:
    """Take a mount and those below it away, at once; who uses them keeps them (MNT_DETACH)."""
    _check(_LIBC.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW), target)


def sync_file_system(path: str | Path) -> None:
    """Write all that a mounted file system holds back to its device. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_LIBC.syncfs(fd), path)
    finally:
        os.close(fd)


def restrict(target: str | Path, attributes: int) -> None:
    """Set READ_ONLY, NO_SETUID or NO_DEVICES for a mount and all below it.

    Mount namespaces of a less privileged user namespace that are made afterwards cannot undo it.
    """
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    _syscall(
        _MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(wanted),
        ctypes.c_size_t(32),
        path=target,
    )


def map_ids(target: str | Path, namespace: int) -> None:
    """Show a mount's files with the ids that a user namespace (a descriptor) gives to them.

    What uid 0 of the namespace writes belongs to uid 0 in the file system. The mount is replaced.
    """
    here = ctypes.c_char_p(os.fsencode(target))
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _syscall(_OPEN_TREE, ctypes.c_int(_AT_FDCWD), here, ctypes.c_uint(flags), path=target)
    try:
        wanted = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        _syscall(
            _MOUNT_SETATTR,
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_uint(_AT_EMPTY_PATH),
            ctypes.byref(wanted),
            ctypes.c_size_t(32),
            path=target,
        )
        unmount(target)
        _syscall(
            _MOVE_MOUNT,
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_int(_AT_FDCWD),
            here,
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
            path=target,
        )
    finally:
        os.close(tree)


def open_in_root(root: str | Path, path: str, flags: int = os.O_PATH) -> int:
    """Open a path as if `root` were the root directory: what links below it cannot leave it.

    Returns a descriptor, not inherited. O_NONBLOCK is set, so that a pipe does not block.
    """
    how = (ctypes.c_uint64 * 3)(
        flags | os.O_CLOEXEC | (0 if flags & os.O_PATH else os.O_NONBLOCK),
        0,
        _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT,
    )
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _syscall(
            _OPENAT2,
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(24),
            path=path,
        )
    finally:
        os.close(directory)


def stay_dumpable() -> None:
    """Keep /proc/self the caller's own after it gained capabilities in a new namespace."""
    _check(_LIBC.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0))


def join_new_session_keyring() -> None:
    """Give the calling thread, and whom it starts, an empty session keyring.

    Does nothing where the kernel has none. Raises OSError (EDQUOT: too many keys).
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        try:
            _syscall(number, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_char_p(None))
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # EPERM: a container forbids them
                raise


def _syscall(number: int, *arguments: object, path: str | Path | None = None) -> int:
    return _check(_LIBC.syscall(ctypes.c_long(number), *arguments), path)


def _check(result: int, path: str | Path | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), None if path is None else str(path))
    return result
