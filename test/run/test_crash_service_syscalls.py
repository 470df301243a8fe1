"""Layer L2 of the crash tests, for the lifecycle service: it is killed before each system call
that touches a run, or acknowledges; each call that writes fails in every way. Then its engine
starts another, or is dead as well, and the run is whole and has its end.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from crash import Mark, aftermath, oracle, strace, talks
from crash.serving import SERVICE, Service, variant
from crash.tally import tally
from crash.workers import Gone

CONTENT = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "fallocate")
WRITING = (*CONTENT, "mkdir", "openat", "fchmod", "unlink", "rmdir")
CHANGING = (*WRITING, "flock", "sendmsg")  # or seen outside
ERRORS = ("ENOSPC", "EIO", "EINTR")
SHORT = 3  # bytes that a write says it took
TRIES = 4  # packets that come one by one make more calls than those that come together
MORE = 3  # boundaries of each scene that are tried beyond those of a new kind
SCENES = pytest.mark.parametrize("scene", talks.SCENES, ids=lambda scene: scene.name)
_CALL = re.compile(r"^\d+ +(\w+)\(")
_ULID = re.compile(r"[0-9a-z]{26}")


@pytest.fixture(autouse=True, scope="module")
def need_strace(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = strace.why_not()
    if reason:
        pytest.skip(reason)
    play(talks.SCENES[0], tmp_path_factory.mktemp("first"))  # it also writes compiled modules


@dataclass(frozen=True)
class Played:
    """What a conversation left. status: of the service, in subprocess's form."""

    status: int
    marks: tuple[Mark, ...]
    refused: tuple[str, ...]
    output: str
    trace: str


def play(
    scene: talks.Scene, directory: Path, inject: str = "", program: Sequence[str] = SERVICE
) -> Played:
    """Talk to a service under strace, in an empty directory, until it is gone or all is said."""
    (directory / "runs").mkdir()
    marks = scene.find(directory / "runs")
    trace, output = directory / "trace", directory / "output"
    service = Service(
        directory / "runs",
        program,
        wrap=lambda argv: strace.wrap(argv, (), inject, str(trace)),
        output=output,
    )
    talk = talks.Talk(service, directory, list(marks))
    try:
        scene.script(talk)
    except (Gone, OSError):
        if not inject:
            raise
    status = service.stop()
    return Played(
        status,
        tuple(talk.marks),
        tuple(talk.refused),
        output.read_text(),
        trace.read_text(errors="replace"),
    )


@dataclass(frozen=True)
class Boundary:
    """A system call that touches the runs. what: the same for calls that are like it."""

    point: strace.Point
    what: tuple[str, ...]


def boundaries(scene: talks.Scene) -> list[Boundary]:
    with tempfile.TemporaryDirectory() as name:
        trace = play(scene, Path(name)).trace
        root = f"{name}/runs"
    counts: Counter[str] = Counter()
    found: list[Boundary] = []
    for line in trace.split("\n"):
        match = _CALL.match(line)
        if match is None:
            continue
        counts[match[1]] += 1
        paths = re.findall(rf"{root}([^\">]*)", line)
        if paths or (found and match[1] == "sendmsg"):
            what = (match[1], *(_ULID.sub("*", path) for path in paths))
            found.append(Boundary(strace.Point(match[1], counts[match[1]]), what))
    return found


def of_each_kind(calls: Sequence[str]) -> Iterator[tuple[talks.Scene, list[Boundary]]]:
    """Boundaries of every kind in any scene, and a few more in each."""
    seen: set[tuple[str, ...]] = set()
    for scene in talks.SCENES:
        found = [each for each in boundaries(scene) if each.point.call in calls]
        random.shuffle(found)
        kinds = {each.what: each for each in found if each.what not in seen}
        seen |= set(kinds)
        yield scene, [*kinds.values(), *found[:MORE]]


Judge = Callable[[Path, Played], list[oracle.Fault]]


