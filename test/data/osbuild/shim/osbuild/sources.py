"""Sources."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass, field
from typing import Any

from . import host


@dataclass
class SourceItemResult:
    success: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def set_error(self, error: str) -> None:
        self.success, self.error = False, error


class SourceResults:
    def __init__(self, name: str) -> None:
        self._name = name
        self._results: list[SourceItemResult] = []

    def add(self, result: SourceItemResult) -> None:
        self._results.append(result)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": f"source {self._name}",
            "source_type": self._name,
            "success": all(each.success for each in self._results),
            "output": "",
            "results": [dataclasses.asdict(each) for each in self._results],
        }


class SourceService(host.Service):
    content_type = ""
    cache = tmpdir = ""
    options: Any = None

    def exists(self, checksum: str, _: Any) -> bool:
        return os.path.isfile(os.path.join(self.cache, checksum))

    def fetch_all(self, items: Any) -> Any:
        raise NotImplementedError

    def dispatch(self, name: str, args: Any, fds: Any) -> tuple[Any, Any]:
        if name != "download":
            return super().dispatch(name, args, fds)
        self.cache = os.path.join(args["cache"], self.content_type)
        self.options = args["options"] or {}
        os.makedirs(self.cache, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unverified-", dir=self.cache) as self.tmpdir:
            return self.fetch_all(args["items"]), ()
