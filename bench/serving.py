"""The lifecycle service as one of the compared: what starts it, its clients, and what it costs."""

import hashlib
import importlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.calls import ENVIRONMENT, make_calls, time_one
from bench.writers import DETAILS, MESSAGE, Append, BenchError, check_log
from osbuild_pika import wire
from osbuild_pika.host import ServiceClient
from osbuild_pika.lifecycle_service.opening import QUOTA

ROOT = Path(__file__).resolve().parents[1]
SERVICE = ROOT / "devices/org.osbuild-pika.lifecycle"
INTERPRETER = SERVICE.read_text().split("\n", 1)[0].removeprefix("#!").split()
RUN = "bench"
MOST_LOG = 15 * QUOTA  # what a log takes of stages
CALL_LIMIT_S = 60.0
SINGLE = ("rpc", "cli", "python", "first reply", "own")
SINGLE_CALLS = 20
BLOCK = 64 * 1024  # bytes that a stage works on between two calls of progress()
LOOP = 100_000  # calls of progress() without anything between them


def start_service(directory: Path) -> ServiceClient:
    """Start the service, for runs below `directory`."""
    ours, theirs = wire.Connection.pair()
    number = str(theirs.fileno())
    process = subprocess.Popen(
        [str(SERVICE), "--service-id", "device/lifecycle", "--service-fd", number],
        env={
            **ENVIRONMENT,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OSBUILD_PIKA_RUNS": str(directory / "runs"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is ours, it ends when we do
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return ServiceClient("device/lifecycle", process, ours)


class Served:
    """A service with an owner and open devices, within its `with` block.

    A stage may write so much and no more; so each client has several stages, which it fills one
    after the other.
    """

    def __init__(self, directory: Path, clients: int) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._service = start_service(directory)
        self.sockets: list[list[str]] = []  # of each client
        self.events = 0  # that the clients have counted
        try:
            self._service.call("own", {"run": RUN}, CALL_LIMIT_S)
            for number in range(clients):
                stages = range(MOST_LOG // QUOTA // clients + 2)
                self.sockets.append([self._open(f"{number}.{stage}") for stage in stages])
        except BaseException:
            self._service.stop()
            raise

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self._service.stop()

    def _open(self, name: str) -> str:
        place = self._directory / name
        place.mkdir()
        options = {"pipeline": "os", "stage": "org.osbuild.hostname", "stage_id": name}
        call = {"dev": str(place), "tree": "/", "parent": None, "options": options}
        reply = self._service.call("open", call, CALL_LIMIT_S)
        return str(place / reply["path"])

    def open(self, directory: Path, number: int) -> Append:
        """One client, in its own process: see writers.Side."""
        client = Client(iter(self.sockets[number]))
        return client.append

    def check(self, directory: Path, total: int) -> None:
        """See writers.Side. The owner's own word, that the run is accepted, comes before all."""
        check_log(directory / "runs" / RUN, total + 1)
        self.events = total

    def cpu_s(self) -> float:
        """CPU time that the service has used."""
        place = f"/proc/{self._service.process.pid}/schedstat"
        return int(Path(place).read_text().split()[0]) / 1e9


class Client:
    """A stage that waits for the answer of each call."""

    def __init__(self, sockets: Iterator[str]) -> None:
        self._sockets = sockets
        self._connection = wire.Connection.connect(next(sockets))

    def append(self) -> None:
        call = wire.Method("event", {"message": MESSAGE, "details": DETAILS})
        answer = self._call(call)
        if isinstance(answer, wire.Failure) and answer.name == "Limit":
            self._connection.close()
            self._connection = wire.Connection.connect(next(self._sockets))
            answer = self._call(call)
        if not isinstance(answer, wire.Reply):
            raise BenchError(f"service: {answer}")

    def _call(self, call: wire.Method) -> Any:
        self._connection.send(wire.encode(call))
        received = self._connection.receive()
        if received is None:
            raise BenchError("service: it has ended")
        return wire.decode(received[0])


def time_start(directory: Path) -> dict[str, float]:
    """Seconds from nothing to the service's first reply, and to that of `own`.

    Beside it: its interpreter alone, from its start to its end.
    """
    begin = time.perf_counter()
    service = start_service(directory)
    try:
        service.call("close", {}, CALL_LIMIT_S)
        first = time.perf_counter()
        service.call("own", {"run": RUN}, CALL_LIMIT_S)
        owned = time.perf_counter()
    finally:
        service.stop()
    before = time.perf_counter()
    bare = [*INTERPRETER, "-c", "pass"]
    subprocess.run(bare, env=ENVIRONMENT, start_new_session=True, check=True)
    spent = time.perf_counter() - before
    return {"python": spent, "first reply": first - begin, "own": owned - begin}


def time_single(directory: Path) -> dict[str, float]:
    """Milliseconds of what SINGLE names; each call of the command line is its fastest form."""
    times = time_start(directory)
    cli = next(call for call in make_calls(directory, None) if call.name == "original -I -S")
    time_one(cli)
    times["cli"] = time_one(cli) / 1000
    with Served(directory / "served", 1) as served:
        client = Client(iter(served.sockets[0]))
        client.append()
        spent = []
        for _ in range(SINGLE_CALLS):
            before = time.perf_counter()
            client.append()
            spent.append(time.perf_counter() - before)
        served.check(directory / "served", 1 + SINGLE_CALLS)
    times["rpc"] = statistics.median(spent)
    return {name: times[name] * 1000 for name in SINGLE}


def time_progress(directory: Path, rounds: int, seconds: float) -> dict[str, float]:
    """The CPU time that a stage spends on progress(): medians.

    call_ns: of one call in a loop of nothing else, with the little that is sent from it.
    send_us: of one call that is sent, as ten a second are.
    work_us, share: a loop that hashes a block between two calls, and how much of its CPU time the
    calls and the sends took.
    """
    reporter = importlib.import_module("osbuild_pika.inside.reporter")
    found: list[dict[str, float]] = []
    with (
        Served(directory, 1) as served,
        reporter.Reporter({"path": served.sockets[0][0]}) as report,
    ):
        for _ in range(rounds):
            empty_ns = _cpu_ns(lambda done: None)
            call_ns = _cpu_ns(lambda done: report.progress(done, LOOP + 1)) - empty_ns
            found.append(_time_work(report, call_ns, seconds))
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def _cpu_ns(call: Any) -> float:
    before = time.process_time_ns()
    for done in range(LOOP):
        call(done)
    return (time.process_time_ns() - before) / LOOP


def _time_work(report: Any, call_ns: float, seconds: float) -> dict[str, float]:
    before = time.process_time_ns()
    for _ in range(SINGLE_CALLS):
        report.event(MESSAGE, DETAILS)
    send_ns = (time.process_time_ns() - before) / SINGLE_CALLS
    block = bytes(BLOCK)
    blocks = sends = 0
    before = time.process_time_ns()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.sha256(block).digest()
        sends += report.progress(blocks, None, "blocks") is not None
        blocks += 1
    spent_ns = time.process_time_ns() - before
    told_ns = blocks * call_ns + sends * send_ns
    work_us = (spent_ns - told_ns) / blocks / 1000
    return {
        "call_ns": call_ns,
        "send_us": send_ns / 1000,
        "work_us": work_us,
        "share": told_ns / spent_ns,
    }
