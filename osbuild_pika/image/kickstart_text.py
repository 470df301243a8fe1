"""A kickstart's text: looked at before anything reads it, with what it includes, cut into commands
and sections.

Nothing is included unless a directory is given for that: a kickstart that names /etc/shadow or a
URL is only refused.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from osbuild_pika.errors import InputError
from osbuild_pika.image.kickstart_report import ERROR, Entry, entry
from osbuild_pika.image.reading import shown

MAX_BYTES = 1024 * 1024  # with all that is included
MAX_LINES = 20_000
MAX_ITEMS = 1000  # commands and sections: each that is wrong is read by several versions
MAX_COMMAND = 10_000  # characters of a line outside of scripts
MAX_DEPTH = 8  # of includes in includes
MAX_INCLUDES = 100
INCLUDES = ("%include", "%ksappend")
SECTIONS = (
    *("%packages", "%pre", "%pre-install", "%post", "%onerror", "%traceback", "%certificate"),
    *("%addon", "%anaconda", "%pack", "%attachment"),
)
# Whatever moves a cursor, forges or turns lines, or is no character at all. Tabs are fine.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Line(NamedTuple):
    """A line, and where it stands. number: from 1."""

    file: str
    number: int
    text: str

    @property
    def place(self) -> tuple[str, int]:
        return self.file, self.number


class Item(NamedTuple):
    """A command, or a section with its body. at, and of the body: index of the line among all.

    words: of its line. fault: why the line could not be cut into words. is_ended: by %end.
    """

    at: int
    words: tuple[str, ...]
    body: tuple[tuple[int, str], ...] = ()
    is_ended: bool = True
    fault: str = ""

    @property
    def name(self) -> str:
        return self.words[0] if self.words else ""


class Expanded(NamedTuple):
    """All lines of a kickstart with its includes.

    faults: why it is no text that is read on. refused: includes that are not followed: the index
    of the line, which is empty, the command, and why.
    """

    lines: tuple[Line, ...]
    faults: tuple[Entry, ...]
    refused: tuple[tuple[int, str, str], ...]


def expand(text: str, name: str, include_root: str | None) -> Expanded:
    """A kickstart's lines, with the files that it includes in their places.

    include_root: the directory below which they lie; None refuses all. Reads those files only.
    Raises InputError if include_root is no directory.
    """
    if include_root is not None and not os.path.isdir(include_root):
        raise InputError(f"--include-root {shown(include_root)}: there is no such directory")
    reader = _Reader(include_root)
    reader.take(text, name, 0)
    return Expanded(tuple(reader.lines), tuple(reader.faults), tuple(reader.refused))


class _Reader:
    """Gathers lines. bytes_left: of all files together."""

    def __init__(self, include_root: str | None) -> None:
        self.lines: list[Line] = []
        self.faults: list[Entry] = []
        self.refused: list[tuple[int, str, str]] = []
        self._root = include_root
        self._bytes_left = MAX_BYTES
        self._includes = 0

    def take(self, text: str, file: str, depth: int) -> None:
        self._bytes_left -= len(text.encode("utf-8", "replace"))
        if self._bytes_left < 0:
            self._fault(file, 1, f"is larger than {MAX_BYTES} bytes: take out what is no text")
            return
        lines = text.replace("\r\n", "\n").split("\n")
        if len(self.lines) + len(lines) > MAX_LINES:
            self._fault(file, 1, f"has more than {MAX_LINES} lines: shorten it")
            return
        for number, line in enumerate(lines, 1):
            odd = _CONTROL.search(line)
            if odd is not None:  # one line for the whole file: it is no text at all
                what = f"a control character (U+{ord(odd[0]):04X}): remove it"
                self._fault(file, number, what)
                return
        for number, line in enumerate(lines, 1):
            if line.lstrip().startswith(INCLUDES) and line.split()[0] in INCLUDES:
                self._include(Line(file, number, line.strip()), depth)
            else:
                self.lines.append(Line(file, number, line))

    def _fault(self, file: str, number: int, what: str) -> None:
        self.faults.append(entry((file, number), "", ERROR, what))

    def _include(self, line: Line, depth: int) -> None:
        command, *names = _words(line.text)[0] or (line.text.split()[0],)
        self._includes += 1
        try:
            if len(names) != 1 or not names[0]:
                raise InputError("names no file, or more than one: write one")
            if depth == MAX_DEPTH:
                raise InputError(f"{shown(names[0])}: is nested deeper than {MAX_DEPTH} files")
            if self._includes > MAX_INCLUDES:
                raise InputError(f"{shown(names[0])}: more than {MAX_INCLUDES} includes")
            text = self._read(names[0])
        except InputError as error:
            self.refused.append((len(self.lines), command, str(error)))
            self.lines.append(line._replace(text=""))
            return
        self.take(text, names[0], depth + 1)

    def _read(self, name: str) -> str:
        """The text of an included file. Raises InputError."""
        if "://" in name or _URL.match(name):
            raise InputError(f"{shown(name)}: URLs are not included: save it below --include-root")
        if self._root is None:
            raise InputError(f"{shown(name)}: not included: allow it with --include-root DIR")
        return _read_below(self._root, name, self._bytes_left)


def _read_below(root: str, name: str, room: int) -> str:
    """A regular file below a directory, whatever links are on the way. Raises InputError."""
    top = os.path.realpath(root)
    try:
        real = os.path.realpath(os.path.join(top, name), strict=True)
        if os.path.commonpath([top, real]) != top:
            raise InputError(f"{shown(name)}: leads out of --include-root: copy it there")
        fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InputError(f"{shown(name)}: is not a regular file: name a kickstart")
            data = file.read(max(room, 0) + 1)
    except OSError as error:
        raise InputError(f"{shown(name)}: {error.strerror}: put it below --include-root") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{shown(name)}: is not UTF-8 text: name a kickstart") from None


def _words(text: str) -> tuple[tuple[str, ...], str]:
    """The words of a command, and why there are none."""
    if len(text) > MAX_COMMAND:
        return (), f"has more than {MAX_COMMAND} characters: shorten it"
    try:
        words = tuple(shlex.split(text, comments=True))
    except ValueError:
        return (), "a quote is not closed, or a \\ stands at the end: correct it"
    return words, "" if words and words[0] else "no command: remove it"


def split(lines: Sequence[Line]) -> Iterator[Item]:
    """The commands and sections of a kickstart, in order."""
    marks = [index for index, line in enumerate(lines) if _is_mark(line.text)]
    at = 0
    while at < len(lines):
        text = lines[at].text.strip()
        if not text or text.startswith("#"):
            at += 1
            continue
        words, fault = _words(text)
        first = text.split()[0]
        if first.startswith("%") and first != "%end":
            end, is_ended = _end(lines, at + 1, marks)
            if first in SECTIONS or is_ended:
                body = tuple((index, lines[index].text) for index in range(at + 1, end))
                yield Item(at, words or (first,), body, is_ended, fault)
                at = end + is_ended
                continue
        yield Item(at, words or (first,), fault=fault)
        at += 1


def _end(lines: Sequence[Line], start: int, marks: Sequence[int]) -> tuple[int, bool]:
    """Where a section's body ends, and whether %end does it; else another section, or the file.

    marks: the indices of all lines that may do that.
    """
    place = bisect_left(marks, start)
    if place == len(marks):
        return len(lines), False
    return marks[place], lines[marks[place]].text.split()[0] == "%end"


def _is_mark(text: str) -> bool:
    return text.lstrip().startswith("%") and text.split()[0] in ("%end", *SECTIONS)
