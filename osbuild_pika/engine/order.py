"""What a build is asked for: one value, from the caller's process to the build's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

GIB = 1024**3


class Order(NamedTuple):
    """manifest: its text. name: what it is called in messages. run: name of the run.

    exports: pipelines, by name or id; None: those that the manifest names, else its last one.
    With `output` their trees are copied below it. output, store: directories. libdirs: module
    directories, before ours. total_s, idle_s: limits of each stage in seconds. is_forced: replace
    what is exported already. is_copied: no overlay mounts. max_bytes: what the store may keep.
    """

    manifest: str
    name: str
    run: str
    store: str
    exports: tuple[str, ...] | None = None
    output: str | None = None
    libdirs: tuple[str, ...] = ()
    total_s: float | None = None
    idle_s: float | None = None
    is_forced: bool = False
    is_copied: bool = False
    max_bytes: int = 20 * GIB
    term: str = "dumb"

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> Order:
        fields = json.loads(data)
        for name in ("exports", "libdirs"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**fields)


def name_of(path: str) -> str:
    """What the manifest in a file is called; "-" is the standard input."""
    return "stdin" if path == "-" else Path(path).name


def run_name(name: str) -> str:
    """A name for a run, from what the manifest is called."""
    stem = Path(name).name.removesuffix(".json").lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[:64] or "build"


def encode_record(record: Mapping[str, Any]) -> bytes:
    """What the build process writes of a record for who ordered it: one line."""
    return json.dumps(record).encode("utf-8", "backslashreplace") + b"\n"
