"""Packs a guest's tree and its metadata into an Incus image, the same bytes each time.

Unified: one tarball with metadata.yaml and templates/ before rootfs/, so that Incus can stop
reading early. Split: a tarball of the metadata, and the tree as squashfs or tarball. The
fingerprint is the sha256 of the file, or of both in that order; it is made while they are written.

The bytes depend on the trees and on the versions of tar and of the compressor alone: names are
sorted, ids are numbers, times after the epoch become the epoch, and the compressors split their
work in the same way however many processors there are.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import NamedTuple  # not dataclasses: they load inspect, 12 ms

from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.stage import StageError
from osbuild_pika.inside.streams import stream
from osbuild_pika.inside.tools import run_watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from osbuild_pika.inside.lint.view import View
    from osbuild_pika.inside.reporter import Reporter

TAR = [
    "tar",
    "--create",
    "--file=-",
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--sort=name",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
]
INTO_ROOTFS = r"--transform=s,^\.\(/\|$\),rootfs\1,S"  # S: not the targets of symbolic links
BLOCK = 512
MIB = 1 << 20
READ_BYTES = 1 << 20
MAX_PROCESSORS = 8  # each takes memory: 100 MiB of xz
# These change what the programs do; the rest of the environment is theirs.
NOT_PASSED = (
    "TAR_OPTIONS",
    "XZ_OPT",
    "XZ_DEFAULTS",
    "ZSTD_CLEVEL",
    "ZSTD_NBTHREADS",
    "POSIXLY_CORRECT",
)
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
LOOK_EVERY_S = 0.1
SQUASHFS = ".squashfs"


class Compression(NamedTuple):
    """method: "zstd" (level 1-19) or "xz" (level 0-9)."""

    method: str = "zstd"
    level: int = 9


class Image(NamedTuple):
    """What is packed. metadata: the directory with metadata.yaml and templates/; root: the guest's
    tree; epoch: no file is younger, Unix seconds."""

    metadata: str
    root: str
    epoch: int


class Packed(NamedTuple):
    """A file that was written."""

    path: str
    size_bytes: int
    sha256: str


def epoch_of(metadata: str) -> int:
    """What clamps times: SOURCE_DATE_EPOCH, else the image's creation_date. Raises StageError."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is not None:
        try:
            return int(text)
        except ValueError:
            raise StageError(f"SOURCE_DATE_EPOCH={text} is no number of seconds") from None
    found = form.creation_date(metadata)
    if found is None:
        raise StageError("give the pipeline a source-epoch: files younger than it get its time")
    return found


def unified(image: Image, output: str, how: Compression, report: Reporter) -> tuple[Packed, str]:
    """Write one tarball. Returns it and the fingerprint. Raises StageError, OSError."""
    view = _survey(image.root)
    command = [
        *_tar(image),
        *_metadata_members(image),
        INTO_ROOTFS,
        f"--directory={image.root}",
        ".",
    ]
    packed = _pack(command, how, _File(output, [], report, _tar_bytes(view)))
    return packed, packed.sha256


def split(
    image: Image, outputs: tuple[str, str], how: tuple[Compression, Compression], report: Reporter
) -> tuple[Packed, Packed, str]:
    """Write the metadata's tarball and the tree: a squashfs if so named, else a tarball.

    outputs, how: of the metadata, of the tree. Returns both and the fingerprint.
    """
    view = _survey(image.root)
    whole = hashlib.sha256()
    command = [*_tar(image), *_metadata_members(image)]
    first = _pack(command, how[0], _File(outputs[0], [whole], report, 0))
    if outputs[1].endswith(SQUASHFS):
        _squash(image, outputs[1], how[1], report)
        _tell_acls(image.root, view, report)
        second = _read(outputs[1], whole)
    else:
        command = [*_tar(image), f"--directory={image.root}", "."]
        second = _pack(command, how[1], _File(outputs[1], [whole], report, _tar_bytes(view)))
    return first, second, whole.hexdigest()


# --- tarballs ------------------------------------------------------------------------------------


