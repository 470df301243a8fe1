"""`osbuild-pika check` as a user sees it, and what all verbs have in common."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.errors import PikaError
from osbuild_pika.lifecycle import Journal, LifecycleError
from osbuild_pika.verify import Fault, verify

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from osbuild_pika.lifecycle import Journal
with Journal(sys.argv[1]) as journal:
    for _ in range(40):
        journal.append_many([("provisioning", str(n), None) for n in range(20)])
        journal.write_status("provisioning", "at work")
"""
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(osbuild_pika, [str(argument) for argument in arguments])


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Call the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=30
    )


def test_a_good_run_is_one_line_that_says_what_was_found(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append("starting", "up")
        journal.finish("completed", 0, "done")
    done = call("check", tmp_path)
    summary = "2 events, state completed, result completed (exit code 0)"
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"ok: {summary}\n", "")


def test_each_fault_is_one_line_and_the_exit_code_says_so(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\nworse\ntorn")
    done = call("check", tmp_path)
    starts = [line.split(" ")[0] for line in done.stdout.split("\n")]
    assert starts == ["events.jsonl:1:", "events.jsonl:2:", "events.jsonl:3:", ""]
    assert (done.exit_code, done.stderr) == (1, "")


def test_faults_are_one_object_in_json(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n")
    done = call("check", "--format", "json", tmp_path)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"], len(found["faults"])) == (1, False, 1)
    (tmp_path / "x.json").write_text("{}")
    done = call("check", "--format=json", tmp_path / "x.json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (2, False)


def test_a_hostile_name_does_no_harm(tmp_path: Path) -> None:
    place = tmp_path / "\x1b[31m\n::error::\u202e"
    place.mkdir()
    (place / "events.jsonl").write_bytes(b"bad\n")
    for done in (call("check", place), call("check", place / "gone"), call("watch", place / "a/b")):
        assert done.output.count("\n") == 1
        assert "\x1b" not in done.output
        assert "\u202e" not in done.output


def test_what_is_not_there_is_bad_input(tmp_path: Path) -> None:
    done = call("check", tmp_path / "gone")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"osbuild-pika: error: {tmp_path / 'gone'}: ")
    assert done.stderr.count("\n") == 1


def test_a_file_is_taken_for_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call("check", tmp_path / "file")
    assert (done.exit_code, done.stderr) == (2, "")
    assert done.stdout.startswith(f"{tmp_path / 'file'}: .: not JSON: ")


@pytest.mark.parametrize(
    "arguments", [("check",), ("check", "a", "b\x1b]0;x\a"), ("chekc",), ("check", "--since", "x")]
)
def test_wrong_usage_is_bad_input_told_in_one_line(arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr[:-1].isprintable()
    assert "--help" in done.stderr


def test_no_verb_is_bad_input_and_shows_the_help() -> None:
    done = call()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "watch" in done.stderr


def test_every_verb_is_listed_and_has_help() -> None:
    listed = call("--help").stdout
    verbs = osbuild_pika.list_commands(click.Context(osbuild_pika))
    assert [verb for verb in verbs if verb not in listed] == []
    assert verbs == [
        *("build", "cancel", "check", "doctor", "gc", "init", "launch", "lifecycle", "lock"),
        *(
            "osbuild",
            "participant",
            "plan",
            "result",
            "runs",
            "service",
            "tasks",
            "upstream",
            "watch",
        ),
    ]
    assert {call(verb, "--help").exit_code for verb in verbs} == {0}


def test_the_version_is_told() -> None:
    done = call("--version")
    assert done.exit_code == 0
    assert done.stdout.startswith("osbuild-pika ")


@pytest.mark.parametrize("start", [["lifecycle"], ["--", "lifecycle"]])
def test_the_lifecycle_verb_passes_its_arguments_on(start: list[str], tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    arguments = ["--events-path", str(path), "--kind", "ready", "--message=--help"]
    done = run(*start, "event", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.stat().st_size
    assert run(*start, "event").returncode == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PikaError("it\nfailed"), 1),
        (LifecycleError("IOFailed", "it\nfailed"), 1),
        (LifecycleError("InvalidArgument", "it\nfailed"), 2),
    ],
)
def test_an_expected_failure_is_one_line(
    error: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("osbuild_pika.verify.verify", fail)
    done = call("check", tmp_path)
    assert (done.exit_code, done.output) == (code, "osbuild-pika: error: it failed\n")


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osbuild_pika.verify.verify", int)
    assert isinstance(call("check", tmp_path).exception, ValueError)


def test_a_check_of_a_run_loads_nothing_heavy(tmp_path: Path) -> None:
    Journal(tmp_path).append("starting", "up")
    heavy = "{'asyncio', 'jsonschema', 'rich', 'ssl'} & set(sys.modules)"
    tell = f"import atexit, sys; atexit.register(lambda: print({heavy}, file=sys.stderr))"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}; {COMMAND[-1]}", "check", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stderr == "set()\n"


def test_writers_at_work_are_no_fault(tmp_path: Path) -> None:
    Journal(tmp_path).append("starting", "up")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT) for _ in "12"]
    found: list[Fault] = []
    while any(writer.poll() is None for writer in writers):
        found += verify(tmp_path).faults
    assert [writer.returncode for writer in writers] == [0, 0]
    assert found == []


def test_a_text_that_the_locale_cannot_show_does_not_stop_it(tmp_path: Path) -> None:
    place = tmp_path / "\u017c\u00f3\u0142w"
    place.mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*COMMAND, "check", place], capture_output=True, env=environment, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"\\u017c\xf3\\u0142w: holds none" in done.stdout
