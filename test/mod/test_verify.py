"""`verify` finds what is wrong with a run's artifacts, and nothing that is not."""

import fcntl
import json
import os
import shlex
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import verify as verifying
from osbuild_pika.errors import InputError
from osbuild_pika.lifecycle import MAX_DOCUMENT, Journal, encode_seq
from osbuild_pika.verify import Fault, snapshot, verify

TIME = "2026-03-25T20:00:00Z"


def line(seq: int, kind: str = "provisioning", boot: str = "a", **fields: Any) -> bytes:
    event = {"schema_version": 1, "kind": kind, "timestamp": TIME, "message": "m", "boot_id": boot}
    return json.dumps({**event, **fields, "seq": seq}).encode() + b"\n"


def lines(*seqs: int, boot: str = "a") -> bytes:
    return b"".join(line(seq, boot=boot) for seq in seqs)


def status(state: str) -> bytes:
    fields = {"schema_version": 1, "state": state, "updated_at": TIME, "message": "m"}
    return json.dumps(fields).encode()


def result(status: str, exit_code: int | None) -> bytes:
    fields = {"schema_version": 1, "status": status, "finished_at": TIME, "message": "m"}
    return json.dumps({**fields, "exit_code": exit_code}).encode()


def put(directory: Path, **files: bytes) -> None:
    names = {"events": "events.jsonl", "seq": "events.jsonl.seq"}
    for name, data in files.items():
        (directory / names.get(name, f"{name}.json")).write_bytes(data)


def texts(directory: Path) -> list[str]:
    return [str(fault) for fault in verify(directory).faults]


def recover(directory: Path) -> str:
    path = shlex.quote(str(directory / "events.jsonl"))
    return f"run `osbuild-pika lifecycle recover --events-path {path}`"


# --- what is good --------------------------------------------------------------------------------


def test_a_run_of_ours_has_no_faults_at_any_moment(tmp_path: Path) -> None:
    with Journal(tmp_path, strict=True) as journal:
        steps: list[Callable[[], object]] = [
            lambda: journal.write_status("requested", "accepted"),
            lambda: journal.append("requested", "accepted"),
            journal.reserve,
            lambda: journal.append_many([("provisioning", str(n), None) for n in range(9)]),
            lambda: journal.write_status("provisioning", "at work"),
            lambda: journal.finish("failed", 137, "killed"),
            lambda: journal.append("stopped", "by the host"),
            lambda: journal.write_status("stopped", "by the host"),
        ]
        for step in steps:
            step()
            assert texts(tmp_path) == []
    found = verify(tmp_path)
    assert found.summary() == "12 events, state stopped, result failed (exit code 137)"


@pytest.mark.parametrize(
    ("files", "summary"),
    [
        ({"events": b""}, "0 events"),
        ({"events": line(1)}, "1 event"),
        ({"events": lines(7, 8)}, "2 events, the first has seq 7"),
        ({"events": b"\n\n" + lines(0, 1), "seq": b"1\n"}, "2 events"),
        ({"events": lines(1, 2, 3) + lines(1, 2, boot="b"), "seq": b"2\n"}, "5 events"),
        ({"events": lines(1), "seq": b"5\n"}, "1 event"),
        ({"status": status("ready")}, "0 events, state ready"),
        ({"status": status("completed")}, "0 events, state completed"),
        ({"result": result("completed", None)}, "0 events, result completed"),
        (
            {"status": status("destroyed"), "result": result("failed", 3)},
            "0 events, state destroyed, result failed (exit code 3)",
        ),
        ({"events": line(1, "completed") + line(2, "stopped") + line(3, "destroyed")}, "3 events"),
        ({"events": line(1, "stopped") + line(2, "booted")}, "2 events"),
    ],
)
def test_what_older_helpers_write_is_no_fault(
    files: dict[str, bytes], summary: str, tmp_path: Path
) -> None:
    put(tmp_path, **files)
    found = verify(tmp_path)
    assert found.faults == ()
    assert found.summary() == summary