def judge_kill(directory: Path, played: Played) -> list[oracle.Fault]:
    assert played.status == -9, played.output
    return aftermath.go_on(directory / "runs", played.marks)


def judge_error(directory: Path, played: Played) -> list[oracle.Fault]:
    """Who fails says so in one line, and serves on."""
    assert played.status == 0, played.output
    assert "Traceback" not in played.output, played.output
    assert "(INJECTED)" in played.trace
    assert not list((directory / "runs").rglob(".*.tmp")), played
    return aftermath.go_on(directory / "runs", played.marks)


def play_all(
    scene: talks.Scene, injects: Sequence[str], judge: Judge, program: Sequence[str] = SERVICE
) -> list[oracle.Fault]:
    def one(inject: str, tries: int = TRIES) -> list[oracle.Fault]:
        with tempfile.TemporaryDirectory() as name:
            played = play(scene, Path(name), inject, program)
            if played.status == 0 and "(INJECTED)" not in played.trace and tries > 1:
                return one(inject, tries - 1)
            faults = judge(Path(name), played)
        return [
            replace(fault, detail=f"{scene.name}, {inject}: {fault.detail}") for fault in faults
        ]

    with ThreadPoolExecutor(2) as pool:
        return [fault for faults in pool.map(one, injects) for fault in faults]


def failures(boundary: Boundary) -> list[str]:
    """Every way in which a call that writes can fail."""
    point = boundary.point
    if point.call not in CONTENT:
        return [strace.fail(point, "EIO")]
    fails = [strace.fail(point, error) for error in ERRORS]
    # Who writes the rest after a short write cannot be told that 3 bytes were taken that were not.
    is_strict = "write" in point.call and not boundary.what[1].endswith("run.json")
    return fails + ([strace.stop_short(point, SHORT)] if is_strict else [])


def say(capsys: pytest.CaptureFixture[str], text: str, faults: Iterable[oracle.Fault]) -> None:
    with capsys.disabled():
        print(f"\nL2 service, {text}, {tally(faults)}")


# --- a sample of every kind -----------------------------------------------------------------------


def test_a_kill_before_any_kind_of_system_call_loses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults, count = [], 0
    for scene, found in of_each_kind(CHANGING):
        faults += play_all(scene, [strace.kill_before(each.point) for each in found], judge_kill)
        count += len(found)
    say(capsys, f"kills: {count} boundaries", faults)
    assert not faults


def test_any_kind_of_failing_system_call_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    faults, count = [], 0
    for scene, found in of_each_kind(WRITING):
        faults += play_all(scene, [random.choice(failures(each)) for each in found], judge_error)
        count += len(found)
    say(capsys, f"errors: {count} injections", faults)
    assert not faults


def test_a_service_that_answers_before_it_writes_is_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A harness that finds no fault in it is blind."""
    points = [strace.Point("pwrite64", nth) for nth in range(5, 11)]
    kills = [strace.kill_before(point) for point in points]
    faults = play_all(talks.SCENES[0], kills, judge_kill, variant("hasty"))
    say(capsys, f"kills of a hasty one: {len(kills)} boundaries", faults)
    assert oracle.LOST in {fault.kind for fault in faults}


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.slow
@SCENES
def test_a_kill_before_any_system_call_loses_nothing(
    scene: talks.Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = [strace.kill_before(each.point) for each in boundaries(scene)]
    faults = play_all(scene, kills, judge_kill)
    say(capsys, f"kills in {scene.name}: {len(kills)} boundaries", faults)
    assert not faults


@pytest.mark.slow
@SCENES
def test_any_failing_system_call_loses_nothing(
    scene: talks.Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [each for each in boundaries(scene) if each.point.call in WRITING]
    fails = [inject for each in found for inject in failures(each)]
    faults = play_all(scene, fails, judge_error)
    say(capsys, f"errors in {scene.name}: {len(fails)} injections", faults)
    assert not faults
