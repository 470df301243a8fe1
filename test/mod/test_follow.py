"""The follower gives every event once and in order, whatever happens to the file meanwhile."""

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.follow import MAX_LINE, Cursor, Follower, read_result, read_status
from osbuild_pika.lifecycle import MAX_DOCUMENT, Journal, LifecycleError


def line(seq: int, message: str = "", boot: str | None = "a", **fields: Any) -> bytes:
    """A whole line of events.jsonl; the message is `boot` and `seq` if none is given."""
    head = {"schema_version": 1, "kind": "provisioning", "timestamp": "2026-03-25T20:00:00Z"}
    event = {**head, "message": message or f"{boot}{seq}", "boot_id": boot, **fields, "seq": seq}
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def lines(*seqs: int, boot: str = "a") -> bytes:
    return b"".join(line(seq, boot=boot) for seq in seqs)


def drain(follower: Follower) -> list[str]:
    """The messages of all events that the follower has to give now."""
    return [event.message for batch in iter(follower.poll, []) for event in batch]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_an_event_has_its_fields(log: Path, tmp_path: Path) -> None:
    log.write_bytes(line(7, "up", details={"done": 1}, x_extra=2))
    (event,) = Follower(tmp_path).poll()
    assert (event.seq, event.kind, event.message) == (7, "provisioning", "up")
    assert (event.timestamp, event.boot_id) == ("2026-03-25T20:00:00Z", "a")
    assert event.details == {"done": 1}
    assert event.raw["x_extra"] == 2


def test_fields_that_are_optional_may_be_missing(log: Path, tmp_path: Path) -> None:
    event = json.loads(line(1))
    del event["boot_id"]
    log.write_bytes(json.dumps(event).encode() + b"\n")
    (given,) = Follower(tmp_path).poll()
    assert given.boot_id is None
    assert given.details is None


def test_only_whole_lines_are_given_at_every_byte_of_a_torn_tail(log: Path, tmp_path: Path) -> None:
    whole = line(1, "\u2028 \u0085") + line(2)
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])
        with Follower(tmp_path) as follower:
            first = drain(follower)
            assert len(first) == whole[:cut].count(b"\n")
            log.write_bytes(whole)
            assert first + drain(follower) == ["\u2028 \u0085", "a2"], f"cut at byte {cut}"
            assert follower.skipped == 0


def test_directory_and_file_may_come_later(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "one"
    with Follower(place) as follower:
        assert follower.poll() == []
        place.mkdir(parents=True)
        assert follower.poll() == []
        (place / "events.jsonl").write_bytes(lines(1))
        assert drain(follower) == ["a1"]


@pytest.mark.parametrize(
    ("bad", "count"),
    [(b"no event\n", 1), (b"\0\0\0\n", 1), (b"\xff\n[]\n", 2), (b"\n  \n\r\n", 0)],
)
def test_bad_lines_are_passed_over_and_counted(
    bad: bytes, count: int, log: Path, tmp_path: Path
) -> None:
    log.write_bytes(line(1) + bad + line(2))
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["a1", "a2"]
        assert follower.skipped == count


def test_an_event_that_was_cut_and_its_seq_used_again_is_followed_by_the_new_one(
    log: Path, tmp_path: Path
) -> None:
    log.write_bytes(lines(1, 2))
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["a1", "a2"]
        log.write_bytes(line(1))
        assert drain(follower) == []
        log.write_bytes(line(1) + line(2, "other"))
        assert drain(follower) == ["other"]


def test_a_cut_that_was_grown_over_between_two_polls_is_noticed(log: Path, tmp_path: Path) -> None:
    log.write_bytes(line(1) + b"garbage that a writer cuts\n")
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["a1"]
        log.write_bytes(lines(1, 2, 3))
        assert drain(follower) == ["a2", "a3"]
        assert follower.skipped == 0


def test_an_event_that_was_cut_and_written_again_is_given_once(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1, 2))
    with Follower(tmp_path) as follower:
        drain(follower)
        log.write_bytes(lines(1))
        assert drain(follower) == []
        log.write_bytes(lines(1, 2, 3))
        assert drain(follower) == ["a3"]


def test_a_line_that_stands_there_twice_is_given_twice(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1, 1))
    assert drain(Follower(tmp_path)) == ["a1", "a1"]


def test_recover_makes_nothing_come_again(log: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("starting", "one")
    with log.open("ab") as file:
        file.write(b"garbage\n" + line(2, "two"))
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["one", "two"]
        journal.recover()
        journal.append("ready", "three")
        assert drain(follower) == ["three"]
        assert follower.skipped == 0


def test_an_event_glued_to_a_torn_line_is_given_once(log: Path, tmp_path: Path) -> None:
    log.write_bytes(line(1) + line(9)[:30] + line(2) + line(3))
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["a1", "a2", "a3"]
        assert follower.skipped == 1
        Journal(tmp_path).recover()
        assert drain(follower) == []
        assert follower.skipped == 0


def test_a_file_that_is_replaced_is_read_to_its_end_first(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1))
    with Follower(tmp_path) as follower:
        drain(follower)
        with log.open("ab") as file:
            file.write(lines(2))
        (tmp_path / "new").write_bytes(lines(1, boot="b"))
        (tmp_path / "new").rename(log)
        assert drain(follower) == ["a2", "b1"]


def test_a_copy_of_the_file_brings_only_what_is_new(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1, 2))
    with Follower(tmp_path) as follower:
        drain(follower)
        shutil.copy(log, tmp_path / "copy")
        (tmp_path / "copy").rename(log)
        assert drain(follower) == []
        with log.open("ab") as file:
            file.write(lines(3))
        assert drain(follower) == ["a3"]


