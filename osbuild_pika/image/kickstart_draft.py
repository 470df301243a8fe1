"""An image definition that grows, command by command, and what is to be told of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from osbuild_pika.errors import InputError
from osbuild_pika.image import definition
from osbuild_pika.image.kickstart_report import (
    ERROR,
    IGNORED,
    WARNING,
    Entry,
    entry,
)
from osbuild_pika.image.kickstart_text import Line
from osbuild_pika.image.reading import DefinitionError, Document, Path
from osbuild_pika.image.values import Definition

Json = dict[str, Any]


class Draft:
    """The document of a definition, as image.yaml would have it, with the line of each value.

    A line is meant by its index among all. allowed: commands that are left out with a warning
    instead of refused.
    """

    def __init__(self, lines: Sequence[Line], allowed: frozenset[str]) -> None:
        self.document: Json = {}
        self.packages: dict[str, int] = {}
        self.excluded: dict[str, int] = {}
        self.time_servers: list[str] = []
        self.origin = ""  # DISTRIBUTION/SUITE, where a mirror's line says it
        self._lines = lines
        self._allowed = allowed
        self._places: dict[Path, int] = {}
        self._users: dict[str, int] = {}
        self._verdicts: dict[int, tuple[str, str]] = {}  # line -> command, verdict
        self._notes: dict[int, list[str]] = {}

    # --- what is told ----------------------------------------------------------------------------

    def judge(self, at: int, command: str, verdict: str, note: str = "") -> None:
        """Say what becomes of the command in a line. An error there stays one."""
        if self._verdicts.get(at, ("", ""))[1] != ERROR:
            self._verdicts[at] = (command, verdict)
        if note:
            self.note(at, note)

    def note(self, at: int, note: str) -> None:
        """Add to what is told of a line; of one with an error only that is told."""
        if self._verdicts.get(at, ("", ""))[1] != ERROR:
            self._tell(at, note)

    def _tell(self, at: int, note: str) -> None:
        notes = self._notes.setdefault(at, [])
        if note not in notes:
            notes.append(note)

    def fault(self, at: int, note: str, command: str = "") -> None:
        """Say what is wrong in a line; what was noted of it before does not count any more."""
        known = self._verdicts.get(at, (command, ""))
        if known[1] != ERROR:
            self._notes[at] = []
        self._verdicts[at] = (known[0] or command, ERROR)
        self._tell(at, note)

    def refuse(self, at: int, command: str, why: str) -> None:
        """Refuse a command, or leave it out with a warning if that is allowed."""
        if command in self._allowed:
            self.judge(at, command, WARNING, f"left out, as --allow-unsupported says: {why}")
        else:
            self.fault(at, f"{why} (--allow-unsupported '{command}' leaves it out)", command)

    def ignore(self, at: int, command: str, why: str) -> None:
        self.judge(at, command, IGNORED, why)

    def entries(self) -> list[Entry]:
        return [
            entry(self._lines[at].place, command, verdict, "; ".join(self._notes.get(at, ())))
            for at, (command, verdict) in sorted(self._verdicts.items())
        ]

    @property
    def is_refused(self) -> bool:
        return any(verdict == ERROR for _, verdict in self._verdicts.values())

    # --- the document ----------------------------------------------------------------------------

    def put(self, key: str, value: Any, at: int) -> None:
        """Give a key its value; the last one counts."""
        if key in self.document and self.document[key] != value:
            self.note(at, "it counts instead of the earlier one")
        self.document[key] = value
        self._places[(key,)] = at

    def append(self, key: str, value: Any, at: int) -> Path:
        """Add to a list; returns where."""
        listed = self.document.setdefault(key, [])
        listed.append(value)
        self._places[(key, len(listed) - 1)] = at
        return (key, len(listed) - 1)

    def file(self, path: str, content: str, at: int, mode: str = "0644") -> None:
        """Put a file into the image; a second one of the same path counts instead."""
        for each in self.document.get("files", ()):
            if each["path"] == path:
                each["content"] = content
                return
        self.append("files", {"path": path, "content": content, "mode": mode}, at)

    def user(self, name: str, at: int) -> Json:
        """The entry of a user, made if there is none."""
        if name not in self._users:
            self._users[name] = len(self.document.get("users", ()))
            self.append("users", {"name": name}, at)
        found: Json = self.document["users"][self._users[name]]
        return found

    def listed_in(self, parent: str, key: str, value: str, at: int) -> None:
        """Add to a list in a mapping, each value once."""
        listed = self.document.setdefault(parent, {}).setdefault(key, [])
        if value not in listed:
            listed.append(value)
            self._places[(parent, key, len(listed) - 1)] = at

    def hook(self, hook: Json, at: int) -> None:
        """Add a script, after those that are there."""
        listed = self.document.setdefault("hooks", {}).setdefault("post-files", [])
        listed.append(hook)
        self._places[("hooks", "post-files", len(listed) - 1)] = at

    def place(self, path: Path, at: int) -> None:
        """Say in which line a part of the document stands."""
        self._places[path] = at

    def finish(self, name: str, origin: str) -> Definition | None:
        """The definition; None, and faults in the lines, if it is wrong. name, origin: as in
        image.yaml. Raises InputError if these are wrong themselves."""
        for key, listed in (("packages", self.packages), ("exclude", self.excluded)):
            for each, at in listed.items():
                self.append(key, each, at)
        whole = {"name": name, "from": origin, **self.document}
        document = Document(value=whole)
        document.places = {path: (at + 1, 1) for path, at in self._places.items()}
        document.places[()] = (0, 1)  # of what stands in no line
        try:
            return definition.of_document(document, name)
        except DefinitionError as error:
            for fault in error.faults:
                if not fault.line:
                    raise InputError(fault.message) from None
                self.fault(fault.line - 1, f"{fault.message}: correct it", "%packages")
            return None
