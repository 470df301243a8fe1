"""A stage in a real sandbox, as upstream makes it: the device is all that it has of its run."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sandboxes
from sandboxes import ROOT, Sandbox, ending
from services import names, verdict, whole
from small_engine import OPTIONS, SERVICE

from osbuild_pika.devices import Device, DeviceManager
from osbuild_pika.host import ServiceManager

DEMO = ROOT / "stages/org.osbuild-pika.demo"
LOOKS = ROOT / "test/data/stages/looks"
RUN = "a-run-that-stages-cannot-see"
STEPS = ["artifact", "stage.progress"]
NODE = "osbuild-pika-lifecycle"
SHELL = """#!/bin/sh
report() { python3 -m osbuild_pika.inside.report "$@"; }
report event "unpacking ü" --name my.unpack --details-json '{"files": 3}'
report progress 1 3 --unit files
touch /run/osbuild/tree/x
report artifact /run/osbuild/tree/x
report event "forged" --name build.completed || echo "refused with $?"
report result failed "no more space" --exit-code 3
exit 3
"""

pytestmark = pytest.mark.skipif(not sandboxes.can_run(), reason="needs bubblewrap, and root")


@dataclass(frozen=True)
class Build:
    """What became of one stage. run: the directory of its run."""

    status: int
    output: str
    run: Path
    sandbox: Sandbox

    def stage_events(self) -> list[dict[str, Any]]:
        return [event for event in whole(self.run) if event["details"].get("source") == "stage"]


@pytest.fixture(name="owner", params=["owner", "plain"], scope="module")
def fixture_owner(request: pytest.FixtureRequest) -> bool:
    """Whether an engine of ours owns the run, or it is as under plain upstream."""
    return bool(request.param == "owner")


def build(directory: Path, stage: Path, owner: bool, options: dict[str, Any]) -> Build:
    """Have one stage run, which is its run's last."""
    sandbox = Sandbox(directory / "sandbox")
    environment = {**os.environ, "OSBUILD_PIKA_RUNS": str(directory / "runs")}
    with ServiceManager(environment=environment) as services:
        if owner:
            status, output = _owned(services, sandbox, stage, options)
        else:
            device = Device("lifecycle", SERVICE.name, {**OPTIONS, "run": RUN, "final": True})
            devices = DeviceManager(services, str(sandbox.dev), str(sandbox.tree))
            entry = devices.argument(device, devices.open(device, str(SERVICE)))
            status, output = _run(sandbox, stage, entry, options)
    return Build(status, output, directory / "runs" / RUN, sandbox)


def _owned(
    services: ServiceManager, sandbox: Sandbox, stage: Path, options: dict[str, Any]
) -> tuple[int, str]:
    service = services.start("device/lifecycle", str(SERVICE))
    service.call("own", {"run": RUN})
    paths = {"dev": str(sandbox.dev), "tree": str(sandbox.tree), "parent": None}
    reply = service.call("open", {**paths, "options": OPTIONS})
    status, output = _run(sandbox, stage, {**reply, "path": f"/dev/{reply['path']}"}, options)
    closed = service.call("close", {"path": str(sandbox.dev / reply["path"])})
    service.call("result", {**closed["result"], "details": {}})
    return status, output


def _run(sandbox: Sandbox, stage: Path, entry: Any, options: dict[str, Any]) -> tuple[int, str]:
    with ending(sandbox.start(stage, {"lifecycle": entry}, options)) as process:
        output = process.communicate(timeout=60)[0]
        return process.returncode, output


def test_a_stage_tells_what_it_does(tmp_path: Path, owner: bool) -> None:
    done = build(tmp_path, DEMO, owner, {"steps": 3})
    assert (done.status, done.output) == (0, "")
    assert sorted(os.listdir(done.sandbox.tree)) == ["demo-1", "demo-2", "demo-3"]
    begin = ["build.accepted"] if owner else ["build.accepted", "build.started", "stage.started"]
    told = ["demo.begun", *STEPS * 3, "stage.finished"]
    assert names(done.run) == [*begin, *told, "build.completed"]
    assert verdict(done.run) == ("completed", 0, "build.completed")
    events = done.stage_events()
    assert [event["details"]["event"] for event in events][: len(told)] == told
    for event in events:
        assert event["details"].items() >= {**OPTIONS, "run_id": RUN}.items()
    assert events[3]["details"].items() >= {"path": "demo-2", "size_bytes": 2}.items()
    assert events[6]["details"].items() >= {"done": 3, "total": 3, "unit": "files"}.items()


