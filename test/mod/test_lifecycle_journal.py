"""Journal: the bytes of each record, the sequence file, batches and limits."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import CHANGES, Watched, document, events, line, mask, messages, seqs, snapshot

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError, Paths

DETAILS = {"b": [1, -2.5, None, True], "a": "\U0001f600", "empty": {}}
MESSAGE = 'up\n\t\0"\\\u2028\x7fé'


# --- the bytes ------------------------------------------------------------------------------------


def test_an_event_is_exactly_this_line(tmp_path: Path) -> None:
    assert Journal(tmp_path).append("ready", MESSAGE, DETAILS) == 1
    assert mask((tmp_path / "events.jsonl").read_bytes()) == (
        '{"schema_version": 1, "kind": "ready", "timestamp": "<time>", "message": '
        '"up\\n\\t\\u0000\\"\\\\\\u2028\\u007f\\u00e9", "boot_id": "<boot>", "details": '
        '{"b": [1, -2.5, null, true], "a": "\\ud83d\\ude00", "empty": {}}, "seq": 1}\n'
    )


def test_an_event_without_details_has_no_such_field(tmp_path: Path) -> None:
    Journal(tmp_path).append("failed", "")
    assert mask((tmp_path / "events.jsonl").read_bytes()) == (
        '{"schema_version": 1, "kind": "failed", "timestamp": "<time>", "message": "", '
        '"boot_id": "<boot>", "seq": 1}\n'
    )


def test_a_status_is_exactly_these_lines(tmp_path: Path) -> None:
    Journal(tmp_path).write_status("booted", "é", {"a": [1]})
    assert mask((tmp_path / "status.json").read_bytes()) == (
        '{\n  "schema_version": 1,\n  "state": "booted",\n  "updated_at": "<time>",\n'
        '  "message": "\\u00e9",\n  "boot_id": "<boot>",\n'
        '  "details": {\n    "a": [\n      1\n    ]\n  }\n}\n'
    )


def test_a_result_is_exactly_these_lines(tmp_path: Path) -> None:
    Journal(tmp_path).write_result("failed", -7, "no", "why")
    assert mask((tmp_path / "result.json").read_bytes()) == (
        '{\n  "schema_version": 1,\n  "status": "failed",\n  "exit_code": -7,\n'
        '  "finished_at": "<time>",\n  "message": "no",\n  "details": "why"\n}\n'
    )


@pytest.mark.parametrize("falsy", [False, 0, 0.0, "", [], {}])
def test_falsy_details_are_kept(falsy: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m", falsy)
    journal.write_status("ready", "m", falsy)
    journal.write_result("completed", 0, "m", falsy)
    kept = [events(tmp_path)[0], document(tmp_path, "status"), document(tmp_path, "result")]
    assert [repr(record["details"]) for record in kept] == [repr(falsy)] * 3


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("UTC0", "+00:00"), ("<+0545>-5:45", "+05:45"), ("<-0330>3:30", "-03:30")],
)
def test_times_have_the_offset_of_their_zone(
    zone: str, offset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    Journal(tmp_path).append("ready", "m")
    monkeypatch.undo()
    time.tzset()
    assert events(tmp_path)[0]["timestamp"].endswith(offset)


# --- the sequence file ----------------------------------------------------------------------------


def test_the_sequence_file_is_exact_when_the_lock_is_free(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    seq_path = tmp_path / "events.jsonl.seq"
    for seq in range(1, 12):
        assert journal.append("ready", "m") == seq
        assert seq_path.read_bytes() == b"0%019d\n" % seq == lifecycle.encode_seq(seq, False)
    assert seqs(tmp_path) == list(range(1, 12))


def test_the_sequence_file_keeps_its_inode(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m")
    inode = (tmp_path / "events.jsonl.seq").stat().st_ino
    journal.append("ready", "m")
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + line(3))
    journal.recover("dead")
    assert (tmp_path / "events.jsonl.seq").stat().st_ino == inode


def test_a_batch_costs_one_write_and_two_syncs_in_this_order(tmp_path: Path) -> None:
    calls: list[str] = []
    journal = Journal(tmp_path, system=Watched(CHANGES, lambda name, _: calls.append(name)))
    journal.append("ready", "m")
    calls.clear()
    journal.append_many([("ready", "m", None)] * 200)
    assert calls == ["pwrite", "fdatasync", "write", "fdatasync", "pwrite"]


def test_the_batch_is_announced_before_it_is_written(tmp_path: Path) -> None:
    announced: list[bytes] = []

    def look(*_: Any) -> None:
        announced.append((tmp_path / "events.jsonl.seq").read_bytes())

    Journal(tmp_path, system=Watched(["write"], look)).append_many([("ready", "m", None)] * 7)
    assert announced == [b"+0000000000000000007\n"]


@pytest.mark.parametrize("work", [lambda j: j.append("ready", "m"), lambda j: j.recover("dead")])
def test_every_change_of_log_and_sequence_file_is_under_the_lock(
    work: Callable[[Journal], Any], tmp_path: Path
) -> None:
    Journal(tmp_path).append("ready", "m")
    with (tmp_path / "events.jsonl").open("ab") as log:
        log.write(b"torn")
    stranger = os.open(tmp_path / "events.jsonl.seq", os.O_RDWR)
    changes: list[str] = []

    def look(name: str, _: Any) -> None:
        changes.append(name)
        with pytest.raises(BlockingIOError):
            fcntl.flock(stranger, fcntl.LOCK_EX | fcntl.LOCK_NB)

    work(Journal(tmp_path, system=Watched(["write", "pwrite", "ftruncate"], look)))
    assert {"write", "pwrite", "ftruncate"} == set(changes)
    fcntl.flock(stranger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(stranger)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        (b"00000000000000000005\n", 8),
        (b"00000000000000000009\n", 10),
        (b"+0000000000000000009\n", 8),
        (b"+0000000000000000009", 8),
        (b"9\n", 10),
        (b" 9 \n", 10),
        (b"9" + b" " * 500, 10),
        (b"", 8),
        (b"\n", 8),
        (b"\0" * 21, 8),
        (b"9\0\0\0", 8),
        (b"-9\n", 8),
        (b"+-9\n", 8),
        (b"nine\n", 8),
        ("\u0669\n".encode(), 8),
        (b"\xff\xfe\n", 8),
        (b"0x9\n", 8),
        (b"9.0\n", 8),
        (b"9\n9\n", 8),
        (b"9" * 25, 8),
        (b"9" * 5000, 8),
    ],
)
def test_the_next_seq_is_never_one_that_was_used(
    text: bytes, following: int, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").write_bytes(line(6) + line(7))
    (tmp_path / "events.jsonl.seq").write_bytes(text)
    assert Journal(tmp_path).append("ready", "m") == following
    assert (tmp_path / "events.jsonl.seq").read_bytes() == b"0%019d\n" % following


@pytest.mark.parametrize("text", [b"00000000000000000009\n", b"+0000000000000000009\n", b"9\n"])
def test_seqs_go_on_when_the_log_was_taken_away(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl.seq").write_bytes(text)
    assert Journal(tmp_path).append("ready", "m") == 10


def test_seqs_in_the_log_that_do_not_rise_are_survived(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(line(6) + line(90) + line(7))
    assert Journal(tmp_path).append("ready", "m") == 91


def test_the_last_seq_of_19_digits_is_given(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(line(10**19 - 2))
    assert Journal(tmp_path).append("ready", "m") == 10**19 - 1
    assert (tmp_path / "events.jsonl.seq").read_bytes() == b"09999999999999999999\n"


@pytest.mark.parametrize("last", [10**19 - 1, 10**19, 2**64 - 1])
def test_no_seq_beyond_19_digits_is_given(last: int, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(line(last))
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path).append("failed", "m")
    assert caught.value.name == "Limit"
    assert (tmp_path / "events.jsonl").read_bytes() == line(last)


# --- batches and limits ---------------------------------------------------------------------------


def test_a_batch_has_consecutive_seqs(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("requested", "0")
    batch = [("ready", str(number), {"n": number}) for number in range(1, 300)]
    assert journal.append_many(batch) == (2, 300)
    assert seqs(tmp_path) == list(range(1, 301))
    assert messages(tmp_path) == [str(number) for number in range(300)]


@pytest.mark.parametrize("bad", [("redy", "m", None), ("ready", 5, None), ("ready", "m", {1})])
def test_a_batch_with_one_bad_event_is_refused_whole(bad: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("requested", "0")
    before = snapshot(tmp_path)
    with pytest.raises(LifecycleError) as caught:
        journal.append_many([("ready", "1", None), bad])
    assert caught.value.name == "InvalidArgument"
    assert snapshot(tmp_path) == before


def filled(size: int) -> list[tuple[str, str, Any]]:
    """A batch of two events whose lines together have this many bytes."""
    head = len(line(1, boot_id=lifecycle.boot_id(), timestamp="0000-00-00T00:00:00+00:00"))
    each, odd = divmod(size - 2 * head, 2)
    details = len(', "details": ""')
    texts = ("x" * (each - details), "x" * (each - details + odd))
    return [("ready", "m", text) for text in texts]


def test_a_line_of_the_test_is_as_long_as_it_says(tmp_path: Path) -> None:
    Journal(tmp_path).append_many(filled(10_001))
    assert (tmp_path / "events.jsonl").stat().st_size == 10_001


@pytest.mark.parametrize("size", [lifecycle.MAX_BATCH + 1, 2 * lifecycle.MAX_BATCH])
def test_a_batch_over_its_limit_is_too_large(size: int, tmp_path: Path) -> None:
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path).append_many(
            [item for _ in range(8) for item in filled(size // 8 + size % 8)]
        )
    assert caught.value.name == "TooLarge"
    assert not snapshot(tmp_path)


def test_a_batch_just_below_its_limit_is_one_write(tmp_path: Path) -> None:
    sizes: list[int] = []
    watched = Watched(["write"], lambda _, arguments: sizes.append(len(arguments[1])))
    batch = [item for _ in range(8) for item in filled(lifecycle.MAX_BATCH // 8 - 100)]
    Journal(tmp_path, system=watched).append_many(batch)
    assert len(sizes) == 1
    assert Journal(tmp_path).append("ready", "m") == 17


def full_log(directory: Path) -> int:
    """Make a log that has no place for another event. Returns its last seq."""
    each = line(1, message="x" * 100_000)
    count = lifecycle.MAX_LOG // len(each)
    rest = lifecycle.MAX_LOG - count * len(each) - len(line(1)) - 10
    with (directory / "events.jsonl").open("wb") as log:
        log.write(each * count + line(count + 1, message="x" * rest))
    return count + 1


def test_a_full_log_takes_terminal_events_only(tmp_path: Path) -> None:
    last = full_log(tmp_path)
    size = (tmp_path / "events.jsonl").stat().st_size
    journal = Journal(tmp_path)
    with pytest.raises(LifecycleError) as caught:
        journal.append_many([("failed", "m", None), ("ready", "m", None)])
    assert caught.value.name == "Limit"
    assert (tmp_path / "events.jsonl").stat().st_size == size
    assert journal.append("stopped", "m") == last + 1
    assert journal.finish("failed", 1, "m") == last + 2


def test_paths_may_be_anywhere(tmp_path: Path) -> None:
    odd = tmp_path / "a b\nc" / "é\udcff"
    paths = Paths(
        odd, events=odd / "1/e", seq=tmp_path / "2/q", status=odd / "s", result=odd / "3/4/r"
    )
    with Journal(paths, mode=0o600) as journal:
        journal.append("ready", "m")
        journal.finish("completed", 0, "m")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == list("eqrs")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("?") if path.is_file()} == {
        0o600
    }
