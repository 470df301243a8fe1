"""What may happen to a run after its lifecycle service was killed, and what it must be then.

Each function goes on in a runs' root, and returns what is wrong afterwards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crash import Acked, Asked, Crashed, Event, Expected, Finish, Mark, Result, expect, oracle
from crash.serving import Owner, Service
from crash.workers import OWNERS, RUN, Gone, do
from osbuild_pika import runs
from osbuild_pika.lifecycle import LifecycleError

NEXT = Event("ready", "after the crash", OWNERS)
LEFT = Finish(
    Result(
        "failed",
        137,
        "the engine left without saying how the build ended",
        {**OWNERS, "event": "engine.lost", "source": "service"},
    )
)
SEALED = Finish(Result("failed", 137, runs.LOST, {**OWNERS, "event": "engine.lost"}))


def go_on(root: Path, marks: Sequence[Mark]) -> list[oracle.Fault]:
    """All ways to go on, each in a copy of its own beside the root."""
    marks = [*marks, Crashed()]
    faults = check_now(root / RUN, expect(marks))
    for way in (again, seal):
        copy = root.with_name(f"{root.name}.{way.__name__}")
        if root.exists():
            shutil.copytree(root, copy)
        try:
            faults += way(copy, marks)
        except (LifecycleError, OSError, Gone) as error:
            faults.append(oracle.Fault(oracle.REFUSED, f"{way.__name__}: {error!r}"))
    return faults


def check_now(run: Path, expected: Expected) -> list[oracle.Fault]:
    """Documents are whole at any moment; of the log only the last line may be torn."""
    found = oracle.look(run)
    whole = found.log and found.log[: found.log.rfind(b"\n") + 1]
    return oracle.check(replace(found, log=whole), expected)


def again(root: Path, marks: Sequence[Mark]) -> list[oracle.Fault]:
    """The same engine starts a service, owns the run, and leaves it without a result.

    A run that had ended is not opened again: the engine gets another one.
    """
    more: list[Mark] = []
    with Service(root) as service:
        name = service.own()["run"]
        if name == RUN:
            seq = do(Owner(service.connection), NEXT)
            more = [Asked(NEXT), Acked(NEXT, seq), Asked(LEFT), Acked(LEFT, seq + 1)]
        elif expect(marks).finish is None:
            return [oracle.Fault(oracle.REFUSED, f"{name} was opened, but {RUN} has not ended")]
    return check_run(root / RUN, [*marks, *more])


def seal(root: Path, marks: Sequence[Mark]) -> list[oracle.Fault]:
    """The engine is dead as well: whoever comes next writes the end."""
    facts_path = root / RUN / "run.json"
    if not facts_path.exists():
        return []
    facts = json.loads(facts_path.read_bytes())
    facts["engine"]["boot_id"] = "another"
    facts_path.write_text(json.dumps(facts))
    had_ended = any(event["kind"] in _ENDS for event in log_of(root / RUN))
    runs.seal_dead(str(root))
    more: list[Mark] = []
    if not had_ended:
        seq = max((event["seq"] for event in log_of(root / RUN)), default=0)
        more = [Asked(SEALED), Acked(SEALED, seq)]
    return check_run(root / RUN, [*marks, *more])


def check_run(run: Path, marks: Sequence[Mark]) -> list[oracle.Fault]:
    """Say what is wrong with a run that must have its end."""
    expected = replace(expect(marks), is_finished=True)
    found = oracle.look(run)
    return oracle.check(found, expected) + oracle.check_end(found, expected)


def log_of(run: Path) -> list[dict[str, Any]]:
    return oracle.read_log(oracle.look(run).log)[0]


_ENDS = ("completed", "failed")
