"""YAML with the place of every value, checked against a JSON schema: all faults at once.

The events of PyYAML's parser are put together here, not by its composer: that one recurses, and
written in C it dies of a deeply nested text. Aliases, tags and repeated keys are refused, so what
is read is as large as what was written.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from osbuild_pika.errors import InputError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20  # of nested lists and mappings
MAX_VALUES = 10_000  # of all kinds
MAX_SHOWN = 60  # characters of a value that is told of
Path = tuple[str | int, ...]
Place = tuple[int, int]


def shown(value: object) -> str:
    """A value as a message shows it: short, in quotes, on one line."""
    text = str(value)
    return ascii(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """The first `limit` bytes of a regular file; a pipe is not waited for. Raises InputError,
    FileNotFoundError."""
    name = ascii(os.fspath(path))[1:-1]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InputError(f"{name}: is no regular file")
            return file.read(limit)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name}: {why}") from None


class Fault(NamedTuple):
    """One thing that is wrong. line, column: from 1."""

    line: int
    column: int
    message: str


class DefinitionError(InputError):
    """A definition is wrong. name: of the file. faults: all that is, in order, at least one."""

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        self.name = name
        self.faults = tuple(sorted(set(faults)))
        more = f" (and {len(self.faults) - 1} more)" if self.faults[1:] else ""
        super().__init__(f"{self.lines[0]}{more}")

    @property
    def lines(self) -> list[str]:
        """Each fault as FILE:LINE:COLUMN: MESSAGE."""
        return [f"{self.name}:{line}:{column}: {text}" for line, column, text in self.faults]


@dataclass
class Document:
    """What was read. places, keys: where each value, and the key of each, begins.

    texts: plain scalars as they were written. spoilt: values that could not be read.
    """

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    spoilt: set[Path] = field(default_factory=set)

    def fault(self, path: Path, message: str, is_key: bool = False) -> None:
        """Note what is wrong at a path; what has no place stands at the nearest that has."""
        if path in self.spoilt:
            return
        known = self.keys if is_key and path in self.keys else self.places
        while path not in known and path:
            path, known = path[:-1], self.places
        self.faults.append(Fault(*known.get(path, (1, 1)), message))


def parse(data: bytes, name: str) -> Document:
    """Read YAML: one document of mappings, lists and plain values. Raises DefinitionError.

    The error is for what hides all the rest; other faults are in the document.
    """
    import yaml  # 20 ms, for who reads a definition only

    if len(data) > MAX_BYTES:
        raise DefinitionError(name, [Fault(1, 1, f"is larger than {MAX_BYTES} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - before.rfind(b"\n")
        at = before.count(b"\n") + 1, column
        raise DefinitionError(name, [Fault(*at, "is not UTF-8 text")]) from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = ", ".join(each for each in (error.context, error.problem) if each)
        raise DefinitionError(name, [Fault(*at, f"is not YAML: {why}")]) from None
    except yaml.reader.ReaderError as error:
        before_it = text[: error.position] if isinstance(error.position, int) else ""
        at = before_it.count("\n") + 1, len(before_it) - before_it.rfind("\n")
        raise DefinitionError(name, [Fault(*at, f"is not YAML: {error.reason}")]) from None
    except _TooMuchError as error:
        raise DefinitionError(name, [Fault(*error.place, str(error))]) from None
    return builder.document


class _TooMuchError(Exception):
    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class _Builder:
    """Puts events together. A level is what is open: its path, its value, the key that waits."""

    def __init__(self) -> None:
        import yaml

        self.document = Document()
        self._yaml = yaml
        self._resolver: Any = yaml.resolver.Resolver()
        self._constructor: Any = yaml.constructor.SafeConstructor()
        self._levels: list[tuple[Path, Any]] = []
        self._key: list[str | None] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        yaml = self._yaml
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self.document.faults.append(Fault(*place, "a second document begins here"))
        elif self._documents > 1:
            return
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._levels.pop()
            self._key.pop()
        elif isinstance(event, yaml.AliasEvent):
            self.document.faults.append(Fault(*place, "an alias: write the value itself"))
            self.document.spoilt.add(self._put(None, place))
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, place)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event, place)

    def _open(self, value: Any, event: Any, place: Place) -> None:
        if len(self._levels) == MAX_DEPTH:
            raise _TooMuchError(f"is nested deeper than {MAX_DEPTH} lists and mappings", place)
        self._refuse_tag(event, place)
        path = self._put(value, place)
        self._levels.append((path, value))
        self._key.append(None)

    def _refuse_tag(self, event: Any, place: Place) -> bool:
        if event.tag is None:
            return False
        self.document.faults.append(Fault(*place, f"a tag, {shown(event.tag)}: leave it out"))
        return True

    def _scalar(self, event: Any, place: Place) -> None:
        has_tag = self._refuse_tag(event, place)
        is_plain = event.implicit[0] and not has_tag
        if self._levels and isinstance(self._levels[-1][1], dict) and self._key[-1] is None:
            self._begin_pair(event.value, place)
            return
        value: Any = event.value
        if any("\ud800" <= each <= "\udfff" for each in event.value):
            self.document.faults.append(Fault(*place, "half a character: an escape of a surrogate"))
        if is_plain:
            tag = self._resolver.resolve(self._yaml.ScalarNode, event.value, event.implicit)
            node = self._yaml.ScalarNode(tag, event.value)
            try:
                value = self._constructor.construct_object(node)
            except (self._yaml.YAMLError, ValueError, OverflowError):
                value = event.value  # 2026-99-99, "=", "<<": text after all
        path = self._put(value, place)
        if is_plain:
            self.document.texts[path] = event.value

    def _begin_pair(self, key: str, place: Place) -> None:
        path, holder = self._levels[-1]
        if key in holder:
            self.document.faults.append(Fault(*place, f"the key {shown(key)} stands here twice"))
        self.document.keys[(*path, key)] = place
        self._key[-1] = key

    def _put(self, value: Any, place: Place) -> Path:
        """Give a value to what is open; returns its path."""
        if len(self.document.places) == MAX_VALUES:
            raise _TooMuchError(f"has more than {MAX_VALUES} values", place)
        if not self._levels:
            self.document.value = value
            self.document.places[()] = place
            return ()
        path, holder = self._levels[-1]
        if isinstance(holder, list):
            path = (*path, len(holder))
            holder.append(value)
        elif self._key[-1] is None:
            self.document.faults.append(Fault(*place, "a key that is no plain text"))
            self._key[-1] = ""
            return (*path, "")
        else:
            path = (*path, self._key[-1])
            holder[self._key[-1]] = value
            self._key[-1] = None
        self.document.places[path] = place
        return path
