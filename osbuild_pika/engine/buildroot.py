"""What a build root needs beside its /usr: an /etc, as upstream's runners prepare it, and the
modules that our stages import. Made once per build root, seen by all stages that run in it.
"""

from __future__ import annotations

import errno
import functools
import marshal
import os
import stat
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

from osbuild_pika import libc
from osbuild_pika.datadir import data_folder

PACKAGE = Path(__file__).parents[1]
# What is in the sandbox of our stages of the package (docs/explanation/architecture.md).
INSIDE = ("__init__.py", "lifecycle.py", "wire.py", "inside")
_MAX_BYTES = 4 * 1024 * 1024  # of one file of /etc: ld.so.cache is the largest
_SYSTEM_IDS = 1000
_NOBODY = 65534
_FALLBACKS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


@functools.cache
def modules_directory() -> Path:
    """The directory of our own modules."""
    return data_folder("schemas").parent


def prepare_etc(root: Path, target: Path) -> None:
    """Write the /etc of a build root into `target`, a new directory.

    The root may be a tree that stages wrote: no link of it leads out of it, and only regular
    files of a limited size are read.
    """
    target.mkdir(mode=0o755)
    for name in ("ld.so.cache", "ld.so.conf", "mime.types"):
        content = _read(root, f"etc/{name}")
        if content is not None:
            _write(target / name, content)
    _write(target / "passwd", _accounts(root, "passwd"))
    _write(target / "group", _accounts(root, "group"))
    _write(target / "nsswitch.conf", _NSSWITCH.encode())
    _write(target / "hosts", _HOSTS.encode())
    _write(target / "resolv.conf", b"")


def prepare_lib(target: Path) -> None:
    """Write the modules that our stages may import into `target`, a new directory."""
    for name, content in library().items():
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


@functools.cache
def library() -> Mapping[str, bytes]:
    """The modules that our stages may import: paths below a directory, and content.

    Compiled, too: for a Python of our version it saves each stage what compiling takes.
    """
    found: dict[str, bytes] = {}
    for name in INSIDE:
        source = PACKAGE / name
        for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            path = file.relative_to(PACKAGE.parent)
            cache = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
            found |= {str(path): file.read_bytes(), str(cache): _compiled(file)}
    return found


def _compiled(source: Path) -> bytes:
    """What Python keeps of a compiled module (PEP 552), here not to be checked against it."""
    code = SourceFileLoader("module", str(source)).get_code("module")
    flags = (1).to_bytes(4, "little")
    return MAGIC_NUMBER + flags + source_hash(source.read_bytes()) + marshal.dumps(code)


def _accounts(root: Path, name: str) -> bytes:
    """The users or groups of the system: those that Debian gives every machine, else the build
    root's own without people's."""
    content = _read(root, f"usr/share/base-passwd/{name}.master")
    if content is not None:
        return content.replace(b":*:", b":x:")
    lines = (_read(root, f"etc/{name}") or b"").splitlines(keepends=True)
    system = [line for line in lines if _is_system(line)]
    return b"".join(system) or _FALLBACKS[name].encode()


def _is_system(line: bytes) -> bool:
    number = (line.split(b":") + [b""] * 3)[2]
    return number.isdigit() and (int(number) < _SYSTEM_IDS or int(number) == _NOBODY)


def _read(root: Path, path: str) -> bytes | None:
    """A regular file of the root; None if there is none, or it is too large."""
    fd = _open(root, path, os.O_RDONLY)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_BYTES:
            return None
        return file.read(_MAX_BYTES)


def _open(root: Path, path: str, flags: int) -> int | None:
    try:
        return libc.open_in_root(root, path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
