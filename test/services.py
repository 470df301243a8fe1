"""What the tests of the lifecycle service share: the real executable, its callers, its judge.

The engine of a run is the process that starts the service: the test's own, or one of `engine`,
which can be killed.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import journals
from crash import Expected, oracle

from osbuild_pika import wire
from osbuild_pika.errors import RemoteError
from osbuild_pika.host import ServiceClient, ServiceManager
from osbuild_pika.verify import verify

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "devices/org.osbuild-pika.lifecycle"
SOON_S = 20.0  # for what takes milliseconds on an idle machine
SO_SNDBUFFORCE = 32  # sys/socket.h: beyond wmem_max, for root
STAGE = {"pipeline": "os", "stage": "org.example.demo", "stage_id": "ab" * 32}


class Refused(Exception):
    """A call was answered with an error of this stable name."""

    def __init__(self, name: str, message: str, backtrace: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.backtrace = backtrace


class Client:
    """A stage's connection, which can also misbehave: see `socket` and `send_raw`."""

    def __init__(self, path: Path, timeout_s: float = SOON_S) -> None:
        self.connection = wire.Connection.connect(str(path))
        self.socket = self.connection.socket
        self.socket.settimeout(timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def call(self, method: str, **args: Any) -> Any:
        """Call a method and return its reply. Raises Refused."""
        self.send(method, args)
        return self.answer()

    def send(self, method: str, args: Any) -> None:
        self.send_raw(wire.encode(wire.Method(method, args)))

    def send_raw(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet as it is, never through a memfd."""
        if len(packet) > 64 * 1024:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(packet))
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        self.socket.sendmsg([packet], [rights] if fds else [])

    def answer(self) -> Any:
        """The next answer. Raises Refused, EOFError if the connection has ended."""
        received = self.connection.receive()
        if received is None:
            raise EOFError
        message = wire.decode(received[0])
        if isinstance(message, wire.Failure):
            raise Refused(*message)
        assert isinstance(message, wire.Reply), message
        return message.value

    def error(self, method: str, **args: Any) -> str:
        """The name of the error that a call is refused with, "" if it is not."""
        self.send(method, args)
        return self.error_of_next()

    def raw_error(self, packet: bytes, fds: Sequence[int] = ()) -> str:
        """The same for a packet."""
        self.send_raw(packet, fds)
        return self.error_of_next()

    def error_of_next(self) -> str:
        try:
            self.answer()
        except Refused as refused:
            return refused.name
        return ""


class Lifecycle:
    """A running service, at its manager's end. directory: where devices are opened."""

    def __init__(self, service: ServiceClient, directory: Path, runs: Path) -> None:
        self.service = service
        self.runs = runs
        self.node = Path()  # the last opened device's
        self.run = Path()  # directory of the run that was owned or opened last
        self._directory = directory
        self._opened = 0

    @property
    def pid(self) -> int:
        return self.service.process.pid

    @property
    def lines(self) -> list[str]:
        return list(self.service.lines)

    def call(self, method: str, **args: Any) -> Any:
        """Call as the manager. Raises RemoteError."""
        return self.service.call(method, args, timeout_s=SOON_S)

    def error(self, method: str, **args: Any) -> str:
        """The name of the error that a manager's call is refused with, "" if it is not."""
        try:
            self.call(method, **args)
        except RemoteError as error:
            return error.name
        return ""

    def own(self, run: str = "web", **facts: Any) -> Any:
        reply = self.call("own", run=run, facts=facts)
        self.run = self.runs / reply["run"]
        return reply

    def open(self, options: Any = STAGE, devpath: Path | None = None) -> Any:
        """Open a device in a directory of its own; `connect` reaches it."""
        self._opened += 1
        devpath = devpath or self._directory / f"dev{self._opened}"
        devpath.mkdir(parents=True)
        reply = self.call("open", dev=str(devpath), tree="/", parent=None, options=options)
        if "path" in reply:
            self.node = devpath / reply["path"]
            self.run = self.runs / reply["run"]
        return reply

    def connect(self, node: Path | None = None) -> Client:
        """Connect as a stage: to the device that was opened last, if none is given."""
        return Client(node or self.node)

    def stop(self) -> int:
        """Close the manager's end, as engines do at the end of a build."""
        return self.service.stop()

    def kill(self) -> None:
        self.service.process.kill()
        self.service.process.wait()


@contextlib.contextmanager
def lifecycle(directory: Path, **environment: str) -> Iterator[Lifecycle]:
    """Start the service with its runs in directory/runs, and stop it at the end.

    environment: variables for it. Calls of it in one directory share the runs.
    """
    runs = Path(environment.get("OSBUILD_PIKA_RUNS", directory / "runs"))
    number = len(list(directory.glob("service*")))
    devices = directory / f"service{number}"
    devices.mkdir()
    clean = {name: text for name, text in os.environ.items() if not name.startswith("OSBUILD_PIKA")}
    with ServiceManager(
        environment={**clean, "OSBUILD_PIKA_RUNS": str(runs), **environment}
    ) as manager:
        yield Lifecycle(manager.start(f"device/lifecycle{number}", str(SERVICE)), devices, runs)


# --- engines that can be killed ------------------------------------------------------------------

_ENGINE = """
import os, sys
from pathlib import Path
from services import lifecycle
with lifecycle(Path(sys.argv[1])) as service:
{script}
    print(service.pid, service.node, service.run, flush=True)
    sys.stdin.read()
"""


class Engine:
    """A process that started a service and did what its script says; then it waits."""

    def __init__(self, directory: Path, script: str) -> None:
        text = _ENGINE.format(script=textwrap.indent(textwrap.dedent(script), "    "))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/test"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, str(directory)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._service = -1
        self.node = self.run = Path()

    def wait_until_ready(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        assert line, "the engine's script failed"
        pid, node, run = line.split()
        self.node, self.run = Path(node), Path(run)
        self._service = os.pidfd_open(int(pid))

    def kill_service(self) -> None:
        signal.pidfd_send_signal(self._service, signal.SIGKILL)
        self._wait_for_service()

    def end(self, number: int) -> None:
        """End the engine by a signal, and wait until its service has ended, too."""
        self.process.send_signal(number)
        self.wait()

    def finish(self) -> None:
        """Let the engine leave its block and end, and wait until its service has ended, too."""
        assert self.process.stdin
        self.process.stdin.close()
        self.wait()

    def wait(self) -> None:
        self.process.wait(SOON_S)
        self._wait_for_service()

    def _wait_for_service(self) -> None:
        poll = select.poll()
        poll.register(self._service, select.POLLIN)
        assert poll.poll(SOON_S * 1000), "the service did not end"

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.kill()
        self.process.wait()
        if self._service >= 0:
            os.close(self._service)


@contextlib.contextmanager
def engine(directory: Path, script: str) -> Iterator[Engine]:
    """Start an engine. script: statements that may use `service`, a Lifecycle."""
    started = Engine(directory, script)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.close()


# --- the judge -----------------------------------------------------------------------------------


def whole(run: Path) -> list[dict[str, Any]]:
    """The events of a run, all artifacts of which must be whole and agree."""
    assert [str(fault) for fault in verify(run).faults] == []
    found = oracle.look(run)
    events, faults = oracle.read_log(found.log)
    assert faults + oracle.check_end(found, Expected()) == []
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert all(event["details"]["run_id"] == run.name for event in events)
    assert not list(run.glob("*.tmp")) + list(run.glob("*.torn"))
    return events


def names(run: Path) -> list[str]:
    """What happened in a whole run: the details.event of its events, "" for one without."""
    return [event["details"].get("event", "") for event in whole(run)]


def verdict(run: Path) -> tuple[str, int, str]:
    """Status, exit code and event of a whole run's end; its three artifacts say the same."""
    last = whole(run)[-1]
    result, status = journals.document(run, "result"), journals.document(run, "status")
    assert (last["kind"], last["message"]) == (result["status"], result["message"])
    assert (status["state"], status["message"]) == (result["status"], result["message"])
    return result["status"], result["exit_code"], result["details"]["event"]


def facts(run: Path) -> dict[str, Any]:
    """What run.json holds."""
    value = json.loads((run / "run.json").read_bytes())
    assert isinstance(value, dict)
    return value
