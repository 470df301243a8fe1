"""Journal beside dead and foreign writers: torn tails, other writers, files taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from crash.original import Original
from journals import UNSYNCED, FailsAt, document, events, line, messages, seqs, snapshot

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

GOOD = line(1, message="one") + line(2, message="two")
Change = Callable[[Path], object]


# --- what dead writers left -----------------------------------------------------------------------

TORN = {
    "a brace": b"{",
    "a whole event without its newline": line(3)[:-1],
    "half an event": line(3)[:40],
    "NULs": b"\0" * 5000,
    "a line of NULs": b"\0" * 99 + b"\n",
    "many lines of NULs": (b"\0" * 99 + b"\n") * 3000,
    "NULs and the end of an event": b"\0" * 30 + line(3)[30:],
    "no UTF-8": b"\xff\xfe\n",
    "300 KiB without a newline": b"x" * 300 * 1024,
    "a carriage return": b"\r",
    "a number out of range": line(3).replace(b'"m"', b'"m", "details": 1e400'),
    "a lone surrogate": line(3).replace(b'"m"', rb'"\ud800"'),
    "deep nesting": line(3, details=0).replace(b": 0,", b": " + b"[" * 200 + b"]" * 200 + b","),
    "a key given twice": line(3).replace(b'"seq"', b'"seq": 3, "seq"'),
    "an unknown kind": line(3, kind="passed"),
    "a seq beyond 64 bits": line(2**64),
    "a line that is no object": b"[]\n",
}


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
def test_what_a_dead_writer_left_is_set_aside(torn: bytes, in_flight: bool, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(GOOD + torn)
    (tmp_path / "events.jsonl.seq").write_bytes(lifecycle.encode_seq(2 + in_flight, in_flight))
    assert Journal(tmp_path, system=UNSYNCED).append("ready", "three") == 3
    assert messages(tmp_path) == ["one", "two", "three"]
    assert (tmp_path / "events.jsonl.torn").read_bytes().rstrip(b"\n") == torn.rstrip(b"\n")


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
def test_an_open_journal_sets_aside_what_another_left(torn: bytes, tmp_path: Path) -> None:
    journal = Journal(tmp_path, system=UNSYNCED)
    journal.append("ready", "one")
    journal.append("ready", "two")
    with (tmp_path / "events.jsonl").open("ab") as log:
        log.write(torn)
    assert journal.append("ready", "three") == 3
    assert messages(tmp_path) == ["one", "two", "three"]


def test_an_append_after_a_crash_at_any_byte(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    for cut in range(len(GOOD) + 1):
        log.write_bytes(GOOD[:cut])
        (tmp_path / "events.jsonl.seq").write_bytes(b"+0000000000000000002\n")
        Journal(tmp_path, system=UNSYNCED).append("failed", "after")
        whole = GOOD[:cut].count(b"\n")
        assert seqs(tmp_path) == list(range(1, whole + 2)), f"cut at byte {cut}"


@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n", b"\n" * 9_000, b" " * 300_000 + b"\n"])
def test_blank_lines_are_no_harm(blank: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(GOOD + blank)
    assert Journal(tmp_path).append("ready", "three") == 3
    assert (tmp_path / "events.jsonl").read_bytes().startswith(GOOD + blank + b'{"schema')


@pytest.mark.parametrize("bad", [b"bad\n", b"\0\0\n", b"\xff\n", line(9, kind="passed"), b"{}\n"])
def test_a_bad_line_before_good_ones_is_nobodys_to_cut(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(GOOD + bad + line(3))
    (tmp_path / "events.jsonl.seq").write_bytes(b"3\n")
    before = snapshot(tmp_path)
    journal = Journal(tmp_path)
    for _ in range(2):
        with pytest.raises(LifecycleError, match="recover") as caught:
            journal.append("ready", "m")
        assert caught.value.name == "Corrupt"
        assert snapshot(tmp_path) == before
    assert journal.recover() == {"set_aside": 1, "completed": []}
    assert journal.append("ready", "m") == 4
    assert seqs(tmp_path) == [1, 2, 3, 4]
    assert (tmp_path / "events.jsonl.torn").read_bytes() == bad


@pytest.mark.parametrize("torn", [line(3)[:40], b"\0" * 30, line(3)[:-1], b"{", b"\xff"])
@pytest.mark.parametrize("is_open", [False, True])
def test_an_event_that_an_original_glued_to_a_torn_one_is_kept(
    is_open: bool, torn: bytes, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, system=UNSYNCED)
    journal.append_many([("ready", "one", None), ("ready", "two", None)])
    with (tmp_path / "events.jsonl").open("ab") as log:
        log.write(torn)
    assert Original(tmp_path).append("ready", "acknowledged") == 3
    assert (journal if is_open else Journal(tmp_path)).append("ready", "next") == 4
    assert messages(tmp_path) == ["one", "two", "acknowledged", "next"]
    assert (tmp_path / "events.jsonl.torn").read_bytes() == torn + b"\n"


def test_a_corrupt_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + GOOD)
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path).append("ready", "m")
    assert str(tmp_path / "events.jsonl") in str(caught.value)


def test_a_link_in_place_of_the_torn_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "events.jsonl.torn").symlink_to(victim)
    (tmp_path / "events.jsonl").write_bytes(GOOD + b"torn")
    assert Journal(tmp_path).append("ready", "m") == 3
    assert victim.read_bytes() == b"mine"


# --- other writers --------------------------------------------------------------------------------


def test_an_open_journal_and_an_original_helper_take_turns(tmp_path: Path) -> None:
    journal, original = Journal(tmp_path), Original(tmp_path)
    for seq in range(1, 40, 4):
        assert journal.append("ready", "m") == seq
        assert original.append("ready", "m") == seq + 1
        assert original.append("ready", "m") == seq + 2
        assert journal.append_many([("ready", "m", None)]) == (seq + 3, seq + 3)
    assert seqs(tmp_path) == list(range(1, 41))


def test_an_original_that_died_before_its_event_costs_a_gap_of_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m")
    (tmp_path / "events.jsonl.seq").write_bytes(b"2\n")
    assert journal.append("ready", "m") == 3


def test_an_original_that_died_while_counting_costs_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m")
    (tmp_path / "events.jsonl.seq").write_bytes(b"")
    assert journal.append("ready", "m") == 2


def test_two_journals_in_one_process_take_turns(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    for seq in range(1, 40, 4):
        assert one.append("ready", "m") == seq
        assert other.append_many([("ready", "m", None)] * 2) == (seq + 1, seq + 2)
        assert one.append("ready", "m") == seq + 3
    assert seqs(tmp_path) == list(range(1, 41))


def test_an_open_journal_follows_a_repair_by_another(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    one.append("ready", "one")
    log = tmp_path / "events.jsonl"
    log.write_bytes(b"bad\n" + log.read_bytes())
    assert other.recover()["set_aside"] == 1
    assert one.append("ready", "two") == 2
    assert other.append("ready", "three") == 3
    assert messages(tmp_path) == ["one", "two", "three"]


# --- files taken away -----------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def rotate_and_create(path: Path) -> None:
    rotate(path)
    path.touch()


def truncate(path: Path) -> None:
    path.write_bytes(b"")


GOINGS = [remove, rotate, rotate_and_create, truncate]


@pytest.mark.parametrize("go", GOINGS)
def test_seqs_go_on_in_an_open_journal_when_the_log_goes(go: Change, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append_many([("ready", "m", None)] * 5)
    go(tmp_path / "events.jsonl")
    assert journal.append("ready", "m") == 6
    assert seqs(tmp_path) == [6]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("go", GOINGS)
def test_no_event_of_another_is_lost_when_the_log_goes(
    go: Change, count: int, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m")
    go(tmp_path / "events.jsonl")
    for _ in range(count):
        Original(tmp_path).append("ready", "a longer message" * 20)
    assert journal.append("ready", "m") == count + 2
    assert seqs(tmp_path) == list(range(2, count + 3))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("go", GOINGS)
def test_a_kill_right_after_the_log_went_gives_no_seq_twice(
    go: Change, count: int, tmp_path: Path
) -> None:
    Journal(tmp_path).append_many([("ready", "m", None)] * count)
    go(tmp_path / "events.jsonl")
    with pytest.raises(KeyboardInterrupt):
        Journal(tmp_path, system=FailsAt("write", KeyboardInterrupt())).append("ready", "m")
    assert Journal(tmp_path).append("ready", "m") > count


def test_a_journal_goes_on_when_the_sequence_file_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append_many([("ready", "m", None)] * 5)
    (tmp_path / "events.jsonl.seq").unlink()
    assert journal.append("ready", "m") == 6
    assert Journal(tmp_path).append("ready", "m") == 7
    assert journal.append("ready", "m") == 8
    assert seqs(tmp_path) == list(range(1, 9))


def test_a_journal_goes_on_when_its_whole_directory_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.append("ready", "m")
    (tmp_path / "run").rename(tmp_path / "old")
    assert journal.append("ready", "m") == 1
    assert len(events(tmp_path / "run")) == len(events(tmp_path / "old")) == 1


def test_a_replaced_document_is_replaced_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write_status("ready", "mine")
    Original(tmp_path).write_status("starting", "theirs")
    journal.write_status("failed", "mine again")
    assert document(tmp_path, "status")["message"] == "mine again"
    assert list(snapshot(tmp_path)) == ["status.json"]
