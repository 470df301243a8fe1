"""Setup tasks under strace: killed before each system call, and each call that writes fails; the
next run is right. No task is called done that is not, and what follows it follows.

A task's product says which run made it, and from which product before it: so what is stale is seen.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from crash import strace
from stamped import SCENES, Thing, done

ROOT = Path(__file__).parents[2]
CODE = """
import sys
sys.path[:0] = sys.argv[1:3]
from stamped import work
work(sys.argv[3], sys.argv[4])
"""
# A kill before any other call leaves what a kill before the next of these leaves.
CHANGING = re.compile(
    r"(?:write|rename|unlink|unlinkat|mkdir|mkdirat|ftruncate)\(|openat\(.*(?:O_CREAT|O_TRUNC)"
)
SYNCING = re.compile(r"fsync\(")
SAMPLE = 15  # failing calls of each scene that are tried in minutes


@pytest.fixture(autouse=True, scope="module")
def need_strace() -> None:
    reason = strace.why_not()
    if reason:
        pytest.skip(reason)


@dataclass(frozen=True)
class Stage:
    template: Path
    what: str

    def enter(self, directory: Path) -> list[str]:
        shutil.copytree(self.template, directory, dirs_exist_ok=True)
        paths = [str(ROOT), str(ROOT / "test")]
        return [sys.executable, "-I", "-S", "-c", CODE, *paths, self.what, str(directory)]

    def look(self, wanted: Sequence[re.Pattern[str]]) -> tuple[tuple[str, ...], list[strace.Point]]:
        """The paths that it touches, in the template, and the calls of them that are wanted."""
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            paths = strace.touched(self.enter(Path(name)), Path(name))
        paths = strace.moved(paths, Path(name), self.template)
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            moved = strace.moved(paths, self.template, Path(name))
            trace = strace.run(self.enter(Path(name)), moved).trace
        counts: Counter[str] = Counter()
        found = []
        for line in re.findall(r"^\d+ +(\w+\(.*)", trace, re.MULTILINE):
            call = line.partition("(")[0]
            counts[call] += 1
            if any(pattern.match(line) for pattern in wanted):
                found.append(strace.Point(call, counts[call]))
        return paths, found

    def play(self, paths: Sequence[str], inject: str) -> list[str]:
        """Run once under an injection, then judge. Returns what is wrong."""
        with tempfile.TemporaryDirectory(dir=self.template.parent) as name:
            moved = strace.moved(paths, self.template, Path(name))
            outcome = strace.run(self.enter(Path(name)), moved, inject)
            assert outcome.returncode in (-9, 0, 1), outcome
            faults = judge(Thing(name))
        return [f"{self.template.name}, {inject}: {fault}" for fault in faults]


def judge(thing: Thing) -> list[str]:
    """What is called done is; a run makes right what is not; another one has nothing to do."""
    looked = asyncio.run(thing.inspect_setup_tasks())
    certain = [each for each in looked if each.is_certain]
    trusted = [each.name for each in certain if not each.should_run]
    faults = [f"{name} is called done" for name in trusted if not thing.is_right(name)]
    ran = asyncio.run(thing.run_setup_tasks())
    if any(each.should_run != (each.name in ran) for each in certain):
        faults.append(f"inspect said {looked}, run did {ran}")
    if not thing.is_right("first", "second", "third"):
        faults.append("the next run is not right")
    again = asyncio.run(thing.run_setup_tasks())
    return faults + [f"{name} ran once more" for name in again]


@pytest.fixture(scope="module", params=SCENES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    build, what = SCENES[request.param]
    template = tmp_path_factory.mktemp("stage") / request.param.replace(" ", "-")
    template.mkdir()
    build(Thing(str(template)))
    return Stage(template, what)


def play_all(
    stage: Stage, wanted: Sequence[re.Pattern[str]], how: str, most: int = 10_000
) -> tuple[int, list[str]]:
    """Play each call that is wanted, or as many of them. how: what is injected there."""
    paths, points = stage.look(wanted)
    points = random.sample(points, min(most, len(points)))
    cases = [f"{point.call}:{how}:when={point.nth}" for point in points]
    with ThreadPoolExecutor(2) as pool:
        played = list(pool.map(lambda inject: stage.play(paths, inject), cases))
    return len(cases), [fault for faults in played for fault in faults]


def test_a_kill_before_any_system_call_leaves_nothing_undone_called_done(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    count, faults = play_all(stage, (CHANGING,), "signal=KILL")
    with capsys.disabled():
        print(f"\nstamps, kills: {stage.template.name}: {count} boundaries, {len(faults)} faults")
    assert count > 10
    assert not faults


@pytest.mark.parametrize("most", [SAMPLE, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_failing_system_call_leaves_nothing_undone_called_done(
    most: int, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    count, faults = play_all(stage, (CHANGING, SYNCING), "error=EIO", most)
    with capsys.disabled():
        print(f"\nstamps, errors: {stage.template.name}: {count} injections, {len(faults)} faults")
    assert count > 10
    assert not faults


def test_the_harness_sees_a_stamp_that_is_left_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is called again and killed, with its stamp still there, is called done."""
    thing = Thing(str(tmp_path))
    done(thing)
    stamp = (thing.stamp_path / ".stamp-third.json").read_bytes()
    thing.third()
    (thing.directory / "third").write_text("")
    (thing.stamp_path / ".stamp-third.json").write_bytes(stamp)
    assert "third is called done" in judge(thing)
