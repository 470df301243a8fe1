"""The guest helper's command line with bad input: one line, its exit code, nothing changed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journals import UNSYNCED, call, complaint, helper, line, seqs, snapshot

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal

EVENT = ("event", "--events-path", "events.jsonl", "--kind", "ready", "--message", "m")
STATUS = ("status", "--status-path", "status.json", "--state", "ready", "--message", "m")
RESULT = ("result", "--result-path", "result.json", "--status", "failed", "--message", "m")
CODE = (*RESULT, "--exit-code")
RECOVER = ("recover", "--events-path", "events.jsonl")
VERBS = {"event": EVENT, "status": STATUS, "result": (*CODE, "1")}
PATHS = {"event": "events.jsonl", "status": "status.json", "result": "result.json"}


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, in which is an event and a status."""
    directory = tmp_path / "run"
    with Journal(directory, system=UNSYNCED) as journal:
        journal.append("ready", "m")
        journal.write_status("ready", "m")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, whose name is odd and in which is nothing."""
    directory = tmp_path / "a\nb c"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def details(text: str) -> tuple[str, ...]:
    return (*EVENT, "--details-json", text)


BAD_ARGUMENTS: dict[str, tuple[str | bytes, ...]] = {
    "no verb": (),
    "unknown verb": ("x\ny",),
    "unknown kind": (*EVENT, "--kind", "redy"),
    "unknown state": (*STATUS, "--state", "up\nand running"),
    "unknown status": (*CODE, "1", "--status", "ready"),
    "no path": ("status", "--state", "ready", "--message", "m"),
    "no message": ("status", "--state", "ready", "--status-path", "status.json"),
    "no exit code": RESULT,
    "no value": (*EVENT, "--message"),
    "an option too many": (*EVENT, "--a\nb"),
    "an argument too many": (*EVENT, "a\nb"),
    "an argument that is no text": (*EVENT, b"\xff\x1b[2J"),
    "details: not JSON": details("{"),
    "details: empty": details(""),
    "details: NaN": details("NaN"),
    "details: 1e400": details('{"a": 1e400}'),
    "details: a lone surrogate": details(r'"\ud800"'),
    "details: depth 65": details("[" * 65 + "]" * 65),
    "details: depth 40,000": details("[" * 40_000),
    "details: a key twice": details('{"a": 1, "a": 2}'),
    "details: 2^64": details("18446744073709551616"),
    "details: 10,000 digits": details("9" * 10_000),
    "details: 65 KiB": details(f'"{"x" * 65536}"'),
    "details: no UTF-8": (*EVENT, "--details-json", b'"\xff"'),
    "message: no UTF-8": (*EVENT, b"--message=\xff"),
    "message: 17 KiB": (*STATUS, "--message", "x" * 17 * 1024),
    "event: over 120 KiB": (
        *EVENT,
        "--message",
        "\1" * 16384,
        "--details-json",
        f'"{"x" * 40_000}"',
    ),
    "exit code 2^40": (*CODE, str(2**40)),
    "exit code -2^31 - 1": (*CODE, str(-(2**31) - 1)),
    "exit code a word": (*CODE, "seven"),
    "exit code 10,000 digits": (*CODE, "7" * 10_000),
    "completed with 7": (*CODE, "7", "--status", "completed"),
    "failed with 0": (*CODE, "0"),
    "mode rw": (*EVENT, "--mode", "rw"),
    "mode 01000": (*STATUS, "--mode", "01000"),
    "mode -1": (*STATUS, "--mode", "-1"),
    "mode empty": (*EVENT, "--mode", ""),
    "strict: a status that goes back": (*STATUS, "--strict", "--state", "booted"),
    "strict: an event that goes back": (*EVENT, "--strict", "--kind", "requested"),
    "status path of a directory": (*STATUS, "--status-path", "new/"),
    "events path of a directory": (*EVENT, "--events-path", "new/"),
    "events path empty": (*EVENT, "--events-path", ""),
    "events path empty, seq path not": (*EVENT, "--events-path", "", "--seq-path", "q"),
    "status path empty": (*STATUS, "--status-path", ""),
    "log and sequence file are one": (*EVENT, "--seq-path", "./events.jsonl"),
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_a_bad_argument_changes_nothing(arguments: tuple[str | bytes, ...], run: Path) -> None:
    before = snapshot(run)
    done = call(*arguments)
    assert done.returncode == 2, done
    assert complaint(done)
    assert snapshot(run) == before
    assert call(*EVENT).returncode == 0
    assert seqs(run) == [1, 2]


@pytest.mark.parametrize(
    "arguments", [(*EVENT, b"\xff\n"), (*EVENT, b"--message=\xff"), details("NaN")]
)
def test_a_bad_argument_of_a_real_process(arguments: tuple[str | bytes, ...], run: Path) -> None:
    before = snapshot(run)
    done = helper(*arguments)
    assert done.returncode == 2, done
    assert complaint(done)
    assert snapshot(run) == before


def test_a_second_different_result_is_refused_if_order_matters(run: Path) -> None:
    assert call(*CODE, "1", "--strict").returncode == 0
    before = snapshot(run)
    for refused in ((*CODE, "2"), (*CODE, "1", "--message", "n"), EVENT):
        done = call(*refused, "--strict")
        assert done.returncode == 2
        assert "AlreadyFinished" in complaint(done)
        assert snapshot(run) == before
    assert call(*CODE, "1", "--strict").returncode == 0


def test_a_strict_end_may_be_written_record_by_record(run: Path) -> None:
    steps = (
        (*EVENT, "--kind", "failed"),
        (*CODE, "1"),
        (*STATUS, "--state", "failed"),
        (*EVENT, "--kind", "stopped"),
        (*STATUS, "--state", "stopped"),
    )
    done = [call(*step, "--strict") for step in steps]
    assert [(step.returncode, step.stderr) for step in done] == [(0, b"")] * len(steps)


# --- files that are in the way --------------------------------------------------------------------


def make_link(path: Path) -> None:
    (path.parent / "target").write_bytes(line(7))
    path.symlink_to("target")


def make_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


OBSTACLES = [Path.mkdir, make_link, make_dangling_link, make_device, os.mkfifo]


@pytest.mark.parametrize("make", OBSTACLES)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_regular_file_is_refused(
    verb: str, make: Callable[[Path], None], empty: Path
) -> None:
    make(empty / PATHS[verb])
    before = snapshot(empty)
    done = call(*VERBS[verb])
    assert done.returncode == 1
    assert PATHS[verb] in complaint(done)
    assert snapshot(empty) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_device_is_left_alone(verb: str, empty: Path) -> None:
    done = call(*VERBS[verb], f"--{PATHS[verb].split('.')[0]}-path", "/dev/null")
    assert done.returncode == 1
    assert "/dev/null" in complaint(done)
    assert not snapshot(empty)


OBSTRUCTED: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "sequence file a directory": ("events.jsonl.seq", Path.mkdir, EVENT),
    "sequence file a link": ("events.jsonl.seq", make_link, EVENT),
    "sequence file a pipe": ("events.jsonl.seq", os.mkfifo, EVENT),
    "temporary file a directory": (".status.json.tmp", Path.mkdir, STATUS),
    "temporary file a link": (".result.json.tmp", make_link, (*CODE, "1")),
    "parent a file": ("f", Path.touch, (*EVENT, "--events-path", "f/e")),
    "parent a dangling link": ("f", make_dangling_link, (*STATUS, "--status-path", "f/e")),
    "name too long": ("f", Path.touch, (*STATUS, "--status-path", "x" * 256)),
    "name too long for its temporary": ("f", Path.touch, (*STATUS, "--status-path", "x" * 254)),
    "nothing to recover": ("f", Path.touch, RECOVER),
    "nothing to recover in no directory": ("f", Path.touch, (*RECOVER[:2], "no/events.jsonl")),
    "a log that is corrupt": (
        "events.jsonl",
        lambda path: path.write_bytes(line(1) + b"bad\n" + line(2)),
        EVENT,
    ),
    "a log of the last seq": (
        "events.jsonl",
        lambda path: path.write_bytes(line(2**64 - 1)),
        EVENT,
    ),
}


@pytest.mark.parametrize(("name", "make", "arguments"), OBSTRUCTED.values(), ids=OBSTRUCTED.keys())
def test_what_is_in_the_way_is_left_alone(
    name: str, make: Callable[[Path], object], arguments: tuple[str, ...], empty: Path
) -> None:
    make(empty / name)
    before = snapshot(empty)
    done = call(*arguments)
    assert done.returncode == 1
    assert complaint(done)
    after = snapshot(empty)
    assert {**after, **before} == after, "something was changed"
    assert set(after) - set(before) <= {"events.jsonl.seq"}, "something was made"


def test_a_path_with_a_newline_is_named_in_one_line(tmp_path: Path) -> None:
    directory = tmp_path / "a\nb\x1b[2J\udcff"
    directory.mkdir()
    (directory / "events.jsonl").write_bytes(b"bad\n" + line(1))
    done = helper(*EVENT, "--events-path", directory / "events.jsonl")
    assert done.returncode == 1
    assert "events.jsonl" in complaint(done)


TAILS = {"torn": b'{"schema_ver', "NULs": b"\0" * 700, "NUL line": b"\0" * 700 + b"\n"}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
@pytest.mark.parametrize("seq", [b"", b"\0" * 21, b"-5\n", b"+0000000000000000002\n", b"one\n"])
def test_what_a_crash_left_is_no_error(seq: bytes, tail: bytes, empty: Path) -> None:
    (empty / "events.jsonl").write_bytes(line(1) + tail)
    (empty / "events.jsonl.seq").write_bytes(seq)
    assert call(*EVENT).returncode == 0
    assert seqs(empty) == [1, 2]
    assert (empty / "events.jsonl.seq").read_bytes() == b"00000000000000000002\n"


# --- a hung lock holder ---------------------------------------------------------------------------

Waiting = tuple[Path, int, "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    """A call that waits, while the other tests run, for a lock that it will not get."""
    directory = tmp_path_factory.mktemp("hung")
    seq = os.open(directory / "events.jsonl.seq", os.O_RDWR | os.O_CREAT)
    fcntl.flock(seq, fcntl.LOCK_EX)
    command = [sys.executable, "-I", "-S", lifecycle.__file__, *EVENT]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=directory, stdout=pipe, stderr=pipe)
    yield directory, seq, process
    process.kill()
    process.communicate()
    os.close(seq)


def test_a_hung_lock_holder_is_given_five_seconds(waiting: Waiting) -> None:
    directory, seq, process = waiting
    said = process.communicate(timeout=30)
    done = subprocess.CompletedProcess(process.args, process.returncode, *said)
    assert done.returncode == 1
    assert "LockTimeout" in complaint(done)
    assert "5 s" in complaint(done)
    assert list(snapshot(directory)) == ["events.jsonl.seq"]
    fcntl.flock(seq, fcntl.LOCK_UN)
    assert helper(*EVENT, cwd=directory).returncode == 0
