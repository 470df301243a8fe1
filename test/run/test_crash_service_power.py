"""Layer L4 of the crash tests, for the lifecycle service: the power goes while eight clients and
the owner have it write, and nothing that it acknowledged goes with it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crash import oracle, powercut
from crash.tally import tally

ROUNDS = {"ext4": 20, "xfs": 8}
SLOW_ROUNDS = int(os.environ.get("OSBUILD_PIKA_POWER_LOSSES", "1000"))
TRIES = 5  # power losses in which a service that errs must be caught
file_systems = pytest.mark.parametrize("file_system", ["ext4", "xfs"])


def need(directory: Path, file_system: str) -> None:
    reason = powercut.why_not(directory, file_system)
    if reason:
        pytest.skip(reason)


def lose(
    directory: Path, file_system: str, rounds: int, *names: str
) -> tuple[list[oracle.Fault], str]:
    """Lose power some times. Returns what is wrong, and a line that tells of it."""
    need(directory, file_system)
    losses = powercut.losses(directory, file_system, rounds, *names, module="service_cuts")
    faults = [fault for loss in losses for fault in loss.faults]
    acked = sum(loss.acked for loss in losses)
    in_flight = sum(loss.in_flight for loss in losses)
    torn = sum(loss.is_torn for loss in losses)
    who = names[0] if names else "service"
    text = f"L4 {who}, power losses, {file_system}: {len(losses)} rounds, {acked} acknowledged"
    return faults, f"{text} calls, {in_flight} in flight, {torn} torn tails, {tally(faults)}"


@file_systems
def test_a_power_loss_takes_nothing_that_a_service_acknowledged(
    file_system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, text = lose(tmp_path, file_system, ROUNDS[file_system])
    with capsys.disabled():
        print(f"\n{text}")
    assert not faults
    assert powercut.is_freed(tmp_path)


@pytest.mark.slow
@file_systems
def test_a_thousand_power_losses_take_nothing_that_a_service_acknowledged(
    file_system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, text = lose(tmp_path, file_system, SLOW_ROUNDS)
    with capsys.disabled():
        print(f"\n{text}")
    assert not faults
    assert powercut.is_freed(tmp_path)


@pytest.mark.parametrize("variant", ["hasty", "careless"])
def test_a_service_that_acknowledges_before_it_syncs_is_seen(
    variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A harness that finds no fault in it is blind."""
    faults, text = lose(tmp_path, "ext4", TRIES, variant)
    with capsys.disabled():
        print(f"\n{text}")
    assert oracle.LOST in {fault.kind for fault in faults}
