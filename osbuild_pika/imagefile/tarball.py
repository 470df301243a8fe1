"""Reads a tarball once, from its first byte to its last: names, facts, and a few small files."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from typing import IO, Any

from osbuild_pika import wire
from osbuild_pika.errors import HostError, InputError
from osbuild_pika.imagefile.magic import TAR
from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import Finding, error
from osbuild_pika.inside.lint.view import Entry, View
from osbuild_pika.text import one_line

# kind -> (what decompresses it, the Debian package that holds that)
PROGRAMS: dict[str, tuple[list[str], str]] = {
    "gzip": (["gzip", "-dc"], "gzip"),
    "bzip2": (["bzip2", "-dc"], "bzip2"),
    "xz": (["xz", "-dc", "--format=xz", "--memlimit-decompress=1GiB"], "xz-utils"),
    "lzma": (["xz", "-dc", "--format=lzma", "--memlimit-decompress=1GiB"], "xz-utils"),
    "zstd": (["zstd", "-dcq"], "zstd"),
    "lz4": (["lz4", "-dcq"], "lz4"),
}
# What the linter reads: of a guest's tree, and of an image.
READ = (
    *("etc/", "usr/lib/systemd/", "lib/systemd/", "root/.ssh/", "boot/", "usr/lib/kernel/"),
    *(tree.DATABASE, "var/lib/dbus/", "templates/", form.FILE),
)
MAX_KEPT = 256 << 20  # bytes of all files that are read
MAX_HEADER = 1 << 20  # bytes of a long name or of extended attributes
TIMEOUT_S = 300.0
PIPE_BYTES = 1 << 20
STREAM_BYTES = 1 << 16  # tarfile copies what is left of it for each member

_KINDS = {
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE), tree.FILE),
    tarfile.DIRTYPE: tree.DIRECTORY,
    tarfile.SYMTYPE: tree.LINK,
    tarfile.CHRTYPE: tree.DEVICE,
    tarfile.BLKTYPE: tree.DEVICE,
    tarfile.FIFOTYPE: tree.FIFO,
}
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


@dataclass(frozen=True)
class Archive:
    """What was read. faults: what is wrong with the file itself. is_metadata_late: something of
    rootfs/ comes before metadata.yaml."""

    view: View
    faults: tuple[Finding, ...] = ()
    is_metadata_late: bool = False


class _Member(tarfile.TarInfo):
    """A member whose headers take no more memory than they should."""

    def _proc_member(self, archive: Any) -> Any:
        if self.type in _HEADERS and self.size > MAX_HEADER:
            raise tarfile.ReadError("a member has a header of more than 1 MiB")
        return super()._proc_member(archive)  # type: ignore[misc]


class _TooLong(Exception):
    """It takes longer than it may."""


class _Pipe:
    """A file object over a pipe or a file that gives up at a deadline."""

    def __init__(self, file: IO[bytes], deadline_s: float) -> None:
        self._fd = file.fileno()
        self._deadline_s = deadline_s

    def read(self, size: int) -> bytes:
        """Up to size bytes; fewer only at the end. Raises _TooLong."""
        pieces = []
        while size:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0 or not wire.readable([self._fd], left_s):
                raise _TooLong
            piece = os.read(self._fd, min(size, PIPE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def read(path: str, kind: str) -> Archive:
    """Read a tarball. kind: of magic. Raises InputError, HostError."""
    place = os.path.basename(path)
    reading = _Reading()
    with _opened(path, kind) as (output, ended):
        try:
            pipe: Any = _Pipe(output, time.monotonic() + TIMEOUT_S)
            reading.run(pipe)
            while pipe.read(PIPE_BYTES):
                pass  # the padding: what is wrong behind the end is seen by the program
        except _TooLong:
            text = f"takes longer than {TIMEOUT_S:g} s to read"
            return Archive(reading.view(), (error("truncated", place, text),))
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as problem:
            said = ended() or str(problem)
            text = f"is cut short or damaged: {one_line(said)}; make it anew"
            return Archive(reading.view(), (error("truncated", place, text),))
        said = ended()
    faults = (
        [error("truncated", place, f"is cut short or damaged: {said}; make it anew")]
        if said
        else []
    )
    return Archive(reading.view(), (*faults, *reading.faults), reading.is_metadata_late)


@contextmanager
def _opened(path: str, kind: str) -> Iterator[tuple[IO[bytes], Any]]:
    """The archive's bytes, and what tells why they ended ("": because they are all)."""
    try:
        source = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as problem:
        raise InputError(f"{one_line(path)}: {problem.strerror}") from None
    with source, tempfile.TemporaryFile() as errors:
        if kind == TAR:
            yield source, str
            return
        command, package = PROGRAMS[kind]
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=errors, env=_environment()
            )
        except FileNotFoundError:
            text = f"{command[0]} is not installed: install the package {package}"
            raise HostError(text) from None
        assert process.stdout is not None  # noqa: S101 - for mypy
        try:
            fcntl(process.stdout, F_SETPIPE_SZ, PIPE_BYTES)
            yield process.stdout, lambda: _why(process, errors)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _why(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """Why a program ended; "" if it is content, or does not end by itself."""
    try:
        if process.wait(1.0) == 0:
            return ""
    except subprocess.TimeoutExpired:
        return ""
    errors.seek(0)
    lines = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[0]) if lines else f"it ended with status {process.returncode}"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


