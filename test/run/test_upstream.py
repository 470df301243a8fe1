"""An unmodified upstream osbuild (v191) with the merged directory of its modules and ours.

OSBUILD_SOURCE names a checkout of upstream. It runs in a mount namespace of its own, where what
it leaks when it is killed ends with it, on a store of its own.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from osbuild_pika.upstream import make_libdir
from osbuild_pika.verify import verify

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
VERDICT_S = 2  # within which the end of a run is told
# Upstream binds /etc/containers, which not every host has: an overlay adds an empty one.
SETUP = """
overlay=$1; shift
mount -t overlay etc -o "lowerdir=/etc,upperdir=$overlay/upper,workdir=$overlay/work" /etc
exec "$@"
"""


class Upstream(NamedTuple):
    """Upstream, ready to build. rundir: its path is short, for sockets have their place there."""

    checkout: Path
    libdir: Path
    place: Path
    rundir: Path

    @property
    def store(self) -> Path:
        return self.place / "store"

    @property
    def tree(self) -> Path:
        """Where the pipeline `tree` is exported to."""
        return self.place / "output/tree"

    @property
    def run(self) -> Path:
        """The directory of the run `web`."""
        return self.place / "runs/web"

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**ours, "OSBUILD_PIKA_RUNS": str(self.run.parent)}

    def start(self, manifest: dict[str, Any]) -> subprocess.Popen[str]:
        """Start a build of the pipeline `tree`; the process is osbuild itself."""
        for name in ("upper/containers", "work"):
            (self.place / "etc" / name).mkdir(parents=True, exist_ok=True)
        (self.place / "manifest.json").write_text(json.dumps(manifest))
        namespace = ["unshare", "--mount", "--propagation", "private"]
        setup = ["sh", "-euc", SETUP, "sh", str(self.place / "etc")]
        osbuild = [sys.executable, "-m", "osbuild", "--libdir", str(self.libdir)]
        places = ["--store", str(self.store), "--rundir", str(self.rundir)]
        output = ["--output-directory", str(self.tree.parent), "--export", "tree"]
        return subprocess.Popen(
            [*namespace, *setup, *osbuild, *places, *output, str(self.place / "manifest.json")],
            cwd=self.checkout,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, manifest: dict[str, Any]) -> tuple[int, str]:
        """Build and return the exit status and what was printed."""
        with self.start(manifest) as process:
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, printed


def manifest_of(*stages: dict[str, Any]) -> dict[str, Any]:
    return {"version": "2", "pipelines": [{"name": "tree", "stages": list(stages)}]}


@pytest.fixture(scope="module")
def checkout() -> Path:
    if not os.environ.get("OSBUILD_SOURCE"):
        pytest.skip("OSBUILD_SOURCE names no checkout of upstream osbuild")
    if os.geteuid() or shutil.which("bwrap") is None:
        pytest.skip("needs root and bubblewrap")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    return Path(os.environ["OSBUILD_SOURCE"]).absolute()


@pytest.fixture(scope="module")
def libdir(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("libdir")
    # It has our package, whatever the tests are run by.
    interpreter = place / "python3"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return make_libdir(place / "libdir", checkout, str(interpreter)).directory


@pytest.fixture
def osbuild(checkout: Path, libdir: Path, tmp_path: Path) -> Iterator[Upstream]:
    with tempfile.TemporaryDirectory(prefix="up") as rundir:
        yield Upstream(checkout, libdir, tmp_path, Path(rundir))


MKDIR = {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/data"}]}}
TRUNCATE = {"type": "org.osbuild.truncate", "options": {"filename": "data/disk.img", "size": "1M"}}
DEMO = {"type": "org.osbuild-pika.demo"}
ROUNDS = 10


def reporting(stage: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The stage with the lifecycle device declared."""
    device = {"type": "org.osbuild-pika.lifecycle", "options": {"run": "web", **options}}
    return {**stage, "devices": {"lifecycle": device}}


def manifest_with(**options: Any) -> dict[str, Any]:
    """Two of upstream's stages, and ours with these options, whose result is the run's."""
    demo = reporting({**DEMO, "options": options}, final=True)
    return manifest_of(reporting(MKDIR), reporting(TRUNCATE), demo)


def events_of(osbuild: Upstream) -> list[dict[str, Any]]:
    return list(map(json.loads, (osbuild.run / "events.jsonl").read_bytes().splitlines()))


def end_of(osbuild: Upstream) -> tuple[str, str, int]:
    """What the last event was, and the status and exit code of the result."""
    assert not verify(osbuild.run).faults
    result = json.loads((osbuild.run / "result.json").read_text())
    return events_of(osbuild)[-1]["details"]["event"], result["status"], result["exit_code"]


def wait_for(what: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(osbuild: Upstream, signal_: signal.Signals) -> int:
    """Send a signal to osbuild while the demo stage is at work; returns its exit status."""

    def is_at_work() -> bool:
        log = osbuild.run / "events.jsonl"
        return log.exists() and b"stage.progress" in log.read_bytes()

    with osbuild.start(manifest_with(steps=500, seconds=60)) as process:
        wait_for(is_at_work, TIMEOUT_S)
        time.sleep(random.uniform(0, 0.5))
        process.send_signal(signal_)
        process.communicate(timeout=TIMEOUT_S)
    wait_for((osbuild.run / "status.json").exists, VERDICT_S)
    wait_for(lambda: (osbuild.run / "result.json").exists(), VERDICT_S)
    wait_for(lambda: '"failed"' in (osbuild.run / "status.json").read_text(), VERDICT_S)
    return process.returncode


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_success_is_the_runs_result(osbuild: Upstream, number: int) -> None:
    status, printed = osbuild.build(manifest_with())
    assert status == 0, printed
    assert end_of(osbuild) == ("build.completed", "completed", 0)
    events = [event["details"]["event"] for event in events_of(osbuild)]
    silent = ["stage.started", "stage.ended"]
    assert events[:6] == ["build.accepted", "build.started", *silent, *silent]
    assert events[6:8] == ["stage.started", "demo.begun"]
    assert events[-2:] == ["stage.finished", "build.completed"]
    assert (osbuild.tree / "demo-5").read_text() == "5\n"


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_failing_stage_is_the_runs_result(osbuild: Upstream, number: int) -> None:
    status, _ = osbuild.build(manifest_with(fail="no space for step 3"))
    assert status == 1
    assert end_of(osbuild) == ("build.failed", "failed", 1)
    assert "no space for step 3" in (osbuild.run / "result.json").read_text()


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize(
    ("signal_", "status", "exit_code"), [("SIGKILL", -9, 137), ("SIGTERM", -15, 143)]
)
def test_a_killed_osbuild_is_told(
    osbuild: Upstream, signal_: str, status: int, exit_code: int, number: int
) -> None:
    assert interrupt(osbuild, signal.Signals[signal_]) == status
    assert end_of(osbuild) == ("engine.lost", "failed", exit_code)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_an_interrupted_osbuild_is_told(osbuild: Upstream, number: int) -> None:
    # 1: its clean-up fails, for the stage writes on while it goes on.
    assert interrupt(osbuild, signal.SIGINT) in (1, 130)
    assert end_of(osbuild) == ("interrupted", "failed", 130)


def test_upstreams_stages_build_from_the_merged_directory(osbuild: Upstream) -> None:
    status, printed = osbuild.build(manifest_of(MKDIR, TRUNCATE))
    assert status == 0, printed
    assert (osbuild.tree / "data/disk.img").stat().st_size == 2**20
