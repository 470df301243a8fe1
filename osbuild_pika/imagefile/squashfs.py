"""Reads a squashfs by unsquashfs: its listing, and the content of a few small files."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading

from osbuild_pika.errors import HostError
from osbuild_pika.imagefile.tarball import READ, TIMEOUT_S, Archive
from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import error
from osbuild_pika.inside.lint.view import Entry, View
from osbuild_pika.text import one_line

ROOT = "squashfs-root"
MAX_OUTPUT = 256 << 20  # bytes of a listing, and of all files that are read
MAX_ARGUMENTS = 1 << 20  # bytes of names in one call
_KINDS = {
    "-": tree.FILE,
    "d": tree.DIRECTORY,
    "l": tree.LINK,
    "c": tree.DEVICE,
    "b": tree.DEVICE,
    "p": tree.FIFO,
    "s": tree.SOCKET,
}
_LINE = re.compile(
    r"([-dlcbps])([-rwxsStT]{9}) (\d+)/(\d+) +(?:(\d+)|\d+, *\d+) \d{4}-\d\d-\d\d \d\d:\d\d "
    rf"{ROOT}/?(.*)"
)
_BITS = (0o400, 0o200, 0o100, 0o40, 0o20, 0o10, 0o4, 0o2, 0o1)
_SPECIAL = {2: 0o4000, 5: 0o2000, 8: 0o1000}


def read(path: str) -> Archive:
    """Read a squashfs. Raises HostError."""
    status, listing, said = _unsquashfs("-lln", path)
    if status:
        text = f"is cut short or damaged: {said}; make it anew"
        fault = error("truncated", os.path.basename(path), text)
        return Archive(View({}, lambda _: None), (fault,))
    entries: dict[str, Entry] = {}
    for line in listing.decode("utf-8", "surrogateescape").split("\n"):
        match = _LINE.fullmatch(line)
        if match is not None and match[6]:
            name, entry = _entry(match)
            entries[name] = entry
    return Archive(View(entries, _contents(path, entries).get))


def _entry(match: re.Match[str]) -> tuple[str, Entry]:
    kind = _KINDS[match[1]]
    name, _, target = match[6].partition(" -> ") if kind == tree.LINK else (match[6], "", "")
    mode = 0
    for index, (letter, bit) in enumerate(zip(match[2], _BITS, strict=True)):
        if letter in "rwxst":
            mode |= bit
        if letter in "sStT":
            mode |= _SPECIAL[index]
    owner = (int(match[3]), int(match[4]))
    return name, Entry(kind, mode, owner, int(match[5] or 0), target)


def _contents(path: str, entries: dict[str, Entry]) -> dict[str, bytes]:
    """The files that the linter reads. unsquashfs writes them one behind another, in our order."""
    names = []
    length = 0
    for name, entry in sorted(entries.items()):
        is_read = entry.kind == tree.FILE and name.startswith(READ)
        if is_read and entry.size <= tree.limit_of(name) and length < MAX_ARGUMENTS:
            names.append(name)
            length += len(os.fsencode(name)) + 1
    if not names:
        return {}
    status, output, _ = _unsquashfs("-no-wildcards", "-cat", path, *names)
    if status or len(output) != sum(entries[name].size for name in names):
        return {}
    found: dict[str, bytes] = {}
    at = 0
    for name in names:
        size = entries[name].size
        found[name] = output[at : at + size]
        at += size
    return found


def _unsquashfs(*arguments: str) -> tuple[int, bytes, str]:
    """Exit status, output, and the first line of what it said. Raises HostError."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    try:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                ["unsquashfs", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
            output = _read(process)
            errors.seek(0)
            lines = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
    except FileNotFoundError:
        text = "unsquashfs is not installed: install the package squashfs-tools"
        raise HostError(text) from None
    if len(output) > MAX_OUTPUT:
        return 1, b"", f"its listing has more than {MAX_OUTPUT} bytes"
    said = one_line(lines[0]) if lines else f"unsquashfs ended with {process.returncode}"
    return process.returncode, output, said


def _read(process: subprocess.Popen[bytes]) -> bytes:
    """All that a program writes, but not for ever; it has ended then."""
    assert process.stdout is not None  # noqa: S101 - for mypy
    timer = threading.Timer(TIMEOUT_S, process.kill)
    timer.start()
    try:
        return process.stdout.read(MAX_OUTPUT + 1)
    finally:
        timer.cancel()
        process.stdout.close()  # ends it if there is more
        process.wait()