@pytest.mark.parametrize("boot", ["a", "b"])
def test_a_restart_in_a_new_file_is_new_whatever_its_seqs(
    boot: str, log: Path, tmp_path: Path
) -> None:
    log.write_bytes(lines(1, 2))
    with Follower(tmp_path, Cursor(1)) as follower:
        assert drain(follower) == ["a2"]
        log.unlink()
        assert drain(follower) == []
        log.write_bytes(line(1, "again", boot=boot))
        assert drain(follower) == ["again"]


def test_a_long_line_is_one_bad_line(log: Path, tmp_path: Path) -> None:
    log.write_bytes(line(1) + b"x" * (3 * MAX_LINE + 7) + b"\n" + line(2))
    with Follower(tmp_path) as follower:
        assert drain(follower) == ["a1", "a2"]
        assert follower.skipped == 1


def test_a_long_line_may_grow_bit_by_bit(log: Path, tmp_path: Path) -> None:
    with Follower(tmp_path) as follower, log.open("ab", buffering=0) as file:
        for _ in range(3):
            file.write(b"x" * (MAX_LINE // 2 + 3))
            assert drain(follower) == []
        file.write(b"x\n" + line(1))
        assert drain(follower) == ["a1"]
        assert follower.skipped == 1


def test_a_file_without_newlines_takes_little_memory(log: Path, tmp_path: Path) -> None:
    with log.open("wb") as file:
        file.truncate(16 * MAX_LINE)
    tracemalloc.start()
    try:
        assert drain(Follower(tmp_path)) == []
        assert tracemalloc.get_traced_memory()[1] < 5 * MAX_LINE
    finally:
        tracemalloc.stop()


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("name", ["events.jsonl", "status.json", "result.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link])
def test_what_is_no_regular_file_is_refused_at_once(make: Any, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    readers: dict[str, Callable[[], object]] = {
        "events.jsonl": lambda: Follower(tmp_path).poll(),
        "status.json": lambda: read_status(tmp_path),
        "result.json": lambda: read_result(tmp_path),
    }
    with pytest.raises(LifecycleError, match=f"{name}: is not a regular file") as raised:
        readers[name]()
    assert raised.value.name == "IOFailed"


def test_documents_are_read(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    assert read_result(tmp_path) is None
    with Journal(tmp_path) as journal:
        journal.write_status("ready", "up")
        journal.write_result("completed", 0, "done")
    assert (read_status(tmp_path) or {})["state"] == "ready"
    assert (read_result(tmp_path) or {})["exit_code"] == 0
    (tmp_path / "result.json").write_bytes(b" " * MAX_DOCUMENT + b"{}")
    with pytest.raises(LifecycleError, match=r"result\.json: not a lifecycle result: Expecting"):
        read_result(tmp_path)


def test_a_file_that_a_network_file_system_took_away_is_opened_anew(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(lines(1))
    with Follower(tmp_path) as follower:
        drain(follower)
        log.write_bytes(lines(1, 2))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", raise_stale)
            assert follower.poll() == []
        assert drain(follower) == ["a2"]


def raise_stale(*_: object) -> bytes:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_disk_that_fails_is_named(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log.write_bytes(lines(1))
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(LifecycleError, match=r"events\.jsonl: Input/output error"):
        Follower(tmp_path).poll()


@pytest.mark.parametrize(
    ("cursor", "given"),
    [
        (Cursor(0), ["a1", "a2", "a3", "b1", "b2"]),
        (Cursor(2), ["a3", "b1", "b2"]),
        (Cursor(3), ["b1", "b2"]),
        (Cursor(9), ["b1", "b2"]),
        (Cursor(2, "a"), ["a3", "b1", "b2"]),
        (Cursor(3, "a"), ["b1", "b2"]),
        (Cursor(9, "a"), ["b1", "b2"]),
        (Cursor(1, "b"), ["b2"]),
        (Cursor(2, "b"), []),
        (Cursor(2, "gone"), ["a1", "a2", "a3", "b1", "b2"]),
    ],
)
def test_since_gives_what_comes_after_also_across_a_restart(
    cursor: Cursor, given: list[str], log: Path, tmp_path: Path
) -> None:
    log.write_bytes(lines(1, 2, 3) + lines(1, 2, boot="b"))
    assert drain(Follower(tmp_path, cursor)) == given


def test_since_of_events_to_come_holds_them_back(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1, 2))
    with Follower(tmp_path, Cursor(3)) as follower:
        assert drain(follower) == []
        log.write_bytes(lines(1, 2, 3, 4))
        assert drain(follower) == ["a4"]


def test_since_holds_when_recover_replaces_the_file(log: Path, tmp_path: Path) -> None:
    log.write_bytes(lines(1, 2) + b"garbage\n" + lines(3))
    with Follower(tmp_path, Cursor(2, "a")) as follower:
        assert drain(follower) == ["a3"]
        Journal(tmp_path).recover()
        assert drain(follower) == []


def test_after_a_verdict_only_the_hosts_words_leave_it(log: Path, tmp_path: Path) -> None:
    with Follower(tmp_path) as follower, Journal(tmp_path) as journal:
        verdicts = []
        for kind in ("starting", "completed", "stopped", "starting", "destroyed"):
            journal.append(kind, kind)
            follower.poll()
            verdicts.append(follower.verdict)
        assert verdicts == [None, "completed", "completed", None, "destroyed"]
