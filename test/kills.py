"""Kills an engine or its stage at a random moment, and says which verdicts would be right.

The right one follows from what the engine and the stage had kept of themselves before they died.
A call that was under way then may have been heard or not: either is right.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import small_engine
from services import verdict, whole
from small_engine import RUN, Plan

SOON_S = 20.0  # for what takes a part of a second on an idle machine
VERDICT_S = 2.0  # from the kill to the verdict,
STARTS = 10.0  # or, where that is longer, so many times what an engine takes to start here now
AFTER_S = 0.12  # longest time from a mark to the kill
KILLS = ("engine SIGKILL", "engine SIGTERM", "stage SIGKILL")
# What is told of a stage, and the one that runs. No stage alive: none runs when the engine is
# killed; one whose device nobody used is killed, so that nothing is known of it.
STAGES = {"Python": "talks", "shell": "talks.sh", "none": ""}
CELLS = [(kill, stage) for kill in KILLS for stage in STAGES]
LOST = "failed 137 engine.lost"
KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
KNOWS_STATUS = KERNEL >= (6, 15)  # of a process that is not ours
KNOWS_THE_DEAD = KERNEL >= (6, 16)  # also of one that had ended before the service began
# The marks after which a kill may come.
_ENGINE = ("begun", "opening", "opened")
_STAGE = ("sandbox", "connecting", "spoken", "resulting")


@dataclass(frozen=True)
class Outcome:
    """One kill. right: the verdicts that may be; seconds: until all was written and all ended.

    start_s: what it took the engine to start, 0.2 s on an idle machine.
    """

    seen: str
    right: frozenset[str]
    seconds: float
    start_s: float
    plan: Plan
    case: str

    @property
    def is_right(self) -> bool:
        return self.seen in self.right and self.seconds <= max(VERDICT_S, STARTS * self.start_s)


# --- one kill -------------------------------------------------------------------------------------


def one(directory: Path, kill: str, stage: str, seed: str) -> Outcome:
    """Play one kill in a fresh directory. The same seed makes the same plan."""
    chance = random.Random(seed)
    of_engine = kill.startswith("engine")
    name = STAGES[stage] or ("" if of_engine else "silent.sh")
    plan = Plan(name, has_owner=chance.random() < 0.5, is_final=chance.random() < 0.8)
    after = chance.choice(_marks(name, of_engine))
    started = time.monotonic()
    with running(directory, plan) as engine:
        await_mark(directory, after, engine)
        time.sleep(chance.uniform(0, AFTER_S))
        if of_engine:
            engine.send_signal(signal.Signals[kill.split()[1]])
        else:
            kill_stage(directory)
        seconds = await_end(directory, engine)
    begun = float(marks_of(directory)[0].split()[1])
    marks, said = marks_of(directory), marks_of(directory / "sandbox/tree")
    lost = "failed 143 engine.lost" if kill.endswith("TERM") and KNOWS_STATUS else LOST
    right = _after_engine(plan, marks, said, lost) if of_engine else _after_stage(plan, marks, said)
    case = f"{seed}: after {after}, engine {marks}, stage {said}"
    return Outcome(
        seen(directory / "runs" / RUN), frozenset(right), seconds, begun - started, plan, case
    )


def _marks(name: str, of_engine: bool) -> tuple[str, ...]:
    stage = {"": (), "silent.sh": _STAGE[:2]}.get(name, _STAGE)
    return (_ENGINE + stage) if of_engine else stage


@contextlib.contextmanager
def running(directory: Path, plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """Start an engine in a fresh directory; it is gone at the end of the block."""
    directory.mkdir(parents=True)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("OSBUILD_PIKA")}
    with subprocess.Popen(
        small_engine.command(directory, plan),
        env={**clean, "PYTHONPATH": small_engine.PYTHONPATH},
        stdin=subprocess.DEVNULL,
    ) as engine:
        try:
            yield engine
        finally:
            engine.kill()


def marks_of(directory: Path) -> list[str]:
    try:
        return (directory / "marks").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []


def await_mark(directory: Path, name: str, engine: subprocess.Popen[bytes]) -> None:
    """Wait until the engine or the stage came to a mark, or the engine to its end."""
    deadline = time.monotonic() + SOON_S
    while engine.poll() is None:
        marks = marks_of(directory / ("sandbox/tree" if name in _STAGE[1:] else ""))
        if any(mark.split()[0] == name for mark in marks):
            return
        assert time.monotonic() < deadline, f"no {name} in {SOON_S} s"
        time.sleep(0.002)


def await_end(directory: Path, engine: subprocess.Popen[bytes]) -> float:
    """Seconds until the engine, its services and its sandbox have ended."""
    started = time.monotonic()
    engine.wait(SOON_S)
    while left := processes_of(directory):
        assert time.monotonic() < started + SOON_S, f"still running: {left}"
        time.sleep(0.01)
    return time.monotonic() - started


def processes_of(directory: Path) -> list[int]:
    """The processes that were started with this directory in their arguments or environment."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdecimal() and any(
                f"{directory}/".encode() in Path(f"/proc/{entry}/{name}").read_bytes()
                for name in ("cmdline", "environ")
            ):
                found.append(int(entry))
    return found


