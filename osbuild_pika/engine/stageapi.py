"""The socket on which a stage can say why it failed: upstream's `osbuild` API (v191).

One message is known, `{"method": "exception", "exception": {"type", "value", "traceback"}}`, in
upstream's packets; it is not answered. Who speaks is not trusted: connections, messages and
texts are limited, descriptors are closed, and whatever else is said is ignored.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from osbuild_pika import wire

if TYPE_CHECKING:
    import socket

MAX_CONNECTIONS = 8
MAX_MESSAGES = 64
MAX_MESSAGE = 1024 * 1024  # bytes
MAX_TEXT = 64 * 1024  # characters of each part of an exception


class StageException(NamedTuple):
    """What a stage's code raised, in its words."""

    type: str
    value: str
    traceback: str


class StageApi:
    """Listens at a path, for the time of a `with` block. `exception` is the first one told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exception: StageException | None = None
        self._listener: socket.socket | None = None
        self._connections: dict[int, wire.Connection] = {}
        self._messages = 0

    def __enter__(self) -> Self:
        import socket  # 5 ms, and no build whose stages are cached listens

        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.setblocking(False)
            wire.at_directory(str(self.path.parent), self.path.name, listener.bind)
            self.path.chmod(0o666)
            listener.listen(MAX_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._listener is not None:
            self._listener.close()

    def filenos(self) -> list[int]:
        """The descriptors to wait for; `handle` takes one that is readable."""
        if self._listener is None or self._messages >= MAX_MESSAGES:
            return []
        room = len(self._connections) < MAX_CONNECTIONS
        return [*self._connections, *([self._listener.fileno()] if room else [])]

    def handle(self, fd: int) -> None:
        """Take a connection, or one message. Never raises for what a stage does, never waits."""
        if fd in self._connections:
            self._receive(fd)
        elif self._listener is not None:
            with contextlib.suppress(OSError):  # it went away before it was taken
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                self._connections[sock.fileno()] = wire.Connection(sock, MAX_MESSAGE)

    def drain(self) -> None:
        """Take what was said before the stage ended."""
        while ready := wire.readable(self.filenos(), 0.0):
            for fd in ready:
                self.handle(fd)

    def _receive(self, fd: int) -> None:
        self._messages += 1
        try:
            received = self._connections[fd].receive()
        except wire.ProtocolError:
            return
        except OSError:
            received = None
        if received is None:
            self._messages -= 1
            self._connections.pop(fd).close()
            return
        wire.close_all(received[1])
        said = parse_exception(received[0])
        if self.exception is None:
            self.exception = said


def parse_exception(packet: bytes) -> StageException | None:
    """The exception in a message; None if it is another one, or none at all."""
    try:
        message = json.loads(packet.decode("utf-8"))
        if message["method"] != "exception":
            return None
        texts = [message["exception"][name] for name in ("type", "value", "traceback")]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    return StageException(*(text[:MAX_TEXT] for text in texts))
