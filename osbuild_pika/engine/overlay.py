"""Trees as overlay mounts: the layers below are only read, what is written goes to a new one.

The caller must be root, of the host or of a user namespace, in a mount namespace of its own; what
is mounted here ends with it. In a user namespace overlayfs keeps its marks in user.overlay.*
instead of trusted.overlay.*, and the kernel then refuses redirect_dir: renaming a directory of a
layer below fails with EXDEV there, and programs copy instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from osbuild_pika import libc

MS_NOATIME = 0x400
_INIT_USER_NAMESPACE = 0xEFFFFFFD  # its inode number, linux/proc_ns.h
# How the kernel says that a file system, or its own configuration, is not made for it.
_UNFIT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.EXDEV, errno.EIO)
_OURS = ("trusted.overlay.", "user.overlay.")


class Upper(NamedTuple):
    """Where a mount's changes go: directories of one file system, `work` for overlayfs alone."""

    layer: str
    work: str


def options(lowers: Sequence[int], upper: tuple[int, int] | None, in_user_namespace: bool) -> str:
    """mount(2)'s data for open directories; lowers: highest first; upper: layer and work.

    Descriptors and not paths: 100 of them fit into the page that the kernel takes, and no name
    can hold a colon or a comma. volatile: the kernel syncs nothing, as the commit syncs all.
    """
    words = ["lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in lowers)]
    if upper is not None:
        words.append("upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}".format(*upper))
        words.append("volatile")
    words.append("userxattr" if in_user_namespace else "redirect_dir=on")
    words += ["metacopy=off", "index=off"]
    return ",".join(words)


def mount(target: str, lowers: Sequence[str], upper: Upper | None = None) -> None:
    """Mount directories, highest first, over one another; without `upper` read-only.

    Without `upper` the kernel wants at least two. Raises OSError.
    """
    with contextlib.ExitStack() as stack:

        def opened(path: str) -> int:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        below = [opened(path) for path in lowers]
        above = None if upper is None else (opened(upper.layer), opened(upper.work))
        data = options(below, above, _in_user_namespace())
        libc.mount("overlay", target, "overlay", libc.MS_NODEV | MS_NOATIME, data)
    if upper is not None and os.statvfs(target).f_flag & os.ST_RDONLY:
        libc.unmount(target)
        _tell_why_not(upper.work)


def _tell_why_not(work: str) -> None:
    """Raise what keeps overlayfs from making its work directory: it mounts read-only then."""
    for number in range(4):
        os.mkdir(os.path.join(work, f"try{number}"))
    raise OSError(errno.EINVAL, "overlayfs cannot make its work directory", work)


def _in_user_namespace() -> bool:
    return os.stat("/proc/self/ns/user").st_ino != _INIT_USER_NAMESPACE


def adopt_root(layer: str, lower: str) -> None:
    """Give a new layer's directory what the tree's root directory has below: a mount shows it."""
    found = os.stat(lower, follow_symlinks=False)
    os.chown(layer, found.st_uid, found.st_gid)
    os.chmod(layer, found.st_mode & 0o7777)
    for name in os.listxattr(lower):
        if not name.startswith(_OURS):
            os.setxattr(layer, name, os.getxattr(lower, name))
    os.utime(layer, ns=(found.st_atime_ns, found.st_mtime_ns))


def can_carry(directory: str) -> bool:
    """Whether the file system of an empty directory can hold layers. Leaves something in it.

    It is tried: a whiteout, and where it is asked for a renamed lower directory, need what
    overlayfs and NFS do not have. Raises OSError for what has other causes, as a full disk.
    """
    lower, layer, work, tree = (
        os.path.join(directory, name) for name in ("lower", "layer", "work", "tree")
    )
    for each in (lower, layer, work, tree, f"{lower}/gone", f"{lower}/old"):
        os.mkdir(each)
    try:
        mount(tree, [lower], Upper(layer, work))
    except OSError as error:
        if error.errno not in _UNFIT:
            raise
        return False
    try:
        os.rmdir(f"{tree}/gone")
        if not _in_user_namespace():
            os.rename(f"{tree}/old", f"{tree}/new")
        return sorted(os.listdir(tree)) == (["old"] if _in_user_namespace() else ["new"])
    except OSError as error:
        if error.errno not in _UNFIT:
            raise
        return False
    finally:
        libc.unmount(tree)
