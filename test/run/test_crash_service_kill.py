"""Layer L3 of the crash tests, for the lifecycle service: it is killed at work again and again.

Eight clients of it and two writers that follow the original's steps append to the same run. After
each kill the engine starts a new service, owns the run, and opens the devices again.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest
from crash import Acked, Asked, Finish, Mark, Result, aftermath, oracle, talks, workers
from crash.original import Original
from crash.serving import NODE, SERVICE, Client, Owner, Service, variant
from crash.tally import tally
from crash.workers import OWNERS, RUN, Gone

SECONDS = 10.0
SLOW_HUNTS = int(os.environ.get("OSBUILD_PIKA_HUNTS", "60"))  # of 10 s
LEAST_KILLS = 50
LIFE_S = 0.3  # at most, from a service's start to its death
CLIENTS = [f"client.{number}.0" for number in range(8)]
ORIGINALS = [f"original.{number}.0" for number in (8, 9)]
TORN = variant("torn")  # dies by itself, in the middle of a write,
TORN_EVERY = 6  # lives
TORN_S = 3.0  # in which it does
END = Finish(Result("completed", 0, "the end", {**OWNERS, "event": "build.completed"}))


@contextlib.contextmanager
def killing(service: Service, seconds: float) -> Iterator[None]:
    """Kill it after so long, whatever the block is doing then."""
    signal.signal(signal.SIGALRM, lambda *_: service.process.kill())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
        service.process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        service.kill()


@dataclass(frozen=True)
class Engine:
    """Starts services for one run, one after another. directory: `runs` and devices are in it."""

    directory: Path

    def begin(self) -> list[Mark]:
        """A first service brings the run to where all writers say `ready`, and is killed."""
        service = Service(self.directory / "runs")
        try:
            return talks.begin(service)
        finally:
            service.kill()

    def live(self, fleet: workers.Fleet, life: int) -> int:
        """One service, until it is killed. Returns how many statuses and events it took."""
        is_torn = life % TORN_EVERY == 0
        service = Service(self.directory / "runs", TORN if is_torn else SERVICE)
        seconds = TORN_S if is_torn else random.uniform(0.0, LIFE_S)
        calls = 0
        with killing(service, seconds), contextlib.suppress(Gone):
            service.own()
            for name in CLIENTS:
                service.open(device(self.directory, name))
            owner = Owner(service.connection)
            while workers.attempt(owner, f"owner.10.{life}", calls, fleet.tell):
                calls += 1
                time.sleep(random.uniform(0, workers.PAUSE_S))
        return calls

    def end(self) -> list[Mark]:
        """A last service, in peace."""
        with Service(self.directory / "runs") as service:
            service.own()
            return [Asked(END), Acked(END, workers.do(Owner(service.connection), END))]


def device(directory: Path, name: str) -> Path:
    return directory / "devices" / name.split(".")[1]


@dataclass(frozen=True)
class Hunt:
    """What killing services for a while did. torn: pieces of lines that were set aside."""

    faults: tuple[oracle.Fault, ...]
    kills: int
    acked: int
    cut: int
    torn: int


def hunt(directory: Path, seconds: float) -> Hunt:
    """One hunt in a fresh directory."""
    directory.mkdir(exist_ok=True)
    engine = Engine(directory)
    marks = engine.begin()
    run = directory / "runs" / RUN

    def open_writer(name: str) -> workers.Writer:
        if workers.role(name) == "original":
            return Original(run)
        return Client(device(directory, name) / NODE)

    kills = 0
    deadline = time.monotonic() + seconds
    with workers.Fleet(open_writer) as fleet:
        for name in (*CLIENTS, *ORIGINALS):
            fleet.start(name)
        while time.monotonic() < deadline or kills < LEAST_KILLS:
            engine.live(fleet, kills)
            kills += 1
        report = stop(fleet, engine)
    marks += [*report.marks, *engine.end()]
    faults = [oracle.Fault(oracle.REFUSED, error) for error in report.errors]
    faults += aftermath.check_run(run, marks)
    torn = (run / "events.jsonl.torn").read_bytes().count(b"\n")
    cut = len(report.asked) - len(report.acked)
    return Hunt(tuple(faults), kills, len(report.acked), cut, torn)


def stop(fleet: workers.Fleet, engine: Engine) -> workers.Report:
    """Let all workers end their calls, which takes a service."""
    with Service(engine.directory / "runs") as service:
        service.own()
        for name in CLIENTS:
            service.open(device(engine.directory, name))
        fleet.stop()
        service.kill()
    return fleet.report()


def describe(hunts: Sequence[Hunt]) -> str:
    names = ("kills", "acked", "cut", "torn")
    kills, acked, cut, torn = (sum(map(attrgetter(name), hunts)) for name in names)
    faults = [fault for hunt in hunts for fault in hunt.faults]
    return (
        f"L3 service, kills: {kills} kills, {acked} acknowledged calls, {cut} cut off, "
        f"{tally(faults)}; not counted: {torn} torn lines"
    )


def test_nothing_is_lost_while_services_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = hunt(tmp_path, SECONDS)
    with capsys.disabled():
        print(f"\n{describe([done])}")
    assert not done.faults
    assert done.kills >= LEAST_KILLS
    assert done.torn


@pytest.mark.slow
def test_nothing_is_lost_while_services_are_killed_for_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hunts = [hunt(tmp_path / str(number), SECONDS) for number in range(SLOW_HUNTS)]
    with capsys.disabled():
        print(f"\n{describe(hunts)}")
    assert not [fault for done in hunts for fault in done.faults]
