"""`osbuild-pika plan` says what the next build does, and the build does it."""

import json
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import Place, manifest, named, sh
from click.testing import CliRunner, Result

from osbuild_pika.cli.verbs import osbuild_pika

STAGES = [sh("echo 1 > one"), {"type": "org.osbuild-pika.demo"}, sh("echo 3 > three")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    builds.needs_root()
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    return Place(tmp_path)


def call(place: Place, what: dict[str, Any], *arguments: str) -> Result:
    path = place.path / "test.json"
    path.write_text(json.dumps(what))
    options = ["--store", str(place.path / "store"), "--libdir", str(place.modules)]
    return CliRunner().invoke(osbuild_pika, ["plan", str(path), *options, *arguments])


def stages(done: Result) -> list[tuple[bool, str]]:
    (pipeline,) = json.loads(done.stdout)["pipelines"]
    return [(stage["is_cached"], stage["why"]) for stage in pipeline["stages"]]


def test_a_plan_is_what_the_next_build_does(place: Place) -> None:
    what = manifest(*STAGES)
    done = call(place, what, "--format", "json")
    assert stages(done) == [(False, "not built before")] * 3
    assert "nothing counts as cached" in done.stderr
    assert not (place.path / "store").exists()
    place.build(what)
    assert stages(call(place, what, "--format", "json")) == [(True, "")] * 3
    with open(place.modules / "stages/org.test.sh", "a") as file:
        file.write("\n")
    code = "the code of org.test.sh"
    below = "the stage below"
    assert stages(call(place, what, "--format", "json")) == [
        (False, f"{code} changed"),
        (False, f"{below} changed"),
        (False, f"{code}, {below} changed"),
    ]
    _, records = place.build(what)
    assert len(named(records, "stage.finished")) == 3
    (plan,) = [json.loads(path.read_text()) for path in place.path.glob("runs/test.*/plan.json")]
    assert plan["pipelines"][0]["stages"][0]["why"] == f"{code} changed"


def test_a_table_says_what_runs(place: Place) -> None:
    place.build(manifest(*STAGES))
    lines = call(place, manifest(*STAGES[:2], sh("echo 4 > three"))).stdout.splitlines()
    assert lines[0].split() == ["PIPELINE", "STAGE", "STATE", "ID", "WHY"]
    assert [line.split()[2] for line in lines[1:4]] == ["cached", "cached", "to"]
    assert lines[3].endswith("the option script changed")
    assert lines[4] == "1 of 3 stages to run"


@pytest.mark.parametrize("stage", ["org.osbuild-pika.demo", "tree/org.osbuild-pika.demo"])
def test_one_stage_is_explained(stage: str, place: Place) -> None:
    done = call(place, manifest(*STAGES), "--why", stage)
    assert done.stdout.startswith("tree/org.osbuild-pika.demo: to run: not built before\nid  ")
    assert "build root packages of the host" in done.stdout


def test_a_stage_that_is_not_there_is_bad_input(place: Place) -> None:
    done = call(place, manifest(*STAGES), "--why", "org.osbuild.nope")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there are: org.osbuild-pika.demo, org.test.sh" in done.stderr


def test_an_export_that_is_not_there_is_bad_input(place: Place) -> None:
    done = call(place, manifest(*STAGES), "-x", "nope")
    assert (done.exit_code, done.stdout) == (2, "")


def test_the_manifest_is_printed(place: Place) -> None:
    what = manifest(*STAGES)
    assert json.loads(call(place, what, "--manifest").stdout) == what
