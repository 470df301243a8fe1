"""The host's side of one stage: a directory that holds, or shows, everything it may see.

It lies on a tmpfs below the workspace, which the namespace's root can reach wherever the store
and the runs are: their own directories can stay closed to everybody. All of it is mounts of the
build's own mount namespace, so nothing is left of it when the build is killed. What a stage may
not change is mounted read-only here, by the host's side; the stage, root in its namespace, could
undo what bubblewrap does there, but not this. (/sys is left to bubblewrap: stages that prepare a
chroot mount a sysfs in it, which the kernel refuses beside one that is read-only for good; its
files belong to the host's root, so nobody writes them.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from osbuild_pika import libc
from osbuild_pika.engine.namespace import Ids
from osbuild_pika.errors import HostError

WORKSPACE = Path("/run/osbuild-pika")
# The character devices of /dev, by major and minor; who is not root binds the host's.
NODES = {
    "full": (1, 7),
    "null": (1, 3),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "zero": (1, 5),
    "fuse": (10, 229),
}
_SIZE = "size=16m,nr_inodes=4096"  # of what a stage can fill in memory: /etc and its metadata
_KERNEL_ARGUMENTS = "root=/dev/osbuild\n"


class Parts(NamedTuple):
    """What a stage gets, as paths of the host.

    root: the build root. etc: its `buildroot.prepare_etc`. lib: for /run/osbuild/lib.
    stage: the executable. tree: to work on. var: an empty directory on disk, for its /var.
    """

    root: Path
    etc: Path
    lib: Path
    stage: Path
    tree: Path
    var: Path


def make_workspace() -> Path:
    """Mount the directory below which the namespace's root can reach things.

    Only this process's mount namespace has it (namespace.private_mounts comes first); on the host
    an empty directory stays. Raises HostError.
    """
    user = _outer_uid()
    path = Path(f"/tmp/osbuild-pika-{user}") if user else WORKSPACE  # noqa: S108 - see below
    path.mkdir(mode=0o755, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise HostError(f"{path}: must be a directory of your own; remove it")
    libc.mount("osbuild-pika", path, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=755,size=1m")
    return path


def _outer_uid() -> int:
    """Our uid outside of the namespace in which we are root."""
    return int(Path("/proc/self/uid_map").read_text(encoding="ascii").split()[1])


@contextlib.contextmanager
def prepared(path: Path, parts: Parts, ids: Ids) -> Iterator[Path]:
    """Make the area of a stage at `path`, a new name in the workspace; gone at the block's end.

    Inside the block the caller may mount into inputs/ and mounts/, make nodes in dev/, listen at
    api/osbuild, and has to write api/arguments before the stage starts.
    """
    path.mkdir()
    try:
        libc.mount("area", path, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, f"mode=755,{_SIZE}")
        try:
            _fill(path, parts, ids)
            yield path
        finally:
            libc.unmount(path)
    finally:
        path.rmdir()


def _fill(path: Path, parts: Parts, ids: Ids) -> None:
    for name in ("root", "dev", "etc", "var", "lib", "tree", "mounts", "inputs", "api"):
        (path / name).mkdir()
        (path / name).chmod(0o755)
    for name in ("meta", "stage"):
        (path / name).touch(mode=0o600)
    (path / "cmdline").write_text(_KERNEL_ARGUMENTS)
    (path / "cmdline").chmod(0o644)
    _show_root(path, parts.root)
    _make_devices(path / "dev")
    _copy_etc(parts.etc, path / "etc", ids)
    _show_etc(path, parts.root)
    show(parts.var, path / "var")
    (path / "var/tmp").mkdir(exist_ok=True)
    (path / "var/tmp").chmod(0o1755)
    show(parts.tree, path / "tree")
    show_read_only(parts.lib, path / "lib")
    show_read_only(parts.stage, path / "stage")
    for name in ("var", "var/tmp", "mounts", "meta"):
        os.chown(path / name, ids.base, ids.base)


def show(source: str | Path, target: Path, attributes: int = 0) -> None:
    """Let a file or directory be seen at `target`, with the mounts below it. Device nodes and
    set-uid bits in it are worth nothing, for good; attributes are libc.restrict's."""
    libc.bind(source, target)
    libc.restrict(target, libc.NO_DEVICES | libc.NO_SETUID | attributes)


def show_read_only(source: str | Path, target: Path) -> None:
    """Let a file or directory be seen at `target`, read-only for good."""
    show(source, target, libc.READ_ONLY)


def _show_root(path: Path, root: Path) -> None:
    """Of a build root its programs; of one that was built, its /boot, too."""
    names = ("usr", "ostree") if root == Path("/") else ("usr", "boot", "ostree")
    for name in names:
        _show_part(root, name, path / "root" / name)


def _show_etc(path: Path, root: Path) -> None:
    for name in ("mke2fs.conf", "containers", "selinux", "alternatives"):
        _show_part(root, f"etc/{name}", path / "etc" / name)


def _show_part(root: Path, name: str, target: Path) -> None:
    """Show a part of a build root, if it has it. Stages wrote the root: links stay below it."""
    try:
        fd = libc.open_in_root(root, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            target.mkdir()
        elif stat.S_ISREG(kind):
            target.touch()
        else:
            return
        show_read_only(f"/proc/self/fd/{fd}", target)
    finally:
        os.close(fd)


def _copy_etc(etc: Path, target: Path, ids: Ids) -> None:
    """A copy of the stage's own: another stage must not find what this one writes."""
    into = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(etc):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(name, flags, 0o644, dir_fd=into), "wb") as copy:
                copy.write((etc / name).read_bytes())
                os.fchown(copy.fileno(), ids.base, ids.base)
        os.fchown(into, ids.base, ids.base)
    finally:
        os.close(into)


def _make_devices(dev: Path) -> None:
    """A small file system of the host's root: nothing can be made in it from inside."""
    options = "mode=755,size=1m,nr_inodes=1024"
    libc.mount("dev", dev, "tmpfs", libc.MS_NOSUID, options)
    (dev / "shm").mkdir()
    for name, (major, minor) in NODES.items():
        make_node(dev / name, stat.S_IFCHR, os.makedev(major, minor), Path("/dev") / name)


def make_node(path: Path, kind: int, device: int, host: Path) -> None:
    """Make a device node that the stage may use; who may not make nodes shows the host's, if the
    host has it."""
    try:
        os.mknod(path, kind | 0o666, device)
        path.chmod(0o666)
    except PermissionError:
        if host.exists():
            path.touch()
            libc.bind(host, path)
