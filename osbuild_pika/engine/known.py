"""What is known to fit its schema: to find out takes longer than a cached build.

That is whole manifests, and large entries of them, such as a list of packages, which stay the same
while a small one beside them changes.

<store>/valid/<name>   holds its name, which covers what was checked, its schemas and what checks

What is not there, not readable, torn or of another version only means that the manifest is checked.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path

from osbuild_pika.engine.modules import Module

_MANY = 1000  # names that are kept; then it begins anew
_CHECKING = ("schema.py", "modules.py", "manifest.py", "load.py")  # what the answer depends on


def fingerprint(data: bytes, is_strict: bool, modules: Iterable[Module | None]) -> str:
    """64 hex digits for a manifest, or an entry of one, and all that its check depends on.

    modules: those that it names.
    """
    facts = [[each.kind, each.name, each.schema] if each else None for each in modules]
    known = hashlib.sha256()
    for part in (data, json.dumps([is_strict, facts]).encode(), *_code()):
        known.update(hashlib.sha256(part).digest())
    return known.hexdigest()


@functools.cache
def _code() -> tuple[bytes, ...]:
    """What stands for the code that checks: ours, and which jsonschema is installed."""
    found = [Path(__file__).with_name(name).read_bytes() for name in _CHECKING]
    spec = importlib.util.find_spec("jsonschema")  # imports nothing
    if spec is not None and spec.origin is not None:
        facts = os.stat(spec.origin)
        found.append(f"{spec.origin} {facts.st_mtime_ns} {facts.st_size}".encode())
    return tuple(found)


class Known:
    """What a store knows. Nothing is lost if it cannot be read or written."""

    def __init__(self, store: str) -> None:
        self._directory = os.path.join(os.path.abspath(store), "valid")
        self._new: list[str] = []

    def has(self, wanted: str) -> bool:
        """Whether what has this fingerprint was found valid."""
        with contextlib.suppress(OSError), open(os.path.join(self._directory, wanted), "rb") as it:
            return it.read(len(wanted) + 2) == _content(wanted)
        return False

    def note(self, *new: str) -> None:
        """Something is valid; `keep` writes it down, once there is a store."""
        self._new += new

    def keep(self) -> None:
        """Write down what was noted, if the store does not have it."""
        new = [each for each in self._new if not self.has(each)]
        if not new:
            return
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, 0o755, exist_ok=True)
            names = os.listdir(self._directory)
            for each in names if len(names) >= _MANY else ():
                os.unlink(os.path.join(self._directory, each))
            for each in new:
                Path(self._directory, each).write_bytes(_content(each))


def _content(name: str) -> bytes:
    return name.encode() + b"\n"
