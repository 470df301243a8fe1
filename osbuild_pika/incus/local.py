"""Image files of this host: one unified file, or a metadata file and a root file system."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

BLOCK = 1024 * 1024
METADATA = ("metadata.", "incus.", "lxd.", "meta.")  # how a metadata file's name begins, or ...
METADATA_ENDS = ("-metadata", ".metadata", "_metadata", "-meta")  # ... ends before its suffixes
MAX_NAMED = 4  # files that an error names
DISKS = (b"QFI\xfb",)


@dataclass(frozen=True)
class ImageFiles:
    """An image as files. rootfs: None for a unified one.

    fingerprint: sha256 of the unified file, or of the metadata followed by the root file system.
    """

    metadata: str
    rootfs: str | None
    fingerprint: str
    size_bytes: int

    @property
    def name(self) -> str:
        """For people."""
        both = (self.metadata,) if self.rootfs is None else (self.metadata, self.rootfs)
        return one_line(" and ".join(both))


def measure(metadata: str, rootfs: str | None = None, *, flags: int = 0) -> ImageFiles:
    """Read an image's files for its fingerprint. flags: of open, such as O_NOFOLLOW. Raises
    InputError."""
    digest, size = hashlib.sha256(), 0
    for path in (metadata,) if rootfs is None else (metadata, rootfs):
        fd = _open(path, flags)
        with open(fd, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
    return ImageFiles(metadata, rootfs, digest.hexdigest(), size)


def size_of(path: str) -> int:
    """A file's size in bytes; no link is followed. Raises InputError."""
    fd = _open(path, os.O_NOFOLLOW)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _open(path: str, flags: int = 0) -> int:
    """Open a regular file, not waiting for one that is a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        raise InputError(f"{one_line(path)}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError(f"{one_line(path)}: is no file")
    return fd


def is_disk(path: str) -> bool:
    """Whether a file is a qcow2 disk: then the image is a virtual machine's."""
    with open(_open(path), "rb") as file:
        return file.read(4) in DISKS


def choose(paths: Sequence[str], where: str) -> tuple[str, str | None]:
    """Which of an export's files is what: (unified, None) or (metadata, root file system).

    where: names the place for people. Raises InputError.
    """
    if len(paths) == 1:
        return paths[0], None
    metadata = [path for path in paths if _is_metadata(os.path.basename(path))]
    if len(paths) == 2 and len(metadata) == 1:
        return metadata[0], next(path for path in paths if path != metadata[0])
    more = f" and {len(paths) - MAX_NAMED} more" if paths[MAX_NAMED:] else ""
    names = ", ".join(map(os.path.basename, paths[:MAX_NAMED])) + more or "nothing"
    hint = "give its files: METADATA --rootfs ROOTFS, or one unified file"
    raise InputError(one_line(f"{where}: holds no image: {names}; {hint}"))


def _is_metadata(name: str) -> bool:
    stem = name.partition(".tar")[0].partition(".txz")[0]
    return name.startswith(METADATA) or stem.endswith(METADATA_ENDS)


def files_in(directory: str) -> tuple[str, str | None]:
    """The image that a directory holds. Raises InputError."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(each.path for each in entries if each.is_file() and each.name[0] != ".")
    except OSError as error:
        raise InputError(f"{one_line(directory)}: {error.strerror}") from None
    return choose(found, directory)
