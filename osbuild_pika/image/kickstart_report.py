"""What was made of a kickstart: a verdict for each of its commands, and what it was refused for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

HONOURED, IGNORED, WARNING, ERROR = VERDICTS = ("honoured", "ignored", "warning", "error")
MAX_NOTE = 400  # characters
MAX_NAME = 60


class Entry(NamedTuple):
    """What became of a command. file: which one, for %include. line: from 1. verdict: of VERDICTS.

    command: its name, also "%post", "@groups", "%post --nochroot": what --allow-unsupported takes.
    """

    file: str
    line: int
    command: str
    verdict: str
    note: str

    @property
    def told(self) -> str:
        """As a line for people: FILE:LINE: what, and the fix."""
        return f"{self.file}:{self.line}: {self.command}: {self.note}".replace(": : ", ": ")


def entry(place: tuple[str, int], command: str, verdict: str, note: str) -> Entry:
    """An entry that can be shown anywhere. place: file and line."""
    file, line = place
    return Entry(
        one_line(file, MAX_NAME),
        line,
        one_line(command, MAX_NAME),
        verdict,
        one_line(note, MAX_NOTE),
    )


@dataclass(frozen=True)
class Report:
    """version: of the kickstart language, such as F46; "" if it did not come so far.

    why: why this version. origin: DISTRIBUTION/SUITE and where that is from. entries: in the order
    of the kickstart.
    """

    name: str
    version: str
    why: str
    origin: str
    entries: tuple[Entry, ...]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(each.verdict for each in self.entries)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def summary(self) -> str:
        """In a line: how many of which verdict, and the version."""
        numbers = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        read = f"; read as {self.version}: {self.why}" if self.version else ""
        made = f"; from {self.origin}" if self.origin else ""
        return f"{numbers or 'nothing in it'}{read}{made}"

    def of(self, verdict: str) -> list[Entry]:
        return [each for each in self.entries if each.verdict == verdict]

    def as_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "version": self.version,
            "why": self.why,
            "origin": self.origin,
            "counts": self.counts,
            "entries": [each._asdict() for each in self.entries],
        }


class KickstartError(InputError):
    """A kickstart is refused. report: all of it. lines: each error as FILE:LINE: what, and the
    fix; at least one."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.lines = tuple(each.told for each in report.of(ERROR))
        more = f" (and {len(self.lines) - 1} more)" if self.lines[1:] else ""
        super().__init__(f"{self.lines[0]}{more}")


def refused(name: str, entries: Iterable[Entry]) -> KickstartError:
    """The error of a text that was not even read."""
    return KickstartError(Report(one_line(name, MAX_NAME), "", "", "", tuple(entries)))
