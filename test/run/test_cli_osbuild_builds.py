"""`osbuild-pika osbuild` builds, and prints what upstream osbuild prints."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import ROOT, Place, manifest, sh

from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard

NOOP = {"version": "2", "pipelines": [{"name": "image", "stages": [{"type": "org.osbuild.noop"}]}]}
NOOP_ID = "beda46704765a47e6d4f44aff22168ae36866c9c0e6e11552b775b77776b2969"
PIPELINES = f"\nPipelines\n  image:    \t{NOOP_ID}\n\nCheckpoints\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    builds.needs_root()
    return Place(tmp_path)


def call(
    place: Place, what: Any, *arguments: str, **more: Any
) -> "subprocess.CompletedProcess[str]":
    path = place.path / "manifest.json"
    path.write_text(json.dumps(what))
    code = "from osbuild_pika.cli import main; main()"
    command = [sys.executable, "-c", code, "osbuild", "--libdir", str(place.modules), *arguments]
    runs = {"PYTHONPATH": str(ROOT), "OSBUILD_PIKA_RUNS": str(place.path / "runs")}
    return subprocess.run(
        [*command, "manifest.json"],
        cwd=place.path,
        env={**os.environ, **runs},
        capture_output=True,
        text=True,
        check=False,
        timeout=builds.TIMEOUT_S,
        **more,
    )


def export(place: Place, what: Any, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return call(place, what, "--export", "tree", "--output-directory", "out", *arguments)


def test_without_an_export_nothing_is_built(place: Place) -> None:
    done = call(place, NOOP)
    start = "starting manifest.jsonmanifest manifest.json finished successfully\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, start + PIPELINES, "")
    done = call(place, NOOP, "--json")
    empty = {"type": "result", "success": True, "metadata": {}, "sources": {"success": True}}
    assert (done.returncode, json.loads(done.stdout)) == (0, {**empty, "log": {}})
    assert call(place, NOOP, "--quiet").stdout == ""
    assert not (place.path / ".osbuild/layers").exists() or not os.listdir(
        place.path / ".osbuild/layers"
    )


def test_an_export_without_a_place_is_refused(place: Place) -> None:
    done = call(place, NOOP, "--export", "image")
    assert (done.returncode, done.stdout) == (1, "Need --output-directory for --export\n")


@pytest.mark.parametrize("name", ["Context", "NopeMonitor"])
def test_an_unknown_monitor_is_refused(name: str, place: Place) -> None:
    done = call(place, NOOP, "--monitor", name)
    assert (done.returncode, done.stdout) == (2, "")  # upstream: 1 and a traceback
    assert f"unknown monitor {name}" in done.stderr


def test_errors_are_told_as_upstream_does(place: Place) -> None:
    what = manifest({"type": "org.osbuild.truncate", "options": {"filename": "a"}})
    done = export(place, what)
    assert done.returncode == 2
    assert done.stdout == (
        "manifest.json has errors:\n\n"
        ".pipelines[0].stages[0].options:\n  'size' is a required property\n\n"
    )
    told = json.loads(export(place, what, "--json").stdout)
    assert told["errors"] == [
        {
            "message": "'size' is a required property",
            "path": ["pipelines", 0, "stages", 0, "options"],
        }
    ]


def test_an_export_replaces_what_was_there(place: Place) -> None:
    place.output.mkdir(parents=True)
    (place.output / "stale").write_text("")
    done = export(place, manifest(sh("echo hello | tee hello")), "--json", "--checkpoint", "tree")
    assert done.returncode == 0, done.stderr
    assert os.listdir(place.output) == ["hello"]
    result = json.loads(done.stdout)
    assert result["success"] is True
    (entry,) = result["log"]["tree"]
    assert (entry["type"], entry["output"]) == ("org.test.sh", "hello\n")
    again = json.loads(export(place, manifest(sh("echo hello | tee hello")), "--json").stdout)
    assert again == {**result, "log": {}}


def test_the_log_and_its_end(place: Place) -> None:
    what = manifest(sh("echo hello"))
    done = export(place, what, "--checkpoint", "t*")
    (pipeline,) = load(json.dumps(what).encode(), standard([place.modules])).pipelines
    assert done.stdout.startswith(f"starting manifest.jsonPipeline tree: {pipeline.id}\nBuild\n")
    assert "\nhello\n" in done.stdout
    line = f"  tree:     \t{pipeline.id}\n"
    assert done.stdout.endswith(f"\nPipelines\n{line}\nCheckpoints\n{line}")


def test_a_failed_build_exits_1(place: Place) -> None:
    what = manifest(sh("echo too bad; exit 3"))
    done = export(place, what)
    assert done.returncode == 1
    assert done.stdout.endswith("manifest manifest.json failed\nFailed\n")
    assert done.stderr.endswith("tree/org.test.sh: exited with status 3\n")
    told = json.loads(export(place, what, "--json").stdout)
    assert told["error"]["type"] == "org.osbuild.error.stage"
    assert told["error"]["details"]["stage"]["output"] == "too bad\n"
    assert export(place, manifest(sh("sleep 60")), "--stage-timeout", "1").returncode == 1


def test_a_monitor_on_its_own_descriptor(place: Place) -> None:
    reading, writing = os.pipe()
    arguments = ("--export", "image", "--output-directory", "out", "--monitor", "JSONSeqMonitor")
    done = call(place, NOOP, *arguments, "--monitor-fd", str(writing), pass_fds=(writing,))
    os.close(writing)
    with open(reading, "rb") as pipe:
        texts = [json.loads(each) for each in pipe.read().split(b"\x1e")[1:]]
    assert texts[0]["message"] == "starting manifest.json"
    assert texts[-1]["message"] == "manifest manifest.json finished successfully\n"
    assert (done.returncode, done.stdout) == (0, PIPELINES)


def test_a_monitors_descriptor_must_be_open(place: Place) -> None:
    done = call(place, NOOP, "--monitor-fd", "77")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--monitor-fd 77: Bad file descriptor" in done.stderr
