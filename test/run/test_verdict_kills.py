"""Whoever is killed, whenever: the run's end is told truly, within two seconds.

Where other work slows the machine down, starting a service alone takes longer: see kills.py. The
verdicts are those of docs/reference/lifecycle-service.md. Each kill is of an engine that is a
process of its own, with a stage in a real sandbox, or of that stage.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kills
import pytest
import sandboxes
from kills import CELLS, Outcome
from small_engine import RUN, Plan

QUICK = 7  # kills of a cell
SLOW = int(os.environ.get("OSBUILD_PIKA_KILLS", "200"))
AT_ONCE = 3  # most of a kill is waiting
SEED = os.environ.get("OSBUILD_PIKA_SEED", "1")

pytestmark = pytest.mark.skipif(not sandboxes.can_run(), reason="needs bubblewrap, and root")


def play(directory: Path, each: int) -> dict[tuple[str, str], list[Outcome]]:
    """Kill so many times in each cell."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {
            (cell, number): pool.submit(
                kills.one,
                directory / f"{' '.join(cell)} {number}",
                *cell,
                f"{SEED} {cell} {number}",
            )
            for number in range(each)
            for cell in CELLS
        }
        found: dict[tuple[str, str], list[Outcome]] = {cell: [] for cell in CELLS}
        for (cell, _), outcome in waiting.items():
            found[cell].append(outcome.result())
    return found


def describe(found: dict[tuple[str, str], list[Outcome]]) -> str:
    lines = []
    for (kill, stage), outcomes in found.items():
        right = sum(outcome.is_right for outcome in outcomes)
        slowest = max(outcome.seconds for outcome in outcomes)
        counts = Counter(outcome.seen for outcome in outcomes)
        verdicts = ", ".join(f"{count} {seen}" for seen, count in counts.most_common())
        owned = sum(outcome.plan.has_owner for outcome in outcomes)
        head = f"{kill}, stage {stage}: {right} of {len(outcomes)} right ({owned} with an owner)"
        lines.append(f"{head}, {slowest:.2f} s at most: {verdicts}")
    return "\n".join(lines)


def check(found: dict[tuple[str, str], list[Outcome]]) -> None:
    print(f"\n{describe(found)}")
    wrong = [each for outcomes in found.values() for each in outcomes if not each.is_right]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_verdict_is_right_whoever_is_killed(tmp_path: Path) -> None:
    check(play(tmp_path, QUICK))


@pytest.mark.slow
def test_the_verdict_is_right_in_all_of_many_kills(tmp_path: Path) -> None:
    check(play(tmp_path, SLOW))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("has_owner", "is_final"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("stage", ["talks", "talks.sh"])
def test_an_engine_that_handles_a_signal_is_interrupted(
    tmp_path: Path, number: signal.Signals, has_owner: bool, is_final: bool, stage: str
) -> None:
    plan = Plan(stage, has_owner, is_final, handles=True)
    with kills.running(tmp_path / "build", plan) as engine:
        kills.await_mark(tmp_path / "build", "spoken", engine)
        engine.send_signal(number)
        kills.await_end(tmp_path / "build", engine)
    # Upstream says nothing of the signal: all that the service sees is a stage that still lives.
    code = 128 + number if has_owner else 130
    how = f"failed {code}" if has_owner or is_final else f"open {code}"
    assert kills.seen(tmp_path / "build/runs" / RUN) == f"{how} interrupted"
