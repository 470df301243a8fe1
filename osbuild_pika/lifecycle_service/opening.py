"""One opened device: the socket of one stage, who is connected to it, and what the stage said."""

from __future__ import annotations

import _socket as socket
import contextlib
import errno
import os
import stat

from osbuild_pika import wire
from osbuild_pika.lifecycle_service.processes import Sandbox, peer_of
from osbuild_pika.lifecycle_service.verdict import Seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from osbuild_pika.lifecycle_service.authority import Stage

NODE = "osbuild-pika-lifecycle"
MAX_PACKET = 128 * 1024  # bytes of a stage's message
QUOTA = 1024 * 1024  # bytes of events that a stage may write
_BACKLOG = 256
_DYING_S = 0.02  # a sandbox is killed when who made it is, which may be just now
_BUFFER = bytearray(MAX_PACKET)  # the service has one thread


class Opening:
    """A listening socket in a device directory. Raises OSError if it cannot be made."""

    def __init__(self, devpath: str, stage: Stage) -> None:
        self.path = os.path.join(devpath, NODE)
        self.stage = stage
        self.used = 0  # bytes of its quota
        self.result: dict[str, Any] | None = None
        self.sandbox: Sandbox | None = None
        self.clients: set[Peer] = set()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            wire.at_directory(devpath, NODE, self._bind)
            self.socket.listen(_BACKLOG)
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise

    def _bind(self, path: str) -> None:
        try:
            self.socket.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left(path):
                raise
            os.unlink(path)
            self.socket.bind(path)
        # Stages are nobody; who may reach the directory is for its owner to say.
        os.chmod(path, 0o666)  # noqa: S103

    def fileno(self) -> int:
        return self.socket.fileno()

    def accept(self) -> Peer | None:
        """The next client; None if there is none."""
        try:
            fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            sock = socket.socket(fileno=fd)
        except OSError:
            return None
        if self.sandbox is None or not self.sandbox.is_held:
            self.sandbox = Sandbox(peer_of(sock))
        sock.setblocking(False)
        peer = Peer(wire.Connection(sock, MAX_PACKET, False, _BUFFER), self)
        self.clients.add(peer)
        return peer

    def seen(self) -> Seen:
        """What is known of the stage now, for the verdict."""
        has_result = self.result is not None
        if self.sandbox is None:
            return Seen(self.stage.is_final, has_result, "unknown", None)
        if not self.sandbox.has_ended(_DYING_S):
            return Seen(self.stage.is_final, has_result, "alive", None)
        return Seen(self.stage.is_final, has_result, "ended", self.sandbox.exit_status())

    def close(self) -> None:
        self.socket.close()
        if self.sandbox is not None:
            self.sandbox.close()
        with contextlib.suppress(OSError):  # upstream removes the directory first
            wire.at_directory(os.path.dirname(self.path), NODE, os.unlink)


def _is_left(path: str) -> bool:
    """Whether this is the socket of a service that was killed: nobody has it open any more."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        probe.connect(path)  # a living one is of another type: it never learns of this
    except OSError as error:
        return error.errno == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(path).st_mode)
    finally:
        probe.close()
    return False


class Peer:
    """Who may call: the manager (opening None), or a client of a stage's socket."""

    def __init__(self, connection: wire.Connection, opening: Opening | None) -> None:
        self.connection = connection
        self.opening = opening
        self.unsent = b""  # an answer that it did not make room for: until then it is not read
        self.waits = False  # whether a call of it waits for the next batch

    def fileno(self) -> int:
        return self.connection.fileno()
