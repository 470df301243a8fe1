"""What leaves the store: a whole tree or a single file, under its name only when it is durable."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from osbuild_pika import libc
from osbuild_pika.engine import copytree, disk
from osbuild_pika.engine.scratch import Scratch
from osbuild_pika.engine.settle import make_durable
from osbuild_pika.errors import HostError, InputError

Calling = Callable[[Callable[[], object]], AbstractContextManager[object]]

_TAR = (
    *("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse"),
    "--blocking-factor=512",  # of 512 bytes each: 10 KiB at once would be thousands of calls
)
_PIPE_BYTES = 1 << 20  # what a pipe may hold without privileges


def export_tree(
    scratch: Scratch,
    key: str,
    target: str,
    force: bool = False,
    calling: Calling = contextlib.nullcontext,
) -> None:
    """Copy a finished tree to a directory, durable on return.

    Owners are those that the stages saw: root's files are the caller's root's, as upstream's
    exports are. What is there already is refused, or, with force, exchanged in one step and then
    deleted. calling: while its block runs, what it is given cuts the copy short (see
    Interrupts.calling). Raises HostError, InputError.
    """
    _refuse(target, force)
    with disk.explained(f"cannot export to {target}"), _beside(target) as new:
        os.mkdir(new, 0o700)
        with scratch.view(key) as tree, open(os.memfd_create("words"), "w+b") as words:
            _copy_out(scratch.store.access.inside, tree, new, words, calling)
        make_durable(new)
        _name(new, target, force)


def make_parents(output: str, name: str) -> str:
    """Make the directory `output`, and below it those that lead to an export's name.

    An output that is made is its owner's alone: exported trees can hold set-uid programs. What is
    a link below it was not made by us. Returns the export's path. Raises InputError.
    """
    try:
        os.makedirs(os.path.dirname(output), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(output, 0o700)
        path = output
        for part in name.split("/")[:-1]:
            path = os.path.join(path, part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise InputError(f"{path} is no directory: exports cannot lie below it")
        return os.path.join(path, name.split("/")[-1])
    except OSError as error:
        raise InputError(f"cannot export to {output}: {error.strerror}") from None


def export_empty(target: str, force: bool = False) -> None:
    """Make the empty directory that a pipeline without stages is."""
    _refuse(target, force)
    with disk.explained(f"cannot export to {target}"), _beside(target) as new:
        os.mkdir(new, 0o755)
        _name(new, target, force)


def _copy_out(
    inside: copytree.Inside, tree: str, new: str, words: BinaryIO, calling: Calling
) -> None:
    """Read a tree as root inside, write it as the caller: between them ids change their names.

    words: a file for what the writer says. A pipe could fill up: tar complains of every file.
    """
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.fchmod(writing, 0o666)  # root inside, which is somebody else, opens it by its name
    unpack = [*_TAR, "--extract", "--same-permissions", "--same-owner", "--file=-"]
    try:
        unpacking = subprocess.Popen(
            unpack, stdin=reading, cwd=new, stderr=words, stdout=subprocess.DEVNULL
        )
    finally:
        os.close(reading)
    failed = None
    with unpacking, calling(unpacking.kill):
        try:
            pack = [*_TAR, "--create", "--format=posix", f"--file=/proc/self/fd/{writing}", "."]
            inside(pack, tree, (writing,))
        except HostError as error:
            failed = error
        except BaseException:
            unpacking.kill()
            raise
        finally:
            os.close(writing)
        unpacking.wait()
        words.seek(max(0, words.seek(0, os.SEEK_END) - 4096))
        said = words.read()
    if failed and (unpacking.returncode == 0 or b"Unexpected EOF" in said):
        raise failed
    if unpacking.returncode != 0:
        raise HostError(disk.last_word(said, f"tar exited with {unpacking.returncode}"))


def export_file(tree: str, name: str, target: str, force: bool = False) -> None:
    """Copy one regular file of a tree, as the caller's own with mode 0644; durable on return.

    tree: a directory, of a view or a mount. name: of the file in it; no link leads out of it.
    """
    _refuse(target, force)
    with disk.explained(f"cannot export {name} to {target}"), _beside(target) as new:
        source = libc.open_in_root(tree, name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise InputError(f"{name} is no regular file: only those are exported")
            _copy_file(source, new)
        finally:
            os.close(source)
        _name(new, target, force)


def _copy_file(source: int, new: str) -> None:
    """Copy an open file, its holes too, into a file that does not exist."""
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)) as file:
        command = ["cp", "--reflink=auto", "--sparse=auto", "--"]
        done = subprocess.run(
            [*command, f"/proc/self/fd/{source}", f"/proc/self/fd/{file.fileno()}"],
            pass_fds=(source, file.fileno()),
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            raise HostError((done.stderr.strip().splitlines() or ["cp failed"])[-1])
        os.fsync(file.fileno())


def _refuse(target: str, force: bool) -> None:
    if not force and os.path.lexists(target):
        raise InputError(f"{target} exists: give another name, or --force to replace it")


@contextlib.contextmanager
def _beside(target: str) -> Iterator[str]:
    """A new name in the target's directory; what has it at the end is deleted."""
    parent, name = os.path.split(os.path.abspath(target))
    new = os.path.join(parent, f".{name}.{os.urandom(4).hex()}")
    try:
        yield new
    finally:
        if os.path.lexists(new):
            disk.remove_tree(new)


def _name(new: str, target: str, force: bool) -> None:
    """Rename; with force, what was there has the new one's old name afterwards."""
    try:
        disk.rename(new, target, disk.NO_REPLACE)
    except FileExistsError:
        if not force:
            raise InputError(f"{target} exists: somebody else has just made it") from None
        disk.rename(new, target, disk.EXCHANGE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # NFS has no such flags
            raise
        _refuse(target, force)
        os.rename(new, target)
    disk.sync_directory(os.path.dirname(os.path.abspath(target)))
