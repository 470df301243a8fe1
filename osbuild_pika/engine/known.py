"""Manifests that are known to fit their schemas: to find out takes longer than a cached build.

<store>/valid/<name>   holds its name, which covers the manifest, its schemas and what checks them

What is not there, not readable, torn or of another version only means that the manifest is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from osbuild_pika.engine.modules import Module

_MANY = 1000  # names that are kept; then it begins anew
_CHECKING = ("schema.py", "modules.py", "manifest.py", "load.py")  # what the answer depends on


def fingerprint(data: bytes, is_strict: bool, modules: Iterable[Module | None]) -> str:
    """64 hex digits for a manifest and all that its check depends on. modules: those it names."""
    facts = [[each.kind, each.name, each.schema] if each else None for each in modules]
    known = hashlib.sha256()
    for part in (data, json.dumps([is_strict, facts]).encode(), *_code()):
        known.update(hashlib.sha256(part).digest())
    return known.hexdigest()


def _code() -> Iterator[bytes]:
    """What stands for the code that checks: ours, and which jsonschema is installed."""
    for name in _CHECKING:
        yield Path(__file__).with_name(name).read_bytes()
    spec = importlib.util.find_spec("jsonschema")  # imports nothing
    if spec is not None and spec.origin is not None:
        facts = os.stat(spec.origin)
        yield f"{spec.origin} {facts.st_mtime_ns} {facts.st_size}".encode()


class Known:
    """What a store knows. Nothing is lost if it cannot be read or written."""

    def __init__(self, store: str) -> None:
        self._directory = os.path.join(os.path.abspath(store), "valid")
        self._new: str | None = None

    def has(self, wanted: str) -> bool:
        """Whether a manifest of this fingerprint was found valid."""
        with contextlib.suppress(OSError), open(os.path.join(self._directory, wanted), "rb") as it:
            return it.read(len(wanted) + 2) == _content(wanted)
        return False

    def note(self, new: str) -> None:
        """A manifest is valid; `keep` writes it down, once there is a store."""
        self._new = new

    def keep(self) -> None:
        """Write down what was noted, if the store does not have it."""
        if self._new is None or self.has(self._new):
            return
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, 0o755, exist_ok=True)
            names = os.listdir(self._directory)
            for each in names if len(names) >= _MANY else ():
                os.unlink(os.path.join(self._directory, each))
            Path(self._directory, self._new).write_bytes(_content(self._new))


def _content(name: str) -> bytes:
    return name.encode() + b"\n"
