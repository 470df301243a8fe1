"""Kills a build at a random moment, and looks at what is left and what the next build makes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kills
from builds import Place, Started, ended, named, sh

from osbuild_pika.verify import verify

EPOCH = 1_600_000_000
SOON_S = 20.0  # for what takes a part of a second on an idle machine
VERDICT_S = 2.0  # from the kill to the end of the run
AFTER_S = 0.1  # at most, from a record to the kill
ENDS = {"failed 137 engine.lost", "completed 0 build.completed"}
# Small layers and a large one, whiteouts, a renamed directory, processes that stay behind.
SCRIPTS = (
    "mkdir -p etc var; echo one > etc/one; echo two > etc/two; ln etc/one etc/hard; sleep 0.03",
    "for n in $(seq 200); do echo $n > var/$n; done",
    "sleep 60 & echo at work; sleep 0.05; kill $!; rm etc/two; mv var lib",
    "for n in $(seq 20); do echo line $n; done; echo '{\"a\": 1}' > /run/osbuild/meta",
    "chmod 4755 etc/one; chown 7:8 lib/1; ln -s one etc/soft; sleep 0.02",
)


@dataclass(frozen=True)
class Killed:
    """One kill and what came after it. end: of the run; "": it was not begun. finished: stages
    that had told so. cached: stages that the next build found. faults: all that is not right."""

    case: str
    end: str
    seconds: float
    finished: int
    cached: int
    faults: tuple[str, ...]


def manifest(place: Place) -> dict[str, Any]:
    """What is built: two pipelines, whose stages have the place in their command lines."""
    stages = [sh(f"PLACE={place.path}/; {script}") for script in SCRIPTS]
    pipelines = [("first", stages[:2]), ("tree", [*stages, sh("echo end > end")])]
    return {
        "version": "2",
        "pipelines": [
            {"name": name, "source-epoch": EPOCH, "stages": each} for name, each in pipelines
        ],
    }


def digest(tree: Path) -> str:
    """Of all that an exported tree is: names, kinds, modes, owners, times, links, contents."""
    known = hashlib.sha256()
    links: dict[int, str] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        found = path.lstat()
        name = str(path.relative_to(tree))
        facts = [name, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_nlink]
        known.update(json.dumps([*facts, links.setdefault(found.st_ino, name)]).encode())
        if path.is_symlink():
            known.update(os.readlink(path).encode())
        elif path.is_file():
            known.update(path.read_bytes())
    return known.hexdigest()


def undisturbed(place: Place) -> tuple[str, int]:
    """The digest of what an undisturbed build exports, and how many records it sends."""
    code, records = place.build(manifest(place), exports=("first", "tree"))
    assert code == 0, records
    return digest(place.output), len(records)


def play(path: Path, seed: str, wanted: str, most: int) -> Killed:
    """Kill one build in a fresh place, wait for its end, and build again.

    It is killed a random time after a random one of its records, of which there are `most`: so
    all of a build is met, however busy the machine is.
    """
    path.mkdir(parents=True)
    place = Place(path)
    chance = random.Random(seed)
    after, delay_s = chance.randint(0, most - 1), chance.uniform(0, AFTER_S)
    order = place.order(manifest(place), exports=("first", "tree"))
    with place.started(order) as started:
        await_records(started, after)
        time.sleep(delay_s)
        started.process.send_signal(signal.SIGKILL)
        status = started.process.wait()
        seconds, faults = _await_end(place)
        finished = sum(r["record"] == "stage.finished" for r in started.until(lambda _: False))
    end = _end(place)
    if status != 0 and end not in {"", *ENDS}:
        faults.append(f"its end is {end}")
    faults += [f"left: {each}" for each in left_of(place)]
    cached = _again(place, wanted, finished, faults)
    case = f"{seed}: {delay_s:.3f} s after record {after}"
    return Killed(case, end, seconds, finished, cached, tuple(faults))


def await_records(started: Started, count: int) -> None:
    """Wait for so many records; they come in pieces."""
    while len(started.records) < count:
        before = len(started.records)
        started.until(lambda _: True)
        if len(started.records) == before:
            return


def _runs(place: Place) -> list[Path]:
    """The runs that were begun: a directory that is being made has a name with a dot."""
    root = place.path / "runs"
    return [each for each in root.glob("[!.]*") if each.is_dir()] if root.exists() else []


def _await_end(place: Place) -> tuple[float, list[str]]:
    """Wait for the end of all that was started. Returns the seconds, and what is wrong."""
    begin = time.monotonic()
    while kills.processes_of(place.path):
        if time.monotonic() > begin + SOON_S:
            return SOON_S, [f"still running: {kills.processes_of(place.path)}"]
        time.sleep(0.005)
    seconds = time.monotonic() - begin
    runs = _runs(place)
    faults = [f"{run.name} has no end" for run in runs if not (run / "result.json").exists()]
    faults += [f"{run.name}: {fault}" for run in runs for fault in verify(run).faults]
    if seconds > VERDICT_S:
        faults.append(f"it took {seconds:.2f} s")
    return seconds, faults


def _end(place: Place) -> str:
    for run in _runs(place):
        if (run / "result.json").exists():
            result = ended(run)
            return f"{result['status']} {result['exit_code']} {result['details']['event']}"
    return ""


def left_of(place: Place) -> list[str]:
    """Mounts, processes and loop devices that the host sees of a place."""
    mark = f"{place.path}/"
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().split("\n") if mark in line]
    loops = [
        str(file)
        for file in Path("/sys/block").glob("loop*/loop/backing_file")
        if file.read_text().startswith(mark)
    ]
    return [*mounts, *loops, *(f"process {each}" for each in kills.processes_of(place.path))]


def _again(place: Place, wanted: str, finished: int, faults: list[str]) -> int:
    """Build again: returns how many stages were found."""
    code, records = place.build(manifest(place), exports=("first", "tree"))
    cached = len(named(records, "stage.cached"))
    if code != 0:
        faults.append(f"built again, it exits with {code}: {records[-1:]}")
    elif digest(place.output) != wanted:
        faults.append("built again, it is another tree")
    if cached < finished - 1:  # the last one may not have been kept yet
        faults.append(f"of {finished} finished stages {cached} were found")
    if os.listdir(place.path / "store/tmp"):
        faults.append("something is left in the store")
    return cached
