"""Builds that are killed at any moment: a true end, nothing left, and the same tree afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import build_kills
import builds
import kills
import pytest
from build_kills import Killed
from builds import Place, ended, manifest, sh

from osbuild_pika import pipeline
from osbuild_pika.verify import verify

QUICK = 15
SLOW = int(os.environ.get("OSBUILD_PIKA_KILLS", "200"))
AT_ONCE = 2
SEED = os.environ.get("OSBUILD_PIKA_SEED", "1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    builds.needs_root()
    (tmp_path / "whole").mkdir()
    return Place(tmp_path / "whole")


def play(directory: Path, place: Place, count: int) -> None:
    """Kill so many builds, and say what came of it."""
    wanted, most = build_kills.undisturbed(place)

    def one(number: int) -> Killed:
        path = directory / str(number)
        killed = build_kills.play(path, f"{SEED} {number}", wanted, most)
        if not killed.faults:
            shutil.rmtree(path)
        return killed

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, range(count)))
    ends = Counter(each.end or "no run" for each in found)
    slowest = max(each.seconds for each in found)
    told = ", ".join(f"{number} {end}" for end, number in ends.most_common())
    stages = Counter(each.cached for each in found)
    print(
        f"\n{count} kills: {told}; {slowest:.2f} s at most; stages found: {sorted(stages.items())}"
    )
    wrong = [each for each in found if each.faults]
    assert not wrong, "\n".join(map(str, wrong))
    assert ends["failed 137 engine.lost"] > count // 2


def test_a_killed_build_ends_truly_and_goes_on(place: Place, tmp_path: Path) -> None:
    play(tmp_path, place, QUICK)


@pytest.mark.slow
def test_many_killed_builds_end_truly_and_go_on(place: Place, tmp_path: Path) -> None:
    play(tmp_path, place, SLOW)


def test_a_build_that_is_killed_with_its_service_is_sealed_by_the_next(place: Place) -> None:
    what = manifest(sh("echo one > one"), sh(f": {place.path}/; echo at work; sleep 600"))
    with place.started(place.order(what)) as started:
        started.until(lambda record: record.get("text") == "at work\n")
        for pid in _services(place):
            os.kill(pid, signal.SIGSTOP)  # it must not see the engine's death
        started.process.kill()
        started.process.wait()
        for pid in _services(place):
            os.kill(pid, signal.SIGKILL)
        builds.wait_for(lambda: not build_kills.left_of(place), 5)
    dead = place.path / "runs/test"
    assert not (dead / "result.json").exists()
    code, records = place.build(manifest(sh("echo one > one"), sh("true")), run="next")
    assert code == 0, records
    assert len(builds.named(records, "stage.cached")) == 1
    assert ended(dead)["details"]["event"] == "engine.lost"
    assert ended(dead)["status"] == "failed"
    assert not verify(dead).faults
    assert os.listdir(place.path / "store/tmp") == []


def test_who_asked_for_a_killed_build_is_told_as_a_shell_would(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(place.path / "runs"))
    what = manifest(sh(f": {place.path}/; echo at work; sleep 600"))

    def take(record: dict[str, Any]) -> None:
        if record.get("text") == "at work\n":
            os.kill(_engine(), signal.SIGKILL)

    assert pipeline.build(place.order(what), take) == 128 + signal.SIGKILL
    builds.wait_for(lambda: not build_kills.left_of(place), 5)


def _engine() -> int:
    """The youngest build process that is our child; other tests may have left some."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == os.getpid() and b"osbuild_pika.engine" in _command(entry.name):
                found[int(fields[19])] = int(entry.name)
    return found[max(found)]


def _command(pid: int | str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def _services(place: Place) -> list[int]:
    """The lifecycle services of a place's runs."""
    name = b"devices/org.osbuild-pika.lifecycle"
    pids = kills.processes_of(place.path)
    return [pid for pid in pids if name in _command(pid)]
