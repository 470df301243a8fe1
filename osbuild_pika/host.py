"""Host services: processes outside the sandbox that answer calls over a socket.

`Service` is what a module executable is made of, `ServiceManager` starts such executables and
`ServiceClient` calls them. Command line, environment and wire format are upstream osbuild's
(v191), so services of both run under managers of both. A call has four outcomes, each its own:
the reply is returned, RemoteError (the service answered with an exception), ServiceDied and
ServiceTimeout are raised. Packets carry no number, so which call an answer belongs to is known by
its order alone: each call has exactly one answer, and what lies there before a call is not its.
"""

from __future__ import annotations

import _socket as socket
import codecs
import os
import signal
import sys
import time
from collections import deque

from osbuild_pika import wire
from osbuild_pika.errors import InputError, PikaError, RemoteError, ServiceDied, ServiceTimeout
from osbuild_pika.lifecycle import LifecycleError

TYPE_CHECKING = False
if TYPE_CHECKING:  # subprocess and threading: only managers pay for them, services start often
    import subprocess
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    Output = Callable[[str, str], None]

STOP_TIMEOUT_S = 10.0
LAST_LINES = 20
DYING_S = 1.0  # for a service that closed its socket to exit, and for its last lines to arrive
MAX_LINE = 64 * 1024  # bytes of a line of output; a longer one is given in pieces


class Service:
    """Base of a host service. A subclass answers `dispatch`; `main` is the whole program."""

    def __init__(self, connection: wire.Connection, service_id: str) -> None:
        self.connection = connection
        self.service_id = service_id

    @classmethod
    def from_args(cls, argv: Sequence[str] | None = None) -> Self:
        """Make the service from a manager's --service-id, --service-fd. Raises InputError."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        given = dict(zip(arguments[::2], arguments[1::2], strict=False))
        if not given.get("--service-fd", "").isdecimal():
            raise InputError("a manager starts this, with --service-id ID --service-fd N")
        sock = socket.socket(fileno=int(given["--service-fd"]))
        os.set_inheritable(sock.fileno(), False)  # the manager sees our end, not our children's
        return cls(wire.Connection(sock), given.get("--service-id", ""))

    def dispatch(self, name: str, args: Any, fds: Sequence[int]) -> tuple[Any, Sequence[int]]:
        """Answer a call: (JSON value, descriptors). Whatever it raises becomes the answer.

        All descriptors, given and returned, are closed afterwards: duplicate those to keep.
        """
        raise wire.ProtocolError("Unknown method")

    def stop(self) -> None:
        """Called once when the manager has closed its end."""

    def emit_signal(self, value: Any, fds: Sequence[int] = ()) -> None:
        """Send a value to the manager, outside of the answer to a call."""
        self.connection.send(wire.encode(wire.Signal(value)), fds)

    def main(self) -> None:
        """Serve until the manager closes its end, then stop.

        SIGINT and SIGTERM go to the whole group: the manager decides when services end.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self.serve()
        finally:
            self.stop()

    def serve(self) -> None:
        while True:
            fds: Sequence[int] = ()
            try:
                received = self.connection.receive()
            except wire.ProtocolError as error:
                answer = wire.encode(failure_of(error))
            else:
                if received is None:
                    return
                answer, fds = self.answer(*received)
            try:
                self._send(answer, fds)
            except _GONE:
                return

    def _send(self, answer: bytes, fds: Sequence[int]) -> None:
        try:
            self.connection.send(answer, fds)
        except _GONE:
            raise
        except OSError as error:  # dispatch gave descriptors that cannot be sent
            self.connection.send(wire.encode(failure_of(error)))
        finally:
            wire.close_all(fds)

    def answer(self, packet: bytes, fds: Sequence[int]) -> tuple[bytes, Sequence[int]]:
        """Turn a packet into its answer; never raises for what the packet says."""
        reply_fds: Sequence[int] = ()
        try:
            message = wire.decode(packet)
            if not isinstance(message, wire.Method):
                raise wire.ProtocolError(f"unknown message type: {wire.kind_of(message)}")
            value, reply_fds = self.dispatch(message.name, message.args, fds)
            return wire.encode(wire.Reply(value)), reply_fds
        except Exception as error:
            wire.close_all(reply_fds)
            return wire.encode(failure_of(error)), ()
        finally:
            wire.close_all(fds)


def failure_of(error: Exception) -> wire.Failure:
    """What goes over the wire for an exception: its class's name, or the stable name of ours."""
    import traceback  # only when something failed

    name = error.name if isinstance(error, LifecycleError) else type(error).__name__
    return wire.Failure(name, str(error), "".join(traceback.format_tb(error.__traceback__)))


