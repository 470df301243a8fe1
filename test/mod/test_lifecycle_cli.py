"""The guest helper's command line: a drop-in for the original's, anywhere and on any Python."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journals import call, complaint, document, events, helper, line, mask, messages, seqs, snapshot

from osbuild_pika import lifecycle

EVENT = ("event", "--events-path", "events.jsonl", "--kind", "ready", "--message", "m")
STATUS = ("status", "--status-path", "status.json", "--state", "ready", "--message", "m")
END = ("result", "--result-path", "result.json", "--status", "failed", "--message", "m")
RESULT = (*END, "--exit-code", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def well(*arguments: str | bytes | Path) -> bytes:
    """Call the helper, which must end well and say nothing on stderr. Returns what it printed."""
    done = call(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


# --- a drop-in ------------------------------------------------------------------------------------


def test_the_arguments_of_the_original_write_what_it_wrote(tmp_path: Path) -> None:
    details = ("--details-json", '{"b": [1.50, null], "a": "é"}')
    for arguments in ((*EVENT, "--seq-path", "seq"), STATUS, RESULT):
        done = helper(*arguments, *details)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert {name: mask(data) for name, data in snapshot(tmp_path).items()} == {
        "seq": "00000000000000000001\n",
        "events.jsonl": (
            '{"schema_version": 1, "kind": "ready", "timestamp": "<time>", "message": "m", '
            '"boot_id": "<boot>", "details": {"b": [1.5, null], "a": "\\u00e9"}, "seq": 1}\n'
        ),
        "status.json": (
            '{\n  "schema_version": 1,\n  "state": "ready",\n  "updated_at": "<time>",\n'
            '  "message": "m",\n  "boot_id": "<boot>",\n  "details": {\n    "b": [\n'
            '      1.5,\n      null\n    ],\n    "a": "\\u00e9"\n  }\n}\n'
        ),
        "result.json": (
            '{\n  "schema_version": 1,\n  "status": "failed",\n  "exit_code": 1,\n'
            '  "finished_at": "<time>",\n  "message": "m",\n  "details": {\n    "b": [\n'
            '      1.5,\n      null\n    ],\n    "a": "\\u00e9"\n  }\n}\n'
        ),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "event",
            "--events",
            "e",
            "--seq",
            "q",
            "--kind",
            "ready",
            "--mess",
            "m",
            "--details",
            "1",
        ),
        ("event", "--e", "e", "--s", "q", "--k", "ready", "--m", "m", "--d", "1"),
        ("event", "--e=e", "--s=q", "--k=ready", "--m=m", "--d=1"),
        ("status", "--statu", "e", "--state", "ready", "--m", "m", "--d", "1"),
        ("result", "--r", "e", "--st", "failed", "--e", "1", "--m", "m", "--d", "1"),
        ("result", "--r", "e", "--s", "failed", "--e", "-1", "--m", "m", "--d", "1"),
        ("result", "--message", "m", "--exit-code=7", "--status", "failed", "--result-path=e"),
        ("event", "--kind", "ready", "--message", "m", "--message", "m", "--events-path", "e"),
    ],
)
def test_every_abbreviation_that_the_original_took_is_taken(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    well(*arguments)
    assert b'"message": "m"' in (tmp_path / "e").read_bytes()


@pytest.mark.parametrize("message", ["-x y", "-5", "- -", "--mode 0600", ""])
def test_a_message_may_begin_as_an_option_does_where_the_original_took_it(message: str) -> None:
    well(*EVENT[:-1], message, "--strict")
    assert messages(Path())[0] == message


@pytest.mark.parametrize(
    "message", ["", "two\nlines\r\n", "\u2028\x85", "\U0001f600 é", "'\"\\$(x)`", "x" * 16384]
)
def test_any_text_may_be_a_message(message: str, tmp_path: Path) -> None:
    well(*EVENT, f"--message={message}")
    assert messages(tmp_path) == [message]
    assert (tmp_path / "events.jsonl").read_bytes().isascii()


def test_a_plain_argumentstakes_any_order_as_the_original_did(tmp_path: Path) -> None:
    for kind in ("completed", "requested", "destroyed", "ready"):
        well(*EVENT, "--kind", kind)
        well(*STATUS, "--state", kind)
    for code in ("1", "2"):
        well(*RESULT, "--exit-code", code)
    assert seqs(tmp_path) == [1, 2, 3, 4]
    assert document(tmp_path, "result")["exit_code"] == 2


@pytest.mark.parametrize("arguments", [("-h",), ("--help",), ("event", "-h"), ("result", "--help")])
def test_help_is_printed(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert well(*arguments).startswith(b"usage: pika-cloud-lifecycle")


def test_recover_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + line(1) + b"torn")
    said = well("recover", "--events-path", "events.jsonl")
    assert said.count(b"\n") == 1
    assert b"2" in said
    assert seqs(tmp_path) == [1]


# --- paths and modes ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["e", "./e", "a/b/e", "a b/c\nd/e", "-/e", b"\xff/e", "a//b/../e"])
def test_a_path_may_be_anywhere_and_its_directories_are_made(
    path: str | bytes, tmp_path: Path
) -> None:
    well(*EVENT, b"--events-path=" + os.fsencode(path))
    found = tmp_path / os.fsdecode(path)
    assert len(events(found.parent, "e")) == 1
    assert (found.parent / "e.seq").read_bytes() == b"00000000000000000001\n"


@pytest.mark.parametrize(
    ("option", "mode"), [((), 0o644), (("--mode", "0600"), 0o600), (("--mode", "640"), 0o640)]
)
def test_files_have_the_mode_asked_for_whatever_the_umask(
    option: tuple[str, ...], mode: int, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    for verb in (EVENT, STATUS, RESULT):
        well(*verb, *option)
    os.umask(before)
    names = ("events.jsonl", "events.jsonl.seq", "status.json", "result.json")
    modes = {name: (tmp_path / name).stat().st_mode & 0o7777 for name in names}
    assert modes == dict.fromkeys(names, mode)


# --- anywhere -------------------------------------------------------------------------------------


def test_it_is_osbuild_pika_lifecycle_too(tmp_path: Path) -> None:
    root = Path(lifecycle.__file__).parents[1]
    script = f"import sys; sys.path.insert(0, {str(root)!r})"
    command = [sys.executable, "-I", "-c", f"{script}; from osbuild_pika.cli import main; main()"]
    good = subprocess.run([*command, "lifecycle", *EVENT], check=False)
    assert good.returncode == 0
    assert seqs(tmp_path) == [1]
    bad = [*command, "lifecycle", *EVENT, "--details-json", "NaN"]
    done = subprocess.run(bad, check=False, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"osbuild-pika lifecycle: InvalidArgument: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("python", [sys.executable, "python3.9"])
@pytest.mark.parametrize("options", [(), ("-I", "-S")])
def test_it_runs_alone_without_an_environment(
    options: tuple[str, ...], python: str, tmp_path: Path
) -> None:
    interpreter = shutil.which(python)
    runs = interpreter and subprocess.run([interpreter, "-c", ""], check=False).returncode == 0
    if not interpreter or not runs:
        pytest.skip(f"{python} is not installed")
    copy = shutil.copy(lifecycle.__file__, tmp_path / "helper")
    run = tmp_path / "run"
    command = ["env", "-i", interpreter, *options, copy, *EVENT]
    command += ["--events-path", str(run / "events.jsonl"), "--message=é\U0001f600"]
    read_only = "/proc"  # even for root
    done = subprocess.run(command, cwd=read_only, check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert messages(run) == ["é\U0001f600"]
    bad = subprocess.run([*command, b"--message=\xff"], cwd=read_only, capture_output=True)
    assert bad.returncode == 2
    assert complaint(bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper", "run"]


# --- limits and signals ---------------------------------------------------------------------------


def test_a_limit_on_the_size_of_files_tears_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(line(1) * 10)
    (tmp_path / "events.jsonl.seq").write_bytes(b"00000000000000000001\n")
    before = snapshot(tmp_path)
    size = len(before["events.jsonl"]) + 50

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = helper(*EVENT, preexec_fn=limit)
    assert done.returncode == 1
    assert "NoSpace" in complaint(done)
    assert snapshot(tmp_path) == before
    assert helper(*STATUS, "--message", "x" * size, preexec_fn=limit).returncode == 1
    assert snapshot(tmp_path) == before
    well(*EVENT)
    assert seqs(tmp_path)[-1] == 2


def test_an_interrupted_argumentsends_without_a_traceback(tmp_path: Path) -> None:
    seq = os.open(tmp_path / "events.jsonl.seq", os.O_RDWR | os.O_CREAT)
    fcntl.flock(seq, fcntl.LOCK_EX)
    command = [sys.executable, "-I", "-S", lifecycle.__file__, *EVENT]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE)
    tasks = Path(f"/proc/{waiting.pid}/task")
    deadline = time.monotonic() + 10
    while len(list(tasks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # until a thread of it queues for the lock
    time.sleep(0.05)
    waiting.send_signal(signal.SIGINT)
    said = waiting.communicate(timeout=10)[1]
    assert (waiting.returncode, said) == (130, b"")
    os.close(seq)
    well(*EVENT)
    assert seqs(tmp_path) == [1]
