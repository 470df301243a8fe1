"""`osbuild-pika osbuild --inspect` and `osbuild-pika check MANIFEST` as a user sees them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from manifests import DATA, write_modules

from osbuild_pika.cli.verbs import osbuild_pika

ROOT = Path(__file__).parents[2]
INVALID: dict[str, dict[str, Any]] = json.loads((DATA / "invalid.json").read_text())
NESTED = DATA / "ids/05-nested-build-runner-given"
# What upstream prints on stdout before it exits 1.
TOLD = {
    "cli-no-checkpoint": "No checkpoints matched provided patterns!\nFailed\n",
    "cli-unknown-export": "Export nope not found in ['image']\nFailed\n",
}


@pytest.fixture(scope="module")
def libdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_modules(tmp_path_factory.mktemp("modules") / "m")


def call(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(osbuild_pika, [str(each) for each in arguments], input=stdin)


def test_inspect_prints_upstreams_bytes(libdir: Path, tmp_path: Path) -> None:
    printed = (NESTED / "inspect.json").read_text()
    manifest = NESTED / "manifest.json"
    options = ("--inspect", "--libdir", tmp_path, "-l", libdir)
    done = call("osbuild", *options, manifest)
    assert (done.exit_code, done.stdout, done.stderr) == (0, printed, "")
    piped = call("osbuild", "--json", *options, "-", stdin=manifest.read_bytes())
    assert (piped.exit_code, piped.stdout) == (0, printed)


def test_a_refused_manifest_is_told_as_upstream_does(libdir: Path, tmp_path: Path) -> None:
    record = INVALID["several-errors"]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(record["manifest"]))
    done = call("osbuild", "--inspect", "--libdir", libdir, path)
    assert done.exit_code == record["exit_codes"]["inspect"]
    told = json.loads(done.stdout)
    assert {key: told[key] for key in ("type", "title", "success")} == {
        "type": "https://osbuild.org/validation-error",
        "title": "JSON Schema validation failed",
        "success": False,
    }
    assert sorted((error["path"] for error in told["errors"]), key=str) == record["paths"]
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in INVALID if name.startswith("cli-")])
def test_recorded_command_lines(name: str, libdir: Path, tmp_path: Path) -> None:
    record = INVALID[name]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(record["manifest"]))
    done = call("osbuild", *record["arguments"][:-1], "--libdir", libdir, path)
    assert done.exit_code == record["exit_codes"]["inspect"]
    assert done.stdout == record.get("inspect", TOLD.get(name, ""))


def test_a_manifest_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    assert INVALID["missing-file"]["exit_codes"]["inspect"] == 1  # a traceback upstream
    done = call("osbuild", "--inspect", tmp_path / "gone.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "gone.json: No such file" in done.stderr
    assert call("osbuild", "--inspect", tmp_path).exit_code == 2


def test_the_version_is_that_of_the_osbuild_we_follow() -> None:
    done = call("osbuild", "--version")
    assert (done.exit_code, done.stdout) == (0, "osbuild 191\n")


@pytest.mark.parametrize("arguments", [(), ("--inspect",), ("--inspect", "x", "y")])
def test_wrong_usage_is_bad_input(arguments: tuple[str, ...]) -> None:
    done = call("osbuild", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "osbuild" in done.stderr


def test_check_takes_a_good_manifest(libdir: Path) -> None:
    done = call("check", "--libdir", libdir, NESTED / "manifest.json")
    assert (done.exit_code, done.stdout) == (0, "ok: 5 pipelines, 6 stages, 0 sources\n")


def test_check_tells_each_fault_in_one_safe_line(libdir: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    pipelines = [{"name": "\x1b[2J"}, {"name": "a", "stages": [{"type": "x\n"}]}]
    path.write_text(json.dumps({"version": "2", "pipelines": pipelines}))
    done = call("check", "--libdir", libdir, path)
    assert done.exit_code == 2
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}: .pipelines[0].name: ")
    assert lines[1].startswith(f"{path}: .pipelines[1].stages[0]: could not find schema")
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("arguments", [["--help"], ["lifecycle", "--help"], ["check", "/gone"]])
def test_only_who_reads_a_manifest_waits_for_the_validator(arguments: list[str]) -> None:
    code = (
        "import atexit, sys; from osbuild_pika.cli import main;"
        "atexit.register(lambda: print('jsonschema' in sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "False"