def test_a_failure_is_the_runs(tmp_path: Path, owner: bool) -> None:
    done = build(tmp_path, DEMO, owner, {"steps": 3, "fail": "no more ü"})
    assert done.status == 1
    assert done.output.endswith("org.osbuild-pika.demo: no more ü\n")
    assert verdict(done.run) == ("failed", 1, "build.failed")
    assert whole(done.run)[-1]["message"] == "no more ü"


def test_a_shell_stage_tells_what_it_does(tmp_path: Path, owner: bool) -> None:
    script = tmp_path / "org.example.shell"
    script.write_text(SHELL)
    script.chmod(0o755)
    done = build(tmp_path, script, owner, {})
    assert done.status == 3
    assert done.output.split("\n")[-2:] == ["refused with 1", ""]
    assert "build.completed is not for a stage to say" in done.output
    assert verdict(done.run) == ("failed", 3, "build.failed")
    told = [(event["details"]["event"], event["message"]) for event in done.stage_events()]
    assert told[:4] == [
        ("my.unpack", "unpacking ü"),
        ("stage.progress", "1 of 3 files"),
        ("artifact", "x"),
        ("stage.failed", "no more space"),
    ]


def test_all_users_can_read_the_artifacts(tmp_path: Path, owner: bool) -> None:
    done = build(tmp_path, DEMO, owner, {})
    modes = {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (*done.run.glob("*.json"), *done.run.glob("*.jsonl"))
    }
    files = ["events.jsonl", "result.json", "run.json", "status.json"]
    assert modes == dict.fromkeys(sorted(files), "0o644")
    assert stat.S_IMODE(done.run.stat().st_mode) == 0o755


# --- from inside ----------------------------------------------------------------------------------


@pytest.fixture(name="place", scope="module")
def fixture_place(tmp_path_factory: pytest.TempPathFactory, owner: bool) -> Path:
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(name="seen", scope="module")
def fixture_seen(place: Path, owner: bool) -> dict[str, Any]:
    """What a stage saw that knows where its run is, and what its files are named."""
    (place / "runs").mkdir()
    looked_for = [place, place / "runs", ROOT / "osbuild_pika/inside"]
    options = {
        "run": RUN,
        "directory": str(place / "runs" / RUN),
        "names": ["status.json", "events.jsonl", "events.jsonl.seq", "run.json", ".lock"],
        "inodes": [[path.stat().st_dev, path.stat().st_ino] for path in looked_for],
    }
    done = build(place, LOOKS, owner, options)
    assert done.status == 0, done.output
    seen = json.loads(done.output)
    assert isinstance(seen, dict)
    return seen


def on_disk(path: Path) -> tuple[str, str]:
    """The device's number of the file system that a path is on, and its path on that."""
    mounts = [line.split()[2:5] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    above = [mount for mount in mounts if path.is_relative_to(mount[2])]
    device, root, point = max(above, key=lambda mount: len(mount[2]))
    return device, str(Path(root) / path.relative_to(point))


def test_nothing_of_the_run_is_seen_inside(seen: dict[str, Any], place: Path) -> None:
    assert seen["found"] == ["/run/osbuild/lib/osbuild_pika/inside"]  # as it should be
    assert seen["reached"] == []
    device, run = on_disk((place / "runs" / RUN).resolve())
    around = [at for at, root in seen["mounts"] if at == device and Path(run).is_relative_to(root)]
    assert around == []
    assert sorted(seen["dev"]) == sorted([*sandboxes.NODES, "tty", "shm", NODE])


def test_nothing_of_the_host_is_told(seen: dict[str, Any], place: Path) -> None:
    assert seen["reply"]["path"] == f"/dev/{NODE}"
    told = json.dumps([seen["reply"], seen["complaints"], seen["environment"], seen["descriptors"]])
    assert str(place) not in told
    assert {backtrace for _, backtrace in seen["complaints"]} == {""}


def test_there_is_no_network(seen: dict[str, Any]) -> None:
    assert seen["interfaces"] == ["lo"]
    assert seen["routes"] == []


def test_the_sandbox_is_that_of_upstream(seen: dict[str, Any]) -> None:
    environment = {name: text for name, text in seen["environment"].items() if name != "PWD"}
    assert environment == sandboxes.ENVIRONMENT
    kept = sum(1 << number for number in sandboxes.CAPABILITIES.values())
    assert int(seen["capabilities"], 16) & ~kept == 0