class _Reading:
    """What was found so far."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.contents: dict[str, bytes] = {}
        self.faults: list[Finding] = []
        self.is_metadata_late = False
        self._kept = 0

    def view(self) -> View:
        """Directories that only the names of others tell are there, too."""
        for name in list(self.entries):
            place = name.rpartition("/")[0]
            while place and place not in self.entries:
                self.entries[place] = Entry(tree.DIRECTORY, 0o755, (0, 0), 0)
                place = place.rpartition("/")[0]
        return View(self.entries, self.contents.get)

    def run(self, pipe: Any) -> None:
        """Raises tarfile.TarError, and whatever the pipe raises."""
        with tarfile.open(
            fileobj=pipe,
            mode="r|",
            bufsize=STREAM_BYTES,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # they would all be kept
                self._take(archive, member)
                if len(self.entries) > tree.MAX_NAMES:
                    raise tarfile.ReadError(f"it has more than {tree.MAX_NAMES} members")

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = os.path.normpath(member.name)
        if name.startswith("/") or name.split("/")[0] == "..":
            text = "leaves the image; write names that are relative, without '..'"
            self.faults.append(error("member-path", member.name, text))
            return
        if name == ".":
            return
        if name == form.FILE and any(each.startswith("rootfs/") for each in self.entries):
            self.is_metadata_late = True
        if member.islnk():
            self._take_hard_link(name, os.path.normpath(member.linkname))
            return
        owner = (member.uid, member.gid)
        kind = _KINDS.get(member.type, tree.FILE)
        entry = Entry(kind, member.mode & 0o7777, owner, member.size, member.linkname)
        self.entries[name] = entry
        inner = name[len("rootfs/") :] if name.startswith("rootfs/") else name
        is_read = inner.startswith(READ) or "modules.builtin" in inner
        if kind == tree.FILE and is_read and member.size <= tree.limit_of(inner):
            self._keep(archive, member, name)

    def _take_hard_link(self, name: str, target: str) -> None:
        entry = self.entries.get(target)
        if entry is None:
            text = f"is a hard link to {target}, which is not before it; make the image anew"
            self.faults.append(error("member-path", name, text))
            return
        self.entries[name] = entry
        if target in self.contents:
            self.contents[name] = self.contents[target]

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self._kept += member.size
        file = archive.extractfile(member) if self._kept <= MAX_KEPT else None
        if file is not None:
            self.contents[name] = file.read()
