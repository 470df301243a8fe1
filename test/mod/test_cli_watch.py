"""`osbuild-pika watch` as a user sees it, also while real writers are at work and die."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika import runs
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.cli.watch import json_event, plain_event, plain_result
from osbuild_pika.follow import Event
from osbuild_pika.lifecycle import Journal

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")
# Appends events in batches of three, and says which seqs it was promised.
WRITER = """
import sys
from osbuild_pika.lifecycle import Journal
with Journal(sys.argv[1]) as journal:
    for batch in range(int(sys.argv[2])):
        items = [("provisioning", f"{batch} \\u2028 {step}", None) for step in range(3)]
        first, last = journal.append_many(items)
        print(*range(first, last + 1), flush=True)
"""
LIMIT_S = 30


def event(**fields: Any) -> Event:
    raw: dict[str, Any] = {
        "schema_version": 1,
        "kind": "ready",
        "timestamp": "2026-03-25T20:01:02+01:00",
        "message": "up",
        "seq": 7,
        **fields,
    }
    text = (raw["kind"], raw["timestamp"], raw["message"])
    return Event(raw["seq"], *text, raw.get("boot_id"), raw.get("details"), raw)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(osbuild_pika, ["watch", *map(str, arguments)])


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts processes of ours that outlive neither the test nor LIMIT_S."""
    started: list[subprocess.Popen[str]] = []

    def kill() -> None:
        for process in started:
            process.kill()

    timer = threading.Timer(LIMIT_S, kill)
    timer.start()

    def popen(*command: str | Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(
            subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
        )
        return started[-1]

    yield popen
    timer.cancel()
    kill()
    for process in started:
        process.communicate()


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "20:01:02     7  ready         up"),
        ({"kind": "provisioning", "seq": 123456}, "20:01:02 123456  provisioning  up"),
        ({"timestamp": "not a date"}, "--:--:--     7  ready         up"),
        ({"message": ""}, "20:01:02     7  ready"),
        ({"message": "a\x1b[0m\nb"}, "20:01:02     7  ready         a\ufffd[0m b"),
        ({"details": {"event": "artifact"}}, "20:01:02     7  ready         up  [artifact]"),
        (
            {"details": {"event": "stage.progress", "done": 3, "total": 8, "unit": "steps"}},
            "20:01:02     7  ready         up  [stage.progress 3/8 steps]",
        ),
        ({"details": {"done": 1.5, "unit": "MiB"}}, "20:01:02     7  ready         up  [1.5 MiB]"),
        ({"details": {"done": True, "event": 3}}, "20:01:02     7  ready         up"),
        ({"details": {"event": "\n::error::"}}, "20:01:02     7  ready         up  [ ::error::]"),
        ({"details": "text"}, "20:01:02     7  ready         up"),
    ],
)
def test_an_event_is_one_aligned_line(fields: dict[str, Any], shown: str) -> None:
    assert plain_event(event(**fields)) == shown


@given(st.text(), st.text(), st.text())
def test_no_event_can_show_more_than_its_line(message: str, name: str, timestamp: str) -> None:
    shown = plain_event(event(message=message, timestamp=timestamp, details={"event": name}))
    assert len(shown) < 1250
    assert len(shown.encode().decode().splitlines()) == 1
    raw = json_event(event(message=message, details={"event": name}))
    assert raw.isascii()
    assert raw.isprintable()
    assert json.loads(raw)["message"] == message


@pytest.mark.parametrize(
    ("code", "shown"), [(137, "failed (exit code 137): a b"), (None, "failed: a b")]
)
def test_a_result_is_one_line(code: int | None, shown: str) -> None:
    fields = {"status": "failed", "exit_code": code, "message": "a\nb"}
    assert plain_result(fields) == f"result: {shown}"


