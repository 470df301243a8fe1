"""The demo stage does what its description says, and its schema refuses what it cannot do."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from peers import Peer, environment

from osbuild_pika.datadir import data_folder

DEMO = data_folder("stages") / "org.osbuild-pika.demo"
META = json.loads(DEMO.with_name(f"{DEMO.name}.meta.json").read_text())
RUN = (
    "import runpy, sys; from osbuild_pika.inside import stage;"
    "demo = runpy.run_path(sys.argv[1]); stage.run(demo['main'], 'arguments', 'api')"
)


def run(place: Path, peer: Peer, options: dict[str, Any]) -> int:
    tree = place / "tree"
    tree.mkdir()
    life = {"path": peer.path, "api": 1, "run": "web"}
    given = {"tree": str(tree), "options": options, "devices": {"lifecycle": life}}
    (place / "arguments").write_text(json.dumps(given))
    command = [sys.executable, "-c", RUN, str(DEMO)]
    return subprocess.run(command, cwd=place, env=environment(), check=False).returncode


@pytest.mark.parametrize(("options", "steps"), [({}, 5), ({"steps": 3, "seconds": 0.3}, 3)])
def test_it_writes_files_and_tells_of_each(
    options: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    with Peer(tmp_path / "device") as peer:
        assert run(tmp_path, peer, options) == 0
    names = [f"demo-{step}" for step in range(1, steps + 1)]
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == names
    assert [args["path"] for args in peer.named("artifact")] == names
    assert peer.named("progress")[-1] == {"done": steps, "total": steps, "unit": "files"}
    name, result = peer.calls[-1]
    assert (name, result["status"], result["message"]) == (
        "result",
        "completed",
        f"wrote {steps} files",
    )


def test_it_fails_at_the_middle_step(tmp_path: Path) -> None:
    with Peer(tmp_path / "device") as peer:
        assert run(tmp_path, peer, {"fail": "as was asked"}) == 1
    assert len(peer.named("artifact")) == 2
    assert peer.calls[-1] == (
        "result",
        {"status": "failed", "message": "as was asked", "exit_code": 1},
    )


def test_its_description_is_upstreams_form() -> None:
    assert set(META) == {"summary", "description", "schema_2"}
    assert all(isinstance(line, str) for line in META["description"])
    assert DEMO.read_bytes().startswith(b"#!/usr/bin/python3 -S\n")
    assert DEMO.stat().st_mode & 0o111
    assert "main" in runpy.run_path(str(DEMO))
    Draft4Validator.check_schema(META["schema_2"]["options"])


@pytest.mark.parametrize(
    ("options", "is_good"),
    [
        ({}, True),
        ({"steps": 1, "seconds": 0, "fail": "no"}, True),
        ({"steps": 0}, False),
        ({"steps": 1.5}, False),
        ({"steps": 10001}, False),
        ({"seconds": -1}, False),
        ({"fail": ""}, False),
        ({"fail": True}, False),
        ({"step": 1}, False),
    ],
)
def test_its_schema_takes_what_it_can_do(options: dict[str, Any], is_good: bool) -> None:
    assert Draft4Validator(META["schema_2"]["options"]).is_valid(options) is is_good