def test_a_large_log_of_many_events_is_good(tmp_path: Path) -> None:
    put(tmp_path, events=lines(*range(1, 5001)))
    assert verify(tmp_path).events == 5000


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"events": lines(1, 2) + b'{"sch'}, ["events.jsonl:3: torn: 5 bytes"]),
        ({"events": lines(1) + b"bad\n" + lines(2)}, ["events.jsonl:2: not a lifecycle event"]),
        ({"events": b"\n\n" + b"\0\0\n"}, ["events.jsonl:3: not a lifecycle event"]),
        ({"events": line(9)[:20] + line(1) + line(2)}, ["events.jsonl:1: not a lifecycle event"]),
        ({"seq": b"x", "events": line(1)}, ["events.jsonl.seq: holds no sequence number"]),
        ({"seq": b"", "events": line(1)}, ["events.jsonl.seq: holds no sequence number"]),
        ({"seq": encode_seq(1, True), "events": line(1)}, ["events.jsonl.seq: a writer died"]),
        ({"seq": b"1\n", "events": lines(1, 2)}, ["events.jsonl.seq: 1 is lower than the last"]),
        ({"status": b"{", "events": b""}, ["status.json: not a lifecycle status"]),
        ({"result": b"{", "events": b""}, ["result.json: not a lifecycle result"]),
        (
            {"result": result("completed", 0), "status": status("ready"), "events": line(1)},
            ["status.json: says ready, but the run is completed"],
        ),
        (
            {"result": result("completed", 0), "status": status("failed"), "events": line(1)},
            ["status.json: says failed, but the run is completed"],
        ),
        (
            {"events": line(1, "failed", details={"exit_code": 3}), "status": status("ready")},
            [
                "status.json: says ready, but the run is failed",
                "result.json: is missing, but a writer was about to end the run",
            ],
        ),
        (
            {"events": line(1, "failed", details={"exit_code": 3}), "result": result("failed", 3)},
            ["status.json: is missing, but a writer was about to end the run"],
        ),
    ],
)
def test_what_recover_mends_is_reported_with_the_command(
    files: dict[str, bytes], wanted: list[str], tmp_path: Path
) -> None:
    put(tmp_path, **files)
    found = texts(tmp_path)
    assert [text[: len(start)] for text, start in zip(found, wanted, strict=True)] == wanted
    assert all(text.endswith(recover(tmp_path)) for text in found)
    Journal(tmp_path).recover()
    assert texts(tmp_path) == []


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            {"events": lines(1, 2, 2, 3)},
            ["events.jsonl:3: seq 2 comes after seq 2: two events may share a seq"],
        ),
        (
            {"events": lines(1, 5, 3, 6)},
            [
                "events.jsonl:2: 3 events are missing between seq 1 and 5",
                "events.jsonl:3: seq 3 comes after seq 5: two events may share a seq",
            ],
        ),
        (
            {"events": lines(1, 2) + lines(4, boot="b")},
            ["events.jsonl:3: 1 event is missing between seq 2 and 4"],
        ),
        ({"result": result("completed", 3)}, ["result.json: contradicts itself: completed (exit"]),
        (
            {"result": result("failed", 0)},
            ["result.json: contradicts itself: failed (exit code 0)"],
        ),
        (
            {"events": line(1, "completed"), "result": result("failed", 3)},
            ["result.json: says failed (exit code 3), but the event of seq 1 says completed"],
        ),
        (
            {
                "events": line(1, "failed", details={"exit_code": 1}),
                "result": result("failed", 3),
                "status": status("failed"),
            },
            ["result.json: says failed (exit code 3), but the event of seq 1 says failed (ex"],
        ),
        (
            {"status": status("completed"), "result": result("failed", 3)},
            ["status.json: says completed, but the run is failed"],
        ),
        (
            {"status": status("failed"), "events": line(1, "completed")},
            ["status.json: says failed, but the run is completed"],
        ),
        (
            {"status": status("unreachable"), "events": line(1, "completed")},
            ["status.json: says unreachable, but the run is completed"],
        ),
        (
            {
                "events": line(1, "completed", details={"exit_code": 0}) + line(2, "ready"),
                "result": result("completed", 0),
                "status": status("completed"),
            },
            ["events.jsonl:2: ready comes after completed (seq 1)"],
        ),
        (
            {"events": line(1, "destroyed") + line(2, "stopped")},
            ["events.jsonl:2: stopped comes after destroyed (seq 1)"],
        ),
        ({"status": b"{"}, ["status.json: not a lifecycle status: Expecting property name"]),
    ],
)
def test_what_nobody_can_mend_is_reported(
    files: dict[str, bytes], wanted: list[str], tmp_path: Path
) -> None:
    put(tmp_path, **files)
    found = texts(tmp_path)
    assert [text[: len(start)] for text, start in zip(found, wanted, strict=True)] == wanted
    assert not any("recover" in text for text in found)


