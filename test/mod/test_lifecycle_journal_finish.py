"""Journal: the end of a run, its recovery, and the space that is kept for it."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import (
    CHANGES,
    UNSYNCED,
    System,
    Watched,
    document,
    events,
    line,
    messages,
    raises,
    seqs,
    snapshot,
)

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

FINISH = ("failed", 3, "no", {"why": [1]})
FILES = ("events.jsonl", "status.json", "result.json")


def kinds(directory: Path) -> list[str]:
    return [event["kind"] for event in events(directory)]


# --- finish ---------------------------------------------------------------------------------------


def test_finish_writes_event_result_and_status_in_this_order(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def look(*_: Any) -> None:
        seen.append(tuple(sorted(name for name in FILES if (tmp_path / name).exists())))

    journal = Journal(tmp_path, system=Watched(CHANGES, look))
    assert journal.finish(*FINISH) == 1
    steps = [names for names, _ in itertools.groupby(seen) if names]
    assert steps == [
        ("events.jsonl",),
        ("events.jsonl", "result.json"),
        ("events.jsonl", "result.json", "status.json"),
    ]


def test_finish_says_the_same_in_all_three(tmp_path: Path) -> None:
    Journal(tmp_path).finish(*FINISH)
    (event,) = events(tmp_path)
    result, status = document(tmp_path, "result"), document(tmp_path, "status")
    assert (event["kind"], result["status"], status["state"]) == ("failed",) * 3
    assert (event["message"], result["message"], status["message"]) == ("no",) * 3
    assert event["details"] == {"why": [1], "exit_code": 3}
    assert (result["exit_code"], result["details"]) == (3, {"why": [1]})
    assert lifecycle.result_of(event) == {**result, "finished_at": event["timestamp"]}


SAME: list[tuple[Any, Any]] = [
    (None, None),
    (None, {}),
    ({"a": 1}, {"a": 1}),
    ({"a": (1, 2)}, {"a": (1, 2)}),
    ({"a": (1, 2)}, {"a": [1, 2]}),
    ({"exit_code": 9}, None),
    ({"b": 1, "a": {"d": 1, "c": 2}}, {"a": {"c": 2, "d": 1}, "b": 1}),
]


@pytest.mark.parametrize(("first", "again"), SAME)
def test_the_same_finish_again_changes_nothing(first: Any, again: Any, tmp_path: Path) -> None:
    assert Journal(tmp_path).finish("failed", 3, "no", first) == 1
    before = snapshot(tmp_path)
    assert Journal(tmp_path, strict=True).finish("failed", 3, "no", again) == 1
    assert snapshot(tmp_path) == before


OTHER = [
    ("completed", 0, "no", {"a": 1}),
    ("failed", 4, "no", {"a": 1}),
    ("failed", 3, "yes", {"a": 1}),
    ("failed", 3, "no", None),
    ("failed", 3, "no", {"a": 2}),
    ("failed", 3, "no", {"a": True}),
]


@pytest.mark.parametrize("other", OTHER)
def test_a_different_end_is_refused(other: tuple[Any, ...], tmp_path: Path) -> None:
    journal = Journal(tmp_path, strict=True)
    journal.finish("failed", 3, "no", {"a": 1})
    before = snapshot(tmp_path)
    for write in (journal.finish, Journal(tmp_path).finish, journal.write_result):
        with pytest.raises(LifecycleError) as caught:
            write(*other)
        assert caught.value.name == "AlreadyFinished"
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["stopped", "destroyed"])
def test_the_same_finish_after_the_host_saw_the_end_adds_no_event(
    kind: str, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    journal.finish(*FINISH)
    journal.append(kind, "seen by the host")
    journal.finish(*FINISH)
    assert kinds(tmp_path) == ["failed", kind]


@pytest.mark.parametrize("state", ["ready", "completed", "unreachable"])
def test_finish_replaces_a_status_that_says_otherwise(state: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write_status(state, "too early")
    journal.finish(*FINISH)
    assert document(tmp_path, "status")["state"] == "failed"


@pytest.mark.parametrize("kind", ["failed", "destroyed"])
def test_a_strict_finish_keeps_the_order(kind: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path, strict=True)
    journal.append(kind, "m")
    with pytest.raises(LifecycleError) as caught:
        journal.finish("completed", 0, "m")
    assert caught.value.name == "BadTransition"
    assert kinds(tmp_path) == [kind]


def test_a_strict_end_may_be_written_record_by_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path, strict=True)
    journal.write_status("ready", "m")
    journal.append("failed", "m")
    journal.write_result("failed", 1, "m")
    journal.write_status("failed", "m")
    assert document(tmp_path, "status")["state"] == "failed"


@pytest.mark.parametrize("bad", [[], "text", 5, True])
def test_details_of_an_end_are_an_object(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path).finish("failed", 1, "m", bad)
    assert caught.value.name == "InvalidArgument"
    assert not snapshot(tmp_path)


# --- recover --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone",
    [(), ("status.json",), ("result.json",), ("result.json", "status.json")],
)
@pytest.mark.parametrize("lost", [None, "the engine died"])
def test_recover_completes_what_a_killed_finish_left(
    gone: tuple[str, ...], lost: str | None, tmp_path: Path
) -> None:
    Journal(tmp_path).append("ready", "m")
    Journal(tmp_path).finish(*FINISH)
    for name in gone:
        (tmp_path / name).unlink()
    assert Journal(tmp_path).recover(lost) == {"set_aside": 0, "completed": list(gone)}
    assert document(tmp_path, "status")["state"] == "failed"
    assert document(tmp_path, "result")["details"] == {"why": [1]}
    assert kinds(tmp_path) == ["ready", "failed"]


@pytest.mark.parametrize("kind", ["stopped", "destroyed"])
def test_recover_finds_the_verdict_before_what_the_host_saw(kind: str, tmp_path: Path) -> None:
    Journal(tmp_path).finish("completed", 0, "done")
    Journal(tmp_path).append(kind, "seen by the host")
    (tmp_path / "result.json").unlink()
    Journal(tmp_path).recover("the engine died")
    assert document(tmp_path, "result")["status"] == "completed"
    assert kinds(tmp_path) == ["completed", kind]


@pytest.mark.parametrize("begun", [[], ["requested"], ["requested", "provisioning"]])
def test_recover_ends_a_run_whose_owner_is_lost(begun: list[str], tmp_path: Path) -> None:
    for kind in begun:
        Journal(tmp_path).append(kind, "m")
    Journal(tmp_path).recover("the engine died")
    assert kinds(tmp_path) == [*begun, "failed"]
    assert events(tmp_path)[-1]["details"] == {"event": "engine.lost", "exit_code": 137}
    assert document(tmp_path, "result")["exit_code"] == 137
    assert document(tmp_path, "status")["message"] == "the engine died"


@pytest.mark.parametrize("kind", ["failed", "stopped", "destroyed"])
def test_recover_ends_a_run_whatever_it_said_last(kind: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path, strict=True)
    journal.append(kind, "without an exit code")
    journal.recover("the engine died")
    assert document(tmp_path, "result")["status"] == "failed"
    assert kinds(tmp_path)[0] == kind


def test_a_repaired_log_keeps_its_mode(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    Journal(tmp_path, mode=0o600).append("ready", "m")
    log.write_bytes(b"bad\n" + log.read_bytes())
    assert Journal(tmp_path).recover()["set_aside"] == 1
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lost", [None, "the engine died"])
def test_recover_again_changes_nothing(lost: str | None, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + line(4) + b"torn")
    (tmp_path / "status.json").write_bytes(b"{")
    Journal(tmp_path).recover(lost)
    before = snapshot(tmp_path)
    assert Journal(tmp_path).recover(lost) == {"set_aside": 0, "completed": []}
    assert snapshot(tmp_path) == before


def test_recover_makes_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path / "none").recover()
    assert caught.value.name == "IOFailed"
    assert not snapshot(tmp_path)


LOGS = {
    "nothing bad": ([line(1), line(2)], [line(1), line(2)], b""),
    "a torn tail": ([line(1), b"torn"], [line(1)], b"torn\n"),
    "bad lines": ([b"a\n", line(1), b"b\n", line(2), b"c\n"], [line(1), line(2)], b"a\nb\nc\n"),
    "an event glued to a torn one": ([line(1), line(2)[:9], line(2)], [line(1), line(2)], None),
    "NULs before an event": ([line(1), b"\0" * 9, line(2)], [line(1), line(2)], b"\0" * 9 + b"\n"),
    "only bad lines": ([b"a\n"], [], b"a\n"),
    "seqs that do not rise": ([line(7), line(7), line(3)], [line(7), line(7), line(3)], b""),
}


@pytest.mark.parametrize(("log", "kept", "aside"), LOGS.values(), ids=LOGS.keys())
def test_recover_keeps_every_good_line(
    log: list[bytes], kept: list[bytes], aside: bytes | None, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"".join(log))
    Journal(tmp_path).recover()
    assert (tmp_path / "events.jsonl").read_bytes() == b"".join(kept)
    torn = snapshot(tmp_path).get("events.jsonl.torn", b"")
    assert torn == (line(2)[:9] + b"\n" if aside is None else aside)
    last = max(seqs(tmp_path), default=0)
    assert (tmp_path / "events.jsonl.seq").read_bytes() == lifecycle.encode_seq(last, False)


@pytest.mark.parametrize("kind", ["status", "result"])
@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"\0" * 99, b"{}", b"\xff"])
def test_recover_sets_an_unreadable_document_aside(kind: str, bad: bytes, tmp_path: Path) -> None:
    Journal(tmp_path).finish(*FINISH)
    (tmp_path / f"{kind}.json").write_bytes(bad)
    done = Journal(tmp_path, system=UNSYNCED).recover()
    assert done == {"set_aside": 1, "completed": [f"{kind}.json"]}
    assert (tmp_path / f"{kind}.json.torn").read_bytes() == bad
    assert document(tmp_path, kind)["message"] == "no"


def test_recover_leaves_a_large_but_good_document_alone(tmp_path: Path) -> None:
    details: Any = [0] * 10_000
    for _ in range(lifecycle.MAX_DETAILS_DEPTH - 2):
        details = [details]
    journal = Journal(tmp_path)
    journal.finish("failed", 1, "m", {"deep": details})
    journal.write_status("failed", "m", details)
    assert journal.recover()["set_aside"] == 0
    journal.finish("failed", 1, "m", {"deep": details})


# --- the reserve ----------------------------------------------------------------------------------


class FullDisk(System):
    """A disk that is full as long as `reserve` is there: no write, no new file."""

    def __init__(self, reserve: Path, *refused: str) -> None:
        super().__init__(**{name: self._unless_free(name) for name in refused})
        self.reserve = reserve

    def _unless_free(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            real = getattr(System(), name)
            return (raises(errno.ENOSPC) if self.reserve.exists() else real)(*arguments)

        return call


def test_the_reserve_is_really_allocated(tmp_path: Path) -> None:
    Journal(tmp_path).reserve()
    status = (tmp_path / ".reserve").stat()
    assert status.st_size == lifecycle.RESERVE <= status.st_blocks * 512


@pytest.mark.parametrize("refused", ["write", "pwrite"])
def test_an_end_finds_the_reserve(refused: str, tmp_path: Path) -> None:
    Journal(tmp_path).append("ready", "m")
    journal = Journal(tmp_path, system=FullDisk(tmp_path / ".reserve", refused))
    journal.reserve()
    assert journal.finish(*FINISH) == 2
    assert sorted(snapshot(tmp_path)) == sorted([*FILES, "events.jsonl.seq"])
    assert messages(tmp_path) == ["m", "no"]


@pytest.mark.parametrize(
    "work",
    [
        lambda journal: journal.append("ready", "m"),
        lambda journal: journal.append_many([("failed", "m", None), ("ready", "m", None)]),
        lambda journal: journal.write_status("provisioning", "m"),
    ],
)
def test_the_reserve_is_for_the_end_only(work: Callable[[Journal], object], tmp_path: Path) -> None:
    Journal(tmp_path).append("ready", "m")
    journal = Journal(tmp_path, system=FullDisk(tmp_path / ".reserve", "write"))
    journal.reserve()
    with pytest.raises(LifecycleError) as caught:
        work(journal)
    assert caught.value.name == "NoSpace"
    assert (tmp_path / ".reserve").exists()
    assert seqs(tmp_path) == [1]


def test_a_reserve_that_finds_no_space_leaves_nothing(tmp_path: Path) -> None:
    system = System(posix_fallocate=raises(errno.ENOSPC))
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path, system=system).reserve()
    assert caught.value.name == "NoSpace"
    assert not snapshot(tmp_path)
