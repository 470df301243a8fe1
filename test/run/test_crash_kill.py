"""Layer L3 of the crash tests: writers are killed at work, others go on, and nothing is lost.

Eight writers of ours, some of which die in the middle of a write, and two that follow the
original's steps, which are never killed, append to the same files.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest
from crash import expect, oracle, workers
from crash.tally import tally

from osbuild_pika.lifecycle import Journal

SECONDS = 10.0
SLOW_HUNTS = int(os.environ.get("OSBUILD_PIKA_HUNTS", "60"))  # of 10 s
LEAST_KILLS = 50
# Eight of ours; those that are "torn" die by themselves, in the middle of a write.
ROLES = (*["ours"] * 5, *["torn"] * 2, "status", *["original"] * 2)


def kill_and_restart(fleet: workers.Fleet, seconds: float) -> int:
    """Keep killing writers of ours, and starting new ones. Returns how many were killed."""
    kills = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(random.uniform(0, 0.06))
        victim = random.choice([name for name in fleet.names if workers.role(name) != "original"])
        fleet.kill(victim)
        victims = [victim, *fleet.dead()]
        for name in victims:
            fleet.next_life(name)
        kills += len(victims)
    return kills


@dataclass(frozen=True)
class Hunt:
    """What killing writers for a while did.

    torn: pieces of lines that were set aside. glued: times that the log was found corrupt, because
    an original had appended behind such a piece.
    """

    faults: tuple[oracle.Fault, ...]
    kills: int
    acked: int
    torn: int
    glued: int


def hunt(directory: Path, seconds: float) -> Hunt:
    """One hunt in a fresh directory."""
    directory.mkdir(exist_ok=True)
    with workers.Fleet(functools.partial(workers.open_writer, directory)) as fleet:
        for number, role in enumerate(ROLES):
            fleet.start(f"{role}.{number}.0")
        kills = kill_and_restart(fleet, seconds)
        fleet.stop()
        report = fleet.report()
    with Journal(directory) as journal:
        journal.recover()
    faults = [oracle.Fault(oracle.REFUSED, error) for error in report.errors]
    faults += oracle.check(oracle.look(directory), expect(report.marks))
    torn = (directory / "events.jsonl.torn").read_bytes().count(b"\n")
    return Hunt(tuple(faults), kills, len(report.acked), torn, report.repairs)


def describe(hunts: Sequence[Hunt]) -> str:
    names = ("kills", "acked", "torn", "glued")
    kills, acked, torn, glued = (sum(map(attrgetter(name), hunts)) for name in names)
    faults = [fault for hunt in hunts for fault in hunt.faults]
    return (
        f"L3 kills: {kills} kills, {acked} acknowledged calls, {tally(faults)}; not counted: "
        f"{torn} torn lines, {glued} logs corrupt by what originals glued to one"
    )


def test_nothing_is_lost_while_writers_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = hunt(tmp_path, SECONDS)
    with capsys.disabled():
        print(f"\n{describe([done])}")
    assert not done.faults
    assert done.kills >= LEAST_KILLS
    assert done.torn


@pytest.mark.slow
def test_nothing_is_lost_while_writers_are_killed_for_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hunts = [hunt(tmp_path / str(number), SECONDS) for number in range(SLOW_HUNTS)]
    with capsys.disabled():
        print(f"\n{describe(hunts)}")
    assert not [fault for done in hunts for fault in done.faults]
