"""Inputs: host services that show a stage what sources got or other pipelines made.

`InputService` is the base of the executables in inputs/, `StoreClient` asks the engine's store for
them. Calls are upstream osbuild's (v191), so both run under engines of both.
"""

from __future__ import annotations

import json
import os

from osbuild_pika import host, wire
from osbuild_pika.errors import PikaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple
else:
    from collections import namedtuple

FROM_SOURCE, FROM_PIPELINE = "org.osbuild.source", "org.osbuild.pipeline"
_ARGUMENTS = {"origin": str, "refs": dict, "target": str, "options": dict | None, "api": dict}

if TYPE_CHECKING:

    class Request(NamedTuple):
        """What is to be shown. references: name -> options. target: an empty directory for it."""

        origin: str
        references: Mapping[str, Any]
        target: str
        options: Mapping[str, Any]

else:
    Request = namedtuple("Request", "origin references target options")


class StoreClient:
    """Asks the store at the engine's socket. Each method raises PikaError, OSError."""

    def __init__(self, path: str) -> None:
        self._connection = wire.Connection.connect(path)

    def close(self) -> None:
        self._connection.close()

    def read_tree(self, object_id: str) -> str | None:
        """The directory of a pipeline's tree; None if there is no such."""
        return self._ask({"method": "read-tree", "object-id": object_id})

    def read_tree_at(self, object_id: str, target: str, subtree: str = "/") -> str | None:
        """Show what is at `subtree` of a pipeline's tree at `target`, which must be there."""
        place = {"target": target, "subtree": subtree}
        return self._ask({"method": "read-tree-at", "object-id": object_id, **place})

    def mkdtemp(self, suffix: str | None = None, prefix: str | None = None) -> str | None:
        """A new directory that lives as long as the stage."""
        return self._ask({"method": "mkdtemp", "suffix": suffix, "prefix": prefix})

    def source(self, name: str) -> str | None:
        """The directory with all content of a type, such as org.osbuild.files."""
        return self._ask({"method": "source", "name": name})

    def _ask(self, question: dict[str, Any]) -> str | None:
        self._connection.send(json.dumps(question).encode())
        received = self._connection.receive()
        if received is None:
            raise PikaError("the store hung up")
        wire.close_all(received[1])
        answer = json.loads(received[0])
        if answer.get("error"):
            raise PikaError(f"the store: {answer['error']}")
        path = answer.get("path")
        return None if path is None else str(path)


class InputService(host.Service):
    """Base of an input's executable: implement `map`, and `unmap` if there is something to undo."""

    def map(self, store: StoreClient, request: Request) -> dict[str, Any]:
        """Show what is asked for below request.target. Returns {"path": ..., "data": ...}, where
        path is the target or below it, and data, if there is any, is for the stage."""
        raise NotImplementedError

    def unmap(self) -> None:
        """Undo `map`; called once at the end."""

    def stop(self) -> None:
        self.unmap()

    def dispatch(self, name: str, args: Any, fds: Sequence[int]) -> tuple[Any, Sequence[int]]:
        if name != "map":
            return super().dispatch(name, args, fds)
        wire.require(name, args, _ARGUMENTS)
        request = Request(args["origin"], args["refs"], args["target"], args["options"] or {})
        store = StoreClient(args["api"]["store"])
        try:
            return self.map(store, request), ()
        finally:
            store.close()


def file_below(path: Any) -> str:
    """A path of options, relative to a tree's root. Raises PikaError if it could lead out."""
    if isinstance(path, str) and "\0" not in path:
        relative = os.path.normpath(path.lstrip("/"))
        if relative != "." and relative.split("/")[0] != "..":
            return relative
    raise PikaError(f"{ascii(path)[:80]} is no path of a file in a tree")
