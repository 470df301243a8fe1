"""Layer L2 of the crash tests: the command line is killed before each of its system calls, and
each call that writes fails in every way; the next call goes on as if nothing had been.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from crash import (
    Acked,
    Asked,
    Crashed,
    Event,
    Expected,
    Finish,
    Mark,
    expect,
    oracle,
    scenes,
    strace,
    workers,
)
from crash.original import Original
from crash.tally import tally

from osbuild_pika.lifecycle import Journal, LifecycleError

CONTENT = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename")
WRITING = (*CONTENT, "mkdir", "openat", "fchmod", "unlink")
ERRORS = ("ENOSPC", "EIO", "EINTR")
# In a trace: "123 write(4, ...) = -1 EIO (...) (INJECTED)". Python tries again after most EINTR.
INJECTED = re.compile(r"^\d+ +(\w+)\(.* = (?:-1 (E\w+) |\d).*\(INJECTED\)$", re.MULTILINE)
MUST_FAIL = {(call, error) for call in ("fdatasync", "rename") for error in ("ENOSPC", "EIO")}
SHORT = 3  # bytes that a write says it took
NEXT = Event("ready", "after")
PROGRAM = b"pika-cloud-lifecycle: "


@pytest.fixture(autouse=True, scope="module")
def need_strace() -> None:
    reason = strace.why_not()
    if reason:
        pytest.skip(reason)


@dataclass(frozen=True)
class Stage:
    """Where a scene plays, again and again.

    template: a directory to copy; the artifacts are in `run` below it. paths: what the call
    touches. marks, floor: as of what was there before.
    """

    scene: scenes.Scene
    template: Path
    paths: tuple[str, ...]
    marks: tuple[Mark, ...]
    floor: int

    @classmethod
    def build(cls, scene: scenes.Scene, template: Path) -> Stage:
        template.mkdir(parents=True)
        scene.build(template / "run")
        marks, floor = oracle.before(template / "run")
        scene.damage(template / "run")
        if scene.pending:
            marks += [Asked(scene.pending), Crashed()]
        stage = cls(scene, template, (), tuple(marks), floor)
        with tempfile.TemporaryDirectory(dir=template.parent) as name:
            paths = strace.touched(stage.enter(name), Path(name))
            return replace(stage, paths=strace.moved(paths, Path(name), template))

    def enter(self, directory: str) -> list[str]:
        """Copy the template to an empty directory. Returns the command to run there."""
        shutil.copytree(self.template, directory, dirs_exist_ok=True)
        return self.scene.argv(Path(directory) / "run")

    def points(self) -> list[strace.Point]:
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            paths = strace.moved(self.paths, self.template, Path(name))
            return strace.points(self.enter(name), paths)

    def play(self, inject: str, judge: Judge) -> tuple[oracle.Fault, ...]:
        """Run the call once, and judge what it left. Faults name the scene and the injection."""
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            paths = strace.moved(self.paths, self.template, Path(name))
            outcome = strace.run(self.enter(name), paths, inject)
            faults = judge(self, Path(name) / "run", outcome)
        return self.named(inject, faults)

    def play_with_little_space(self, size: int) -> tuple[oracle.Fault, ...]:
        """Run the call once where no file can grow beyond a size; then writes really stop short."""
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            argv = ["prlimit", f"--fsize={size}", "--", *self.enter(name)]
            done = subprocess.run(argv, capture_output=True, check=False)
            outcome = strace.Outcome(done.returncode, done.stdout, done.stderr, "")
            faults = judge_refusal(self, Path(name) / "run", outcome)
        return self.named(f"{size} bytes", faults)

    def named(self, case: str, faults: Iterable[oracle.Fault]) -> tuple[oracle.Fault, ...]:
        details = f"{self.scene.name}, {case}: "
        return tuple(replace(fault, detail=details + fault.detail) for fault in faults)


Judge = Callable[[Stage, Path, strace.Outcome], list[oracle.Fault]]


# --- judging --------------------------------------------------------------------------------------


def judge_kill(stage: Stage, directory: Path, outcome: strace.Outcome) -> list[oracle.Fault]:
    assert outcome.returncode == -9, outcome
    return judge_files(stage, directory, is_acked=False)


def judge_error(stage: Stage, directory: Path, outcome: strace.Outcome) -> list[oracle.Fault]:
    failed = INJECTED.findall(outcome.trace)
    assert len(failed) == 1, outcome
    assert outcome.returncode == 1 or failed[0] not in MUST_FAIL, outcome
    return judge_refusal(stage, directory, outcome)


def judge_refusal(stage: Stage, directory: Path, outcome: strace.Outcome) -> list[oracle.Fault]:
    """Who fails says so in one line, and leaves nothing half written."""
    assert outcome.returncode in (0, 1), outcome
    lines = outcome.stderr.splitlines()
    assert len(lines) == outcome.returncode, outcome
    assert all(line.startswith(PROGRAM) for line in lines), outcome
    before, after = stage.template / "run", directory
    temporary = {path.name for path in after.glob(".*.tmp") if path.stat().st_size}
    assert temporary <= {path.name for path in before.glob(".*.tmp")}, outcome
    log = oracle.look(after).log
    assert not log or log.endswith(b"\n") or log == oracle.look(before).log, outcome
    return judge_files(stage, directory, is_acked=outcome.returncode == 0)


def judge_files(stage: Stage, directory: Path, is_acked: bool) -> list[oracle.Fault]:
    """Judge what a call left, then do the next one, and judge again."""
    work = stage.scene.work
    marks = list(stage.marks)
    if work:
        marks.append(Asked(work))
        marks.append(Acked(work, stage.floor + 1) if is_acked else Crashed())
    expected = expect(marks, stage.floor)
    faults = [] if stage.scene.pending else check_now(oracle.look(directory), expected)
    try:
        return faults + go_on(stage, directory, marks)
    except (LifecycleError, OSError) as error:
        return [*faults, oracle.Fault(oracle.REFUSED, repr(error))]


def check_now(found: oracle.Found, expected: Expected) -> list[oracle.Fault]:
    """Documents are whole at any moment; of the log only the last line may be torn."""
    whole = found.log and found.log[: found.log.rfind(b"\n") + 1]
    return oracle.check(replace(found, log=whole), expected)


def go_on(stage: Stage, directory: Path, marks: Iterable[Mark]) -> list[oracle.Fault]:
    """The next good call, and an event behind it."""
    marks = list(marks)
    faults = []
    with Journal(directory) as journal:
        if stage.scene.work is None:
            journal.recover()
        elif not isinstance(stage.scene.work, Event):
            workers.do(journal, stage.scene.work)
            marks += [Asked(stage.scene.work), Acked(stage.scene.work)]
        if isinstance(stage.scene.pending, Finish):
            faults += oracle.check_end(oracle.look(directory), expect(marks, stage.floor))
        marks += [Asked(NEXT), Acked(NEXT, workers.do(journal, NEXT))]
    return faults + oracle.check(oracle.look(directory), expect(marks, stage.floor))


def judge_original(stage: Stage, directory: Path, outcome: strace.Outcome) -> list[oracle.Fault]:
    assert outcome.returncode == -9, outcome
    asked = replace(NEXT, writer="original")
    acked = Acked(asked, workers.do(Original(directory), asked))
    marks = [*stage.marks, Asked(scenes.ORIGINAL_EVENT), Crashed(), Asked(asked), acked]
    return oracle.check(oracle.look(directory), expect(marks, stage.floor))


# --- the layer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    base = tmp_path_factory.mktemp("stages")
    return [Stage.build(scene, base / scene.name / "template") for scene in scenes.SCENES]


def play_all(cases: Sequence[tuple[Stage, str]], judge: Judge) -> list[oracle.Fault]:
    with ThreadPoolExecutor(2) as pool:
        played = pool.map(lambda case: case[0].play(case[1], judge), cases)
        return [fault for faults in played for fault in faults]


def injections(point: strace.Point) -> list[str]:
    """Every way in which a call that writes can fail."""
    if point.call not in WRITING:
        return []
    if point.call not in CONTENT:
        return [strace.fail(point, "EIO")]
    short = [strace.stop_short(point, SHORT)] if "write" in point.call else []
    return [strace.fail(point, error) for error in ERRORS] + short


def test_a_kill_before_any_system_call_loses_nothing(
    stages: list[Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [(stage, strace.kill_before(point)) for stage in stages for point in stage.points()]
    faults = play_all(cases, judge_kill)
    with capsys.disabled():
        print(f"\nL2 system call kills: {len(cases)} boundaries, {tally(faults)}")
    assert not faults


def test_a_failing_system_call_loses_nothing(
    stages: list[Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (stage, injection)
        for stage in stages
        for point in stage.points()
        for injection in injections(point)
    ]
    faults = play_all(cases, judge_error)
    with capsys.disabled():
        print(f"\nL2 system call errors: {len(cases)} injections, {tally(faults)}")
    assert not faults


def test_a_write_that_stops_short_leaves_nothing_behind(
    stages: list[Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (stage, size)
        for stage in stages
        for whole in {0, *(path.stat().st_size for path in stage.template.rglob("*.json*"))}
        for size in (whole, whole + 1, whole + 20, whole + 60)
    ]
    with ThreadPoolExecutor(2) as pool:
        played = list(pool.map(lambda case: case[0].play_with_little_space(case[1]), cases))
    faults = [fault for found in played for fault in found]
    with capsys.disabled():
        print(f"\nL2 short writes: {len(cases)} file size limits, {tally(faults)}")
    assert not faults


def test_the_faults_of_the_original_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A harness that finds no fault in the original's steps is blind."""
    stage = Stage.build(scenes.BY_ORIGINAL, tmp_path / "template")
    cases = [(stage, strace.kill_before(point)) for point in stage.points()]
    faults = play_all(cases, judge_original)
    with capsys.disabled():
        print(f"\nL2 system call kills of the original: {len(cases)} boundaries, {tally(faults)}")
    assert oracle.DUPLICATE in {fault.kind for fault in faults}
