"""The socket on which an input's service asks for what the store has: upstream's store API (v191).

`{"method": "read-tree", "object-id"}`, `{"method": "read-tree-at", "object-id", "target",
"subtree"}`, `{"method": "mkdtemp", "suffix"?, "prefix"?}` and `{"method": "source", "name"}`,
answered by `{"path": ...}` (null: there is no such tree) or `{"error": ...}`. Upstream's services
speak to it, too; they are the host's, and so is whoever asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from osbuild_pika import libc, wire
from osbuild_pika.engine import area as areas
from osbuild_pika.errors import PikaError


class Trees(NamedTuple):
    """What may be asked for. shown: id of a pipeline -> directory that shows its tree.

    sources: the directory with one directory for each type of content. scratch: for mkdtemp.
    """

    shown: Mapping[str, str]
    sources: str
    scratch: str


class StoreApi:
    """Answers at a path, for the time of a `with` block, in a thread."""

    def __init__(self, path: Path, trees: Trees) -> None:
        self.path = path
        self._trees = trees
        import socket  # 5 ms, and no build whose stages are cached listens

        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ending, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="store api", daemon=True)
        self._connections: dict[int, wire.Connection] = {}
        self._mounted: list[Path] = []

    def __enter__(self) -> Self:
        wire.at_directory(str(self.path.parent), self.path.name, self._listener.bind)
        self.path.chmod(0o600)
        self._listener.listen()
        self._listener.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._ending)
        for connection in self._connections.values():
            connection.close()
        self._listener.close()
        for path in reversed(self._mounted):
            libc.unmount(path)

    def _serve(self) -> None:
        while True:
            waiting = [self._ending, self._listener.fileno(), *self._connections]
            ready = wire.readable(waiting)
            if self._ending in ready:
                return
            for fd in ready:
                if fd in self._connections:
                    self._answer(fd)
                else:
                    with contextlib.suppress(OSError):
                        sock, _ = self._listener.accept()
                        self._connections[sock.fileno()] = wire.Connection(sock)

    def _answer(self, fd: int) -> None:
        connection = self._connections[fd]
        try:
            received = connection.receive()
            if received is not None:
                wire.close_all(received[1])
                connection.send(json.dumps(self._reply(received[0])).encode())
                return
        except (OSError, wire.ProtocolError):
            pass
        self._connections.pop(fd).close()

    def _reply(self, packet: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(packet)
            method = asked["method"]
            if method == "read-tree":
                return {"path": self._trees.shown.get(asked["object-id"])}
            if method == "read-tree-at":
                return {"path": self._show(asked)}
            if method == "mkdtemp":
                import tempfile  # 10 ms with random; hardly an input asks for it

                names = (asked.get("suffix"), asked.get("prefix"))
                return {"path": tempfile.mkdtemp(*names, dir=self._trees.scratch)}
            if method == "source":
                return {"path": self._source(asked["name"])}
            raise ValueError(f"unknown method {ascii(method)[:60]}")
        except (PikaError, OSError) as error:
            return {"error": str(error)}
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            told = {"type": type(error).__name__, "value": str(error)[:200], "traceback": ""}
            return {"method": "exception", "exception": told}

    def _source(self, name: str) -> str:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{ascii(name)[:60]} is no type of content")
        return os.path.join(self._trees.sources, name)

    def _show(self, asked: Mapping[str, Any]) -> str | None:
        """Mount a tree, or a part of it, where the input wants it; no link leads out of it."""
        shown = self._trees.shown.get(asked["object-id"])
        if shown is None:
            return None
        target = Path(asked["target"])
        fd = libc.open_in_root(shown, asked["subtree"].strip("/") or ".")
        try:
            if not target.exists():
                target.mkdir(mode=0o755)
            areas.show_read_only(f"/proc/self/fd/{fd}", target)
        finally:
            os.close(fd)
        self._mounted.append(target)
        return str(target)
