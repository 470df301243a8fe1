"""Old and new helpers write to the same files at the same time."""

from __future__ import annotations

import functools
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from crash import expect, is_original, oracle, workers
from crash.tally import tally

from osbuild_pika.lifecycle import Journal

SECONDS = 10.0
SECONDS_OF_KILLS = 5.0
NAMES = ("original.0.0", "original.1.0", "ours.2.0", "ours.3.0")


def work_together(directory: Path) -> workers.Report:
    """Two and two workers append for a while, each to its last call."""
    with workers.Fleet(functools.partial(workers.open_writer, directory)) as fleet:
        for name in NAMES:
            fleet.start(name)
        time.sleep(SECONDS)
        fleet.stop()
        return fleet.report()


def kill_originals(directory: Path) -> tuple[workers.Report, int]:
    """The same, while the originals are killed. Returns how many were, too."""
    kills = 0
    with workers.Fleet(functools.partial(workers.open_writer, directory)) as fleet:
        for name in NAMES:
            fleet.start(name)
        deadline = time.monotonic() + SECONDS_OF_KILLS
        while time.monotonic() < deadline:
            time.sleep(random.uniform(0, 0.1))
            originals = [name for name in fleet.names if workers.role(name) == "original"]
            victim = random.choice(originals)
            fleet.kill(victim)
            fleet.next_life(victim)
            kills += 1
        fleet.stop()
        return fleet.report(), kills


def test_old_and_new_append_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = work_together(tmp_path)
    expected = expect(report.marks)
    found = oracle.look(tmp_path)
    faults = oracle.check(found, expected)
    old = sum(is_original(event) for _, event in expected.acked)
    new = len(expected.acked) - old
    with capsys.disabled():
        print(f"\nside by side: {old} events of originals, {new} of ours, {tally(faults)}")
    assert not faults
    assert not report.errors
    seqs = [event["seq"] for event in oracle.read_log(found.log)[0]]
    assert seqs == list(range(1, old + new + 1))
    assert min(old, new) > 0


def test_killed_originals_harm_only_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, kills = kill_originals(tmp_path)
    with Journal(tmp_path) as journal:
        journal.recover()
    found = oracle.look(tmp_path)
    expected = expect(report.marks)
    ours = tuple((seq, event) for seq, event in expected.acked if not is_original(event))
    faults = oracle.check(found, replace(expected, acked=ours))
    # A sequence file that a killed original left empty makes the next one begin again with 1.
    again = [fault for fault in faults if fault.kind == oracle.DUPLICATE]
    harm = [fault for fault in again if "original." in fault.detail]
    with capsys.disabled():
        print(f"\nside by side, {kills} originals killed: not counted: {tally(harm)}")
    assert [fault for fault in faults if fault not in harm] == []
    assert ours