def test_what_is_there_is_shown_in_both_formats(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append("starting", "up")
        journal.finish("failed", 3, "down")
    done = call("--no-follow", tmp_path)
    assert done.exit_code == 0
    *events, last, end = done.stdout.split("\n")
    assert [line.split()[1:4] for line in events] == [
        ["1", "starting", "up"],
        ["2", "failed", "down"],
    ]
    assert (last, end) == ("result: failed (exit code 3): down", "")
    done = call("--no-follow", "--format", "json", tmp_path)
    written = (tmp_path / "events.jsonl").read_text().rstrip("\n").split("\n")
    *lines, last, end = done.stdout.split("\n")
    assert lines == written
    assert json.loads(last) == json.loads((tmp_path / "result.json").read_bytes())
    assert call(tmp_path).stdout == call("--no-follow", tmp_path).stdout


@pytest.mark.parametrize(
    ("since", "seqs"),
    [("0", [1, 2, 3]), ("2", [3]), ("3", []), ("BOOT:1", [2, 3]), ("other:1", [1, 2, 3])],
)
def test_since_takes_a_seq_or_a_boot_and_a_seq(since: str, seqs: list[int], tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_many([("starting", str(n), None) for n in range(3)])
    boot = json.loads((tmp_path / "events.jsonl").read_bytes().split(b"\n")[0])["boot_id"]
    done = call("--no-follow", "--format=json", "--since", since.replace("BOOT", boot), tmp_path)
    assert [json.loads(line)["seq"] for line in done.stdout.split("\n")[:-1]] == seqs


@pytest.mark.parametrize("since", ["x", "-1", "", ":1", "a:", "\u0661", "1" * 21])
def test_a_wrong_since_is_bad_input(since: str, tmp_path: Path) -> None:
    done = call("--no-follow", f"--since={since}", tmp_path)
    assert done.exit_code == 2
    assert "is not [BOOT_ID:]SEQ" in done.stderr


def test_lines_that_are_no_events_are_counted_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\nworse\ntorn")
    done = call("--no-follow", tmp_path)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "osbuild-pika: lines that are no events: 2; see `osbuild-pika check`\n"


@pytest.mark.parametrize("name", ["events.jsonl", "result.json"])
def test_a_file_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    done = call("--no-follow", tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"osbuild-pika: error: {tmp_path / name}: is not a regular file\n"


@pytest.mark.parametrize(
    ("place", "options"),
    [("gone", ["--no-follow"]), ("gone/deeper", []), ("file", []), ("file", ["--no-follow"])],
)
def test_a_directory_that_cannot_come_is_bad_input(
    place: str, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = call(*options, tmp_path / place)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"osbuild-pika: error: {tmp_path / place}: ")
    assert done.stderr.count("\n") == 1


# --- while writers are at work -------------------------------------------------------------------


def test_everything_acknowledged_is_shown_while_writers_race_and_die(
    start: Any, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    watcher = start(*COMMAND, "watch", "--format=json", place)
    assert "waiting for" in watcher.stderr.readline()
    writers = [start(sys.executable, "-c", WRITER, place, "20") for _ in range(2)]
    victim = start(sys.executable, "-c", WRITER, place, "1000000")
    promised = [int(seq) for seq in victim.stdout.readline().split()]
    victim.kill()
    for writer in (victim, *writers):
        promised += [int(seq) for seq in writer.communicate(timeout=LIMIT_S)[0].split()]
    Journal(place).finish("completed", 0, "done")
    out, err = watcher.communicate(timeout=LIMIT_S)
    *shown, result = map(json.loads, out.rstrip("\n").split("\n"))
    seqs = [event["seq"] for event in shown]
    assert seqs == list(range(1, len(seqs) + 1))
    assert set(promised) <= set(seqs)
    assert (shown[-1]["kind"], result["status"]) == ("completed", "completed")
    assert (watcher.returncode, err) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly(
    number: signal.Signals, code: int, start: Any, tmp_path: Path
) -> None:
    Journal(tmp_path).append("starting", "up")
    watcher = start(*COMMAND, "watch", tmp_path)
    assert watcher.stdout.readline().endswith("up\n")
    watcher.send_signal(number)
    assert watcher.communicate(timeout=LIMIT_S) == ("", "")
    assert watcher.returncode == code


def test_a_reader_that_goes_away_ends_it_quietly(start: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("starting", "up")
    watcher = start(*COMMAND, "watch", tmp_path)
    assert watcher.stdout.readline().endswith("up\n")
    watcher.stdout.close()
    journal.finish("completed", 0, "done")
    assert watcher.wait(timeout=LIMIT_S) == 141
    assert watcher.stderr.read() == ""


def test_a_run_that_failed_was_watched_well(start: Any, tmp_path: Path) -> None:
    Journal(tmp_path).finish("failed", 137, "killed")
    watcher = start(*COMMAND, "watch", tmp_path)
    out, err = watcher.communicate(timeout=LIMIT_S)
    assert out.endswith("result: failed (exit code 137): killed\n")
    assert (watcher.returncode, err) == (0, "")


def test_a_run_that_nobody_drives_any_more_is_ended_first(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        engine = runs.engine_of(process.pid)
    run = runs.join(str(tmp_path), "web", engine)
    Journal(run.directory).append("provisioning", "unpacking")
    run.close()
    result = call(run.directory)
    assert "engine.lost" in result.output
    assert "result: failed (exit code 137)" in result.output