class ServiceClient:
    """A running service, for one thread. Made by ServiceManager.start."""

    def __init__(
        self, service_id: str, process: subprocess.Popen[bytes], connection: wire.Connection
    ) -> None:
        self.service_id = service_id
        self.process = process
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self._connection = connection
        self._unanswered = 0
        self._on_signal: Callable[[Any], None] | None = None
        self._reader: threading.Thread | None = None

    def on_signal(self, callback: Callable[[Any], None] | None) -> None:
        """Have the values of signals given to `callback`, while a call waits for its answer."""
        self._on_signal = callback

    def call(self, name: str, args: Any = None, timeout_s: float | None = None) -> Any:
        """Call a method and return its reply. Raises RemoteError, ServiceDied, ServiceTimeout."""
        value, fds = self.call_with_fds(name, args, timeout_s=timeout_s)
        wire.close_all(fds)
        return value

    def call_with_fds(
        self,
        name: str,
        args: Any = None,
        fds: Sequence[int] = (),
        timeout_s: float | None = None,
    ) -> tuple[Any, list[int]]:
        """As `call`, with descriptors both ways; those returned are the caller's to close."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        packet = wire.encode(wire.Method(name, [] if args is None else args))
        while _is_readable(self._connection, 0.0):  # a second answer to an earlier call
            self._take(*self._receive())
        try:
            self._connection.send(packet, fds, timeout_s)
        except BlockingIOError:
            raise ServiceTimeout(self.service_id, name, timeout_s or 0.0) from None
        except _GONE:
            raise self._death() from None
        self._unanswered += 1
        while _is_readable(self._connection, deadline):
            message, reply_fds = self._receive()
            if self._unanswered == 1 and isinstance(message, wire.Reply):
                self._unanswered = 0
                return message.value, reply_fds
            self._take(message, reply_fds)
            if not self._unanswered and isinstance(message, wire.Failure):
                raise RemoteError(self.service_id, *message)
            if deadline is not None and time.monotonic() > deadline:
                break
        raise ServiceTimeout(self.service_id, name, timeout_s or 0.0)

    def _receive(self) -> tuple[wire.Message, list[int]]:
        """Receive a message; one that is none counts as a failure. Raises ServiceDied."""
        fds: list[int] = []
        try:
            received = self._connection.receive()
            if received is None:
                raise self._death()
            packet, fds = received
            return wire.decode(packet), fds
        except wire.ProtocolError as error:
            wire.close_all(fds)
            return wire.Failure("ProtocolError", f"its answer: {error}", ""), []

    def _take(self, message: wire.Message, fds: list[int]) -> None:
        """Do with a message what there is to do, unless it is the reply that is waited for."""
        wire.close_all(fds)
        if isinstance(message, wire.Reply | wire.Failure):
            self._unanswered = max(0, self._unanswered - 1)
        if isinstance(message, wire.Signal) and self._on_signal is not None:
            self._on_signal(message.value)

    def _death(self) -> ServiceDied:
        status = self.process.wait() if _ends(self.process, DYING_S) else None
        self._join()
        return ServiceDied(self.service_id, status, list(self.lines))

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Close the socket and wait for the service to end, kill it if it does not; idempotent.
        Returns its exit status in subprocess's form."""
        self._connection.close()
        has_ended = False
        try:
            has_ended = _ends(self.process, timeout_s)
        finally:
            if not has_ended:
                self.process.kill()
        status = self.process.wait()
        self._join()
        return status

    def _join(self) -> None:
        # A grandchild may hold the pipe open for ever; then its output is not waited for.
        if self._reader is not None:
            self._reader.join(timeout=DYING_S)

    def read_output(self, output: Output | None) -> None:
        """Have a thread read what the service prints; each line is given with its origin."""
        import threading

        pipe = self.process.stdout
        if pipe is None:
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def read() -> None:
            with pipe:
                while piece := pipe.readline(MAX_LINE):
                    whole = piece.endswith(b"\n") or len(piece) < MAX_LINE
                    text = decoder.decode(piece, whole).rstrip("\r\n")
                    self.lines.append(text)
                    if output is not None:
                        output(self.service_id, text)

        self._reader = threading.Thread(target=read, name=self.service_id, daemon=True)
        self._reader.start()


def _is_readable(connection: wire.Connection, deadline: float | None) -> bool:
    """Wait until there is something to receive, at most until the deadline (monotonic)."""
    wait_s = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
    return deadline is None or bool(wire.readable([connection.fileno()], wait_s))


def _ends(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for a process to end; with a limit, Popen.wait only looks now and then."""
    if process.poll() is not None:
        return True
    fd = os.pidfd_open(process.pid)
    try:
        return bool(wire.readable([fd], timeout_s))
    finally:
        os.close(fd)


class ServiceManager:
    """Starts services, and stops them in reverse order at the end of its `with` block.

    output: is given (service id, line) for each line that a service prints, from threads.
    environment: of the services, instead of ours, with upstream's two variables on top.
    """

    def __init__(
        self,
        output: Output | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self.services: dict[str, ServiceClient] = {}
        self._output = output
        self._environment = os.environ if environment is None else environment
        self._stop_timeout_s = stop_timeout_s

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, service_id: str, path: str, *extra: str) -> ServiceClient:
        """Start the executable at `path`, under an id in upstream's form, such as "device/disk",
        that no other has. Raises PikaError if it cannot be started."""
        import subprocess

        if service_id in self.services:
            raise PikaError(f"{service_id}: a service of this id runs already")
        ours, theirs = wire.Connection.pair()
        command = [path, "--service-id", service_id, "--service-fd", str(theirs.fileno()), *extra]
        try:
            process = subprocess.Popen(
                command,
                env={**self._environment, **_python(path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise PikaError(f"{service_id}: cannot start {path}: {_why(path, error)}") from error
        finally:
            theirs.close()
        client = ServiceClient(service_id, process, ours)
        client.read_output(self._output)
        self.services[service_id] = client
        return client

    def stop(self) -> None:
        """Stop all services, the last one started first, even if it cannot be waited for one."""
        if self.services:
            _, client = self.services.popitem()
            try:
                client.stop(self._stop_timeout_s)
            finally:
                self.stop()


def _python(path: str) -> dict[str, str]:
    """A service finds our package; before it, upstream's if its module directory has that."""
    theirs = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    found = f"{theirs}:{_OURS}" if os.path.isfile(f"{theirs}/osbuild/__init__.py") else _OURS
    return {"PYTHONPATH": found, "PYTHONUNBUFFERED": "1"}


def _why(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError) and os.path.exists(path):
        return "the program that its first line names does not exist"
    return getattr(error, "strerror", None) or str(error)


_GONE = (BrokenPipeError, ConnectionResetError)
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
