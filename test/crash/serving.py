"""The real lifecycle service in crash tests: its processes, and writers that call it.

The engine of every run here is the process that starts the services. Nothing here runs a thread:
the workers of workers.py fork.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crash.workers import RUN, STAGE, Gone
from osbuild_pika import wire
from osbuild_pika.lifecycle import LifecycleError

ROOT = Path(__file__).parents[2]
SERVICE = (str(ROOT / "devices/org.osbuild-pika.lifecycle"),)
NODE = "osbuild-pika-lifecycle"
TIMEOUT_S = 30.0  # of one call
RETRY_S = 0.005  # between two tries to reach a service that starts again


def variant(name: str) -> tuple[str, ...]:
    """The service with a fault of variants.py."""
    return (sys.executable, str(ROOT / "test/crash/variants.py"), name)


# --- calls ----------------------------------------------------------------------------------------


def send(connection: wire.Connection, method: str, args: Any) -> None:
    try:
        connection.send(wire.encode(wire.Method(method, args)))
    except ConnectionError as error:
        raise Gone from error


def answer(connection: wire.Connection) -> Any:
    """The next answer. Raises LifecycleError if the call is refused, Gone."""
    try:
        received = connection.receive()
    except ConnectionError as error:
        raise Gone from error
    if received is None:
        raise Gone
    message = wire.decode(received[0])
    if isinstance(message, wire.Failure):
        raise LifecycleError(message.name, message.value)
    assert isinstance(message, wire.Reply), message
    return message.value


def call(connection: wire.Connection, method: str, args: Any) -> Any:
    send(connection, method, args)
    return answer(connection)


def connect(node: Path) -> wire.Connection:
    connection = wire.Connection.connect(str(node))
    connection.socket.settimeout(TIMEOUT_S)
    return connection


# --- processes ------------------------------------------------------------------------------------

Wrap = Callable[[list[str]], list[str]]


class Service:
    """A running service, at its manager's end. output: what it prints goes to this file.

    Leave its `with` block to close the manager's end and wait, as at the end of a build.
    """

    def __init__(
        self,
        runs: Path,
        program: Sequence[str] = SERVICE,
        *,
        wrap: Wrap = list,
        output: Path = Path(os.devnull),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.connection, theirs = wire.Connection.pair()
        self.connection.socket.settimeout(TIMEOUT_S)
        fd = theirs.fileno()
        command = [*program, "--service-id", "device/lifecycle", "--service-fd", str(fd)]
        clean = {"PATH": os.environ["PATH"], "OSBUILD_PIKA_RUNS": str(runs)}
        with contextlib.closing(theirs), output.open("ab") as file:
            self.process = subprocess.Popen(
                wrap(command),
                env={**clean, "PYTHONPATH": f"{ROOT}:{ROOT}/test", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=[fd],
            )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, method: str, **args: Any) -> Any:
        """Call as the manager. Raises LifecycleError, Gone."""
        return call(self.connection, method, args)

    def own(self) -> Any:
        return self.call("own", run=RUN)

    def open(self, devpath: Path, **options: Any) -> Path:
        """Open a stage's device in a directory. Returns its socket."""
        devpath.mkdir(parents=True, exist_ok=True)
        named = {**STAGE, **options}
        args = {"dev": str(devpath), "tree": "/", "parent": None, "options": named}
        return devpath / str(self.call("open", **args)["path"])

    def stop(self) -> int:
        """Close the manager's end, and wait until the service has ended. Returns its status."""
        self.connection.close()
        try:
            return self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


# --- writers for workers.py -----------------------------------------------------------------------


class Owner:
    """Writes as the owner of a run, over its manager's connection."""

    def __init__(self, connection: wire.Connection) -> None:
        self._connection = connection

    def append(self, kind: str, message: str, details: Any) -> int:
        args = {"kind": kind, "message": message, "details": details}
        return int(call(self._connection, "event", args)["seq"])

    def write_status(self, state: str, message: str, details: Any) -> None:
        args = {"state": state, "message": message, "details": details}
        call(self._connection, "status", args)

    def finish(self, status: str, exit_code: int, message: str, details: Any) -> int:
        args = {"status": status, "exit_code": exit_code, "message": message, "details": details}
        call(self._connection, "result", args)
        return int(call(self._connection, "flush", {})["durable_seq"])


class Client:
    """Writes as a stage, whose events have the kind that the run is in.

    When the service is gone it says so, once for each call, and waits for the next service.
    """

    def __init__(self, node: Path) -> None:
        self._node = node
        self._connection: wire.Connection | None = None

    def append(self, _kind: str, message: str, details: Any) -> int:
        return int(self._call("event", {"message": message, "details": details})["seq"])

    def append_many(self, events: Sequence[tuple[str, str, Any]]) -> tuple[int, int]:
        items = [{"message": message, "details": details} for _, message, details in events]
        span = self._call("events", {"items": items})
        return span["first"], span["last"]

    def _call(self, method: str, args: Any) -> Any:
        connection = self._connection or self._reach()
        self._connection = None
        try:
            value = call(connection, method, args)
        except BaseException as error:
            connection.close()
            if isinstance(error, LifecycleError) and error.name == "AlreadyFinished":
                raise Gone from error
            raise
        self._connection = connection
        return value

    def _reach(self) -> wire.Connection:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return connect(self._node)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)


@contextlib.contextmanager
def closing(connections: Sequence[wire.Connection]) -> Iterator[None]:
    try:
        yield
    finally:
        for connection in connections:
            connection.close()