class _File:
    """A file of an image while it is written: counted, hashed and reported."""

    def __init__(self, path: str, more: list[hashlib._Hash], report: Reporter, total: int) -> None:
        """more: hashes that take the bytes, too. total: bytes of the tar archive; 0: no report."""
        self.path = path
        self._digest = hashlib.sha256()
        self._hashes = [self._digest, *more]
        self._report = report
        self._total = total
        self._size = 0
        self._next = 0.0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # unbuffered: a write may be short
            rest = rest[self._file.write(rest) :]
        self._size += len(data)
        for each in self._hashes:
            each.update(data)

    def look(self, pid: int) -> None:
        """Report how much of the archive tar has written."""
        if not self._total or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_EVERY_S
        done = min(_written(pid), self._total)
        self._report.progress(done // MIB, self._total // MIB + 1, "MiB", "packing")

    def done(self) -> Packed:
        if self._total:
            total = self._total // MIB + 1
            self._report.progress(total, total, "MiB", "packed")
        return Packed(self.path, self._size, self._digest.hexdigest())


def _tar(image: Image) -> list[str]:
    return [*TAR, f"--mtime=@{image.epoch}", "--clamp-mtime"]


def _metadata_members(image: Image) -> list[str]:
    names = [form.FILE]
    if os.path.isdir(os.path.join(image.metadata, form.TEMPLATES)):
        names.append(form.TEMPLATES)
    return [f"--directory={image.metadata}", *names]


def _pack(command: Sequence[str], how: Compression, file: _File) -> Packed:
    with file:
        stream([command, _compressor(how)], file.take, file.look, _environment())
        return file.done()


def _compressor(how: Compression) -> list[str]:
    """From two workers on the bytes do not depend on their number; with one they may."""
    workers = f"-T{_processors()}"
    if how.method == "xz":
        return ["xz", f"-{how.level}", workers, "--block-size=24MiB", "--check=crc64", "--stdout"]
    return ["zstd", "--quiet", f"-{how.level}", workers, "--check", "--stdout"]


def _processors() -> int:
    return max(2, min(MAX_PROCESSORS, len(os.sched_getaffinity(0))))


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name not in NOT_PASSED}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _written(pid: int) -> int:
    """How many bytes a process has written; 0 if that is not told."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["wchar"])
    except (OSError, ValueError, KeyError):
        return 0


# --- the tree ------------------------------------------------------------------------------------


def _survey(root: str) -> View:
    """Look at the tree before it is packed. Raises StageError for what no archive can hold."""
    try:
        view = tree.of_directory(root)
    except tree.TreeError as error:
        raise StageError(f"{root}: {error}") from None
    if view.unreadable:
        raise StageError(f"{view.unreadable[0]}: the tree cannot be read")
    for name, entry in sorted(view.entries.items()):
        if entry.kind == tree.DEVICE:
            raise StageError(f"{name} is a device node, which a container cannot have: remove it")
        if entry.kind == tree.SOCKET:
            raise StageError(f"{name} is a socket, which no archive keeps: remove it")
    return view


def _tar_bytes(view: View) -> int:
    """About how large the archive is."""
    entries = view.entries.values()
    content = sum(-(-each.size // BLOCK) * BLOCK for each in entries if each.kind == tree.FILE)
    return content + (len(view.entries) + 1) * BLOCK


def _squash(image: Image, output: str, how: Compression, report: Reporter) -> None:
    command = ["mksquashfs", image.root, output, "-noappend", "-no-progress", "-b", "128K"]
    command.append("-no-sparse")  # what is sparse depends on the file system that holds the tree
    command += ["-xattrs", "-processors", str(_processors()), "-comp", how.method]
    if how.method == "zstd":
        command += ["-Xcompression-level", str(how.level)]
    # Creation time, and what clamps those of the files.
    environment = {**_environment(), "SOURCE_DATE_EPOCH": str(image.epoch)}
    run_watched(command, report, output, env=environment)


def _tell_acls(root: str, view: View, report: Reporter) -> None:
    found = []
    for name in sorted(view.entries):
        try:
            attributes = os.listxattr(os.path.join(root, name), follow_symlinks=False)
        except OSError:
            continue
        if any(each in ACLS for each in attributes):
            found.append(name)
    if found:
        more = f" and {len(found) - 1} more" if found[1:] else ""
        text = f"a squashfs has no access control lists: those of {found[0]}{more} are left out"
        report.event(text, {"paths": found[:100]}, name="pack.acls")


def _read(path: str, whole: hashlib._Hash) -> Packed:
    """A squashfs cannot be hashed while it is written: its first bytes come last."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            size += len(data)
            digest.update(data)
            whole.update(data)
    return Packed(path, size, digest.hexdigest())