def test_an_empty_directory_is_a_fault(tmp_path: Path) -> None:
    put(tmp_path, seq=b"1\n")
    (text,) = texts(tmp_path)
    assert text.startswith(f"{tmp_path}: holds none of status.json, events.jsonl and result.json")


def test_what_is_no_directory_is_bad_input(tmp_path: Path) -> None:
    put(tmp_path, status=b"")
    with pytest.raises(InputError, match=r"status\.json: is not a directory"):
        verify(tmp_path / "status.json")
    with pytest.raises(InputError, match="gone: no such directory"):
        verify(tmp_path / "gone")


NAMES = ("status.json", "events.jsonl", "result.json", "events.jsonl.seq")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "pipe"),
        (os.mkdir, "directory"),
        (lambda path: os.symlink("/etc/passwd", path), "symbolic link"),
        (lambda path: os.mknod(path, stat.S_IFSOCK), "special file"),
    ],
)
def test_what_is_no_regular_file_is_a_fault_and_never_opened(
    make: Any, kind: str, name: str, tmp_path: Path
) -> None:
    put(tmp_path, events=lines(1), status=status("ready"))
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    assert texts(tmp_path) == [f"{name}: is a {kind}, not a regular file; remove it"]


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    put(tmp_path, events=b"bad\n" * 1000)
    found = texts(tmp_path)
    assert len(found) == 101
    assert found[-1] == "events.jsonl: and 900 faults more"


def test_a_log_that_is_too_long_is_said_to_be_checked_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "MAX_EVENTS", len(lines(1, 2)) + 5)
    monkeypatch.setitem(verifying._LIMITS, "events.jsonl", len(lines(1, 2)) + 5)
    put(tmp_path, events=lines(1, 2, 3), seq=b"3\n")
    found = verify(tmp_path)
    assert found.events == 2
    (fault,) = found.faults
    assert str(fault).startswith("events.jsonl:3: only the first ")


@pytest.mark.parametrize("name", ["status", "result"])
def test_a_document_that_is_too_long_is_a_fault(name: str, tmp_path: Path) -> None:
    put(tmp_path, **{name: b" " * MAX_DOCUMENT + b"{}"})
    assert texts(tmp_path) == [f"{name}.json: has more than {MAX_DOCUMENT} bytes; remove it"]


def test_the_command_is_quoted(tmp_path: Path) -> None:
    place = tmp_path / "it's; here"
    place.mkdir()
    put(place, events=b"bad\n")
    (text,) = texts(place)
    assert text.endswith(recover(place))


# --- writers at work -----------------------------------------------------------------------------


def test_what_a_writer_is_in_the_middle_of_is_no_fault(tmp_path: Path) -> None:
    put(tmp_path, events=lines(1) + b'{"sch', seq=encode_seq(2, True), status=status("ready"))
    put(tmp_path, result=result("completed", 0))
    with (tmp_path / "events.jsonl.seq").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shot = snapshot(str(tmp_path), lock_wait_s=0.05)
        assert not shot.is_still
        assert verifying.judge(shot).faults == ()
    assert len(texts(tmp_path)) == 3


def test_a_writer_is_waited_for(tmp_path: Path) -> None:
    put(tmp_path, events=lines(1), seq=b"1\n")
    with (tmp_path / "events.jsonl.seq").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        timer.start()
        assert snapshot(str(tmp_path), lock_wait_s=30).is_still
        timer.join()


def test_writers_can_go_on_afterwards(tmp_path: Path) -> None:
    with Journal(tmp_path, lock_timeout_s=0) as journal:
        journal.append("starting", "one")
        before = os.listdir("/proc/self/fd")
        verify(tmp_path)
        assert os.listdir("/proc/self/fd") == before
        journal.append("ready", "two")


def test_nothing_is_changed_and_nothing_is_made(tmp_path: Path) -> None:
    put(tmp_path, events=lines(1) + b"torn", status=b"{")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    verify(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_fault_is_one_line() -> None:
    assert str(Fault("a", "is wrong")) == "a: is wrong"
    assert str(Fault("a", "is wrong", 3)) == "a:3: is wrong"
