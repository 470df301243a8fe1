"""Stages in a real sandbox speak to the real service, and its files hold what they told."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import datadir, host, lifecycle
from osbuild_pika.devices import Device, DeviceManager

PACKAGE = Path(lifecycle.__file__).parent
ENGINE_ENVIRONMENT = ("PATH", "/usr/sbin:/usr/bin", "LC_CTYPE", "C.UTF-8")
SHELL = """#!/bin/sh
report() { python3 -m osbuild_pika.inside.report "$@"; }
set -e
report event "making the file" --name disk.begun
echo content > /run/osbuild/tree/disk.img
report progress 1 2 --unit steps
report artifact disk.img --details-json '{"format": "raw"}'
report result completed "the disk is made"
"""


class Build:
    """What an engine does for one stage: the device outside, bubblewrap around the stage."""

    def __init__(self, place: Path, manager: host.ServiceManager | None) -> None:
        self.place, self.manager = place, manager
        self.runs = place / "runs"
        for name in ("dev", "tree", "lib", "bin", "api"):
            (place / name).mkdir()
        library = place / "lib/osbuild_pika"
        shutil.copytree(PACKAGE / "inside", library / "inside")
        for name in ("__init__.py", "wire.py", "lifecycle.py"):
            shutil.copy(PACKAGE / name, library)

    def _devices(self) -> dict[str, Any]:
        if self.manager is None:
            return {}
        name = "org.osbuild-pika.lifecycle"
        executable = str(datadir.data_folder("devices") / name)
        device = Device("lifecycle", name, {"run": "web", "final": True}, None)
        opener = DeviceManager(self.manager, str(self.place / "dev"), str(self.place / "tree"))
        return {"lifecycle": opener.argument(device, opener.open(device, executable))}

    def run(self, stage: Path, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        devices = self._devices()
        given = {"tree": "/run/osbuild/tree", "options": options, "devices": devices}
        (self.place / "api/arguments").write_text(json.dumps(given))
        shutil.copy(stage, self.place / "bin/stage")
        pairs = [("dev", "/dev"), ("tree", "/run/osbuild/tree")]
        read_only = [(name, f"/run/osbuild/{name}") for name in ("lib", "bin", "api")]
        command = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--clearenv"]
        command += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--tmpfs", "/run"]
        for link in ("bin", "lib", "lib64", "sbin"):
            command += ["--symlink", f"usr/{link}", f"/{link}"]
        for name, target in pairs:
            command += ["--dev-bind", str(self.place / name), target]
        for name, target in read_only:
            command += ["--ro-bind", str(self.place / name), target]
        command += ["--setenv", "PYTHONPATH", "/run/osbuild/lib"]
        command += ["--setenv", *ENGINE_ENVIRONMENT[:2], "--setenv", *ENGINE_ENVIRONMENT[2:]]
        return subprocess.run(
            [*command, "--", "/run/osbuild/bin/stage"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def read(self) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """((name, message) of the events of the stage, result.json) of the only run."""
        (run,) = (path for path in self.runs.iterdir() if (path / "events.jsonl").exists())
        lines = (run / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        named = [(each["details"]["event"], each["message"]) for each in events]
        result = json.loads((run / "result.json").read_text())
        return [event for event in named if not event[0].startswith("build.")], result


@pytest.fixture(name="build")
def fixture_build(tmp_path: Path) -> Iterator[Build]:
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "true"]
    if not shutil.which("bwrap") or subprocess.run(probe, check=False).returncode:
        pytest.skip("bubblewrap does not work here")
    environment = {**os.environ, "OSBUILD_PIKA_RUNS": str(tmp_path / "runs")}
    with host.ServiceManager(environment=environment) as manager:
        yield Build(tmp_path, manager)


DEMO = datadir.data_folder("stages") / "org.osbuild-pika.demo"


def test_what_a_stage_tells_is_in_the_files(build: Build) -> None:
    done = build.run(DEMO, {"steps": 3})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert build.manager is not None
    build.manager.stop()
    told, result = build.read()
    assert told == [
        ("stage.started", "the stage started"),
        ("demo.begun", "writing 3 files"),
        ("artifact", "demo-1"),
        ("stage.progress", "1 of 3 files"),
        ("artifact", "demo-2"),
        ("stage.progress", "2 of 3 files"),
        ("artifact", "demo-3"),
        ("stage.progress", "3 of 3 files"),
        ("stage.finished", "wrote 3 files"),
    ]
    assert (result["status"], result["exit_code"]) == ("completed", 0)


def test_a_failed_stage_is_the_runs_result(build: Build) -> None:
    done = build.run(DEMO, {"steps": 3, "fail": "as was asked"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "osbuild-pika: stage: as was asked\n"
    assert build.manager is not None
    build.manager.stop()
    told, result = build.read()
    assert told[-1] == ("stage.failed", "as was asked")
    assert (result["status"], result["exit_code"]) == ("failed", 1)


def test_a_shell_stage_reports_too(build: Build) -> None:
    script = build.place / "shell"
    script.write_text(SHELL)
    script.chmod(0o755)
    done = build.run(script, {})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert build.manager is not None
    build.manager.stop()
    assert build.read()[0] == [
        ("stage.started", "the stage started"),
        ("disk.begun", "making the file"),
        ("stage.progress", "1 of 2 steps"),
        ("artifact", "disk.img"),
        ("stage.finished", "the disk is made"),
    ]


def test_without_the_device_a_sandbox_is_told_once(build: Build) -> None:
    script = build.place / "shell"
    script.write_text(SHELL)
    script.chmod(0o755)
    build.manager = None
    done = build.run(script, {})
    assert done.returncode == 0
    assert done.stderr == (
        "osbuild-pika: this stage has no lifecycle device: what it reports goes nowhere\n"
    )
