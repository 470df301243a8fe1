"""Layer L4 of the crash tests: the power goes while writers write, or while eight clients and the
owner have a lifecycle service write, and nothing acknowledged goes with it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash import oracle, powercut
from crash.tally import tally

MODULES = {"writers": "powercut", "service": "service_cuts"}  # that bring what writes
ROUNDS = {"ext4": 20, "xfs": 8}
SLOW_ROUNDS = int(os.environ.get("OSBUILD_PIKA_POWER_LOSSES", "1000"))
BLIND_ROUNDS = 5  # power losses in which one that errs must be caught

file_systems = pytest.mark.parametrize("file_system", ["ext4", "xfs"])
all_that_write = pytest.mark.parametrize("who", MODULES)
Lose = Callable[..., list[oracle.Fault]]


def need(directory: Path, file_system: str) -> None:
    reason = powercut.why_not(directory, file_system)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def lose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lose:
    """Loses power some times, and tells of it. Returns what is wrong."""

    def many(who: str, file_system: str, rounds: int, *names: str) -> list[oracle.Fault]:
        need(tmp_path, file_system)
        losses = powercut.losses(tmp_path, file_system, rounds, *names, module=MODULES[who])
        faults = [fault for loss in losses for fault in loss.faults]
        acked = sum(loss.acked for loss in losses)
        in_flight = sum(loss.in_flight for loss in losses)
        torn = sum(loss.is_torn for loss in losses)
        with capsys.disabled():
            print(
                f"\nL4 power losses, {' '.join((who, *names))}, {file_system}: {len(losses)} "
                f"rounds, {acked} acknowledged calls, {in_flight} in flight, {torn} torn tails, "
                f"{tally(faults)}"
            )
        return faults

    return many


@file_systems
@all_that_write
def test_a_power_loss_takes_nothing_acknowledged(
    who: str, file_system: str, lose: Lose, tmp_path: Path
) -> None:
    assert not lose(who, file_system, ROUNDS[file_system])
    assert powercut.is_freed(tmp_path)


@pytest.mark.slow
@file_systems
@all_that_write
def test_a_thousand_power_losses_take_nothing_acknowledged(
    who: str, file_system: str, lose: Lose, tmp_path: Path
) -> None:
    assert not lose(who, file_system, SLOW_ROUNDS)
    assert powercut.is_freed(tmp_path)


@pytest.mark.parametrize(
    ("who", "file_system", "name"),
    [
        ("writers", "ext4", "careless.0.0"),
        ("writers", "xfs", "careless.0.0"),
        ("service", "ext4", "hasty"),
        ("service", "ext4", "careless"),
    ],
)
def test_one_that_acknowledges_before_it_syncs_is_seen(
    who: str, file_system: str, name: str, lose: Lose
) -> None:
    """A harness that finds no fault in it is blind."""
    faults = lose(who, file_system, BLIND_ROUNDS, name)
    assert oracle.LOST in {fault.kind for fault in faults}


def test_an_interrupted_round_leaves_no_mount(tmp_path: Path) -> None:
    need(tmp_path, "ext4")
    with subprocess.Popen(powercut.command(tmp_path, "ext4", 1000)) as rounds:
        while not powercut.attached(tmp_path):
            time.sleep(0.01)
            assert rounds.poll() is None
        rounds.kill()
    assert powercut.is_freed(tmp_path)