def kill_stage(directory: Path) -> None:
    """Kill the stage in its sandbox, as soon as it is there and if it is still there."""
    outer = next((m.split()[1] for m in marks_of(directory) if m.startswith("sandbox")), "")
    deadline = time.monotonic() + SOON_S
    while outer and Path(f"/proc/{outer}").exists() and time.monotonic() < deadline:
        for first in children(int(outer)):
            for stage in children(first):
                _kill(stage, first)
                return


def _kill(pid: int, parent: int) -> None:
    """Kill a process, but never another one that has its pid by now."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            if pid in children(parent):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


# --- what is right --------------------------------------------------------------------------------


def seen(run: Path) -> str:
    """The verdict of a run, whose artifacts must be whole, in one line."""
    if not run.exists():
        return "nothing"
    if (run / "result.json").exists():
        return "{} {} {}".format(*verdict(run))
    details = whole(run)[-1]["details"]
    return f"open {details.get('exit_code')} {details['event']}"


def _after_engine(plan: Plan, marks: Sequence[str], said: Sequence[str], lost: str) -> set[str]:
    """After a kill of the engine. marks: its own, said: the stage's."""
    if "opening" not in marks:
        return {"nothing"}
    if "opened" not in marks and "owned" not in marks:
        return {"nothing", lost, lost if KNOWS_THE_DEAD else LOST}
    if plan.has_owner:
        return _of_result(marks, "completed 0 build.completed", lost)
    if plan.is_final:
        return _of_result(said, "completed 0 build.completed", lost)
    if "ended 0" not in marks:
        return {lost}
    # Nobody ends the run of a stage that is not final: it goes on with the next one.
    return {"open 0 stage.finished"} if "done" in marks else {"open 0 stage.finished", lost}


def _of_result(marks: Sequence[str], told: str, otherwise: str) -> set[str]:
    if "resulted" in marks:
        return {told}
    return {told, otherwise} if "resulting" in marks else {otherwise}


def _after_stage(plan: Plan, marks: Sequence[str], said: Sequence[str]) -> set[str]:
    """After a kill of the stage, or too late for that: the engine saw its exit status."""
    (status,) = [int(mark.split()[1]) for mark in marks if mark.startswith("ended")]
    assert status in (0, 137), marks
    if plan.has_owner:
        return {"failed 137 stage.failed" if status else "completed 0 build.completed"}
    told = "completed 0 build.completed" if plan.is_final else "open 0 stage.finished"
    known = "failed 137 stage.ended" if plan.is_final else "open 137 stage.ended"
    unknown = "failed 1 stage.ended" if plan.is_final else "open None stage.ended"
    if "connecting" not in said or plan.stage == "silent.sh":
        return {unknown}
    known = known if KNOWS_STATUS else unknown
    if "spoken" not in said:
        return {unknown, known}
    return _of_result(said, told, known)
