"""Layer L4 of the crash tests: the power goes while writers write, and nothing acknowledged goes
with it.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from crash import oracle, powercut
from crash.tally import tally

ROUNDS = 20
SLOW_ROUNDS = int(os.environ.get("OSBUILD_PIKA_POWER_LOSSES", "1000"))
file_systems = pytest.mark.parametrize("file_system", ["ext4", "xfs"])


def need(directory: Path, file_system: str) -> None:
    reason = powercut.why_not(directory, file_system)
    if reason:
        pytest.skip(reason)


def lose(directory: Path, file_system: str, rounds: int) -> tuple[list[oracle.Fault], str]:
    """Lose power some times. Returns what is wrong, and a line that tells of it."""
    need(directory, file_system)
    losses = powercut.losses(directory, file_system, rounds)
    faults = [fault for loss in losses for fault in loss.faults]
    acked = sum(loss.acked for loss in losses)
    in_flight = sum(loss.in_flight for loss in losses)
    torn = sum(loss.is_torn for loss in losses)
    text = f"L4 power losses, {file_system}: {len(losses)} rounds, {acked} acknowledged calls"
    return faults, f"{text}, {in_flight} in flight, {torn} torn tails, {tally(faults)}"


@file_systems
def test_a_power_loss_takes_nothing_acknowledged(
    file_system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, text = lose(tmp_path, file_system, ROUNDS)
    with capsys.disabled():
        print(f"\n{text}")
    assert not faults
    assert powercut.is_freed(tmp_path)


@pytest.mark.slow
@file_systems
def test_a_thousand_power_losses_take_nothing_acknowledged(
    file_system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, text = lose(tmp_path, file_system, SLOW_ROUNDS)
    with capsys.disabled():
        print(f"\n{text}")
    assert not faults
    assert powercut.is_freed(tmp_path)


@file_systems
def test_a_writer_that_does_not_sync_is_seen(file_system: str, tmp_path: Path) -> None:
    """A harness that finds no fault in it is blind."""
    need(tmp_path, file_system)
    losses = powercut.losses(tmp_path, file_system, 5, "careless.0.0")
    assert oracle.LOST in {fault.kind for loss in losses for fault in loss.faults}


def test_an_interrupted_round_leaves_no_mount(tmp_path: Path) -> None:
    need(tmp_path, "ext4")
    with subprocess.Popen(powercut.command(tmp_path, "ext4", 1000)) as rounds:
        while not powercut.attached(tmp_path):
            time.sleep(0.01)
            assert rounds.poll() is None
        rounds.kill()
    assert powercut.is_freed(tmp_path)
