"""The rules of lifecycle records: which state follows which, and which calls are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import UNSYNCED, document, events, line, snapshot

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

# Rows: what was; columns, in the same order: what comes. Where the contract is silent (the row
# of unreachable beyond the running states, stopped twice) an instance is found as it is found.
COLUMNS = """
    requested provisioning booted starting ready
    failed completed stopped destroyed unreachable
"""
ORDER = COLUMNS.split()
FOLLOWS = {
    "requested": "yyyyy yyyyy",
    "provisioning": ".yyyy yyyyy",
    "booted": "..yyy yyyyy",
    "starting": "...yy yyyyy",
    "ready": "....y yyyyy",
    "failed": "..... ..yy.",
    "completed": "..... ..yy.",
    "stopped": "..y.. ..yy.",
    "destroyed": "..... .....",
    "unreachable": "yyyyy yyyyy",
}
PAIRS = [
    (before, after, answer == "y")
    for before, answers in FOLLOWS.items()
    for after, answer in zip(ORDER, answers.replace(" ", ""), strict=True)
]
GOOD = [(before, after) for before, after, is_good in PAIRS if is_good]
BAD = [(before, after) for before, after, is_good in PAIRS if not is_good]


def test_the_table_is_about_all_ten_states() -> None:
    assert len(PAIRS) == 100
    assert set(ORDER) == set(FOLLOWS) == set(lifecycle.STATES)
    assert len(lifecycle.STATES) == 10


@pytest.mark.parametrize("state", ORDER)
def test_any_state_may_come_first(state: str, tmp_path: Path) -> None:
    lifecycle.check_transition(None, state)
    journal = Journal(tmp_path, strict=True)
    assert journal.append(state, "m") == 1
    journal.write_status(state, "m")


@pytest.mark.parametrize("before", dict.fromkeys(before for before, _ in GOOD))
def test_what_may_follow_is_taken(before: str, tmp_path: Path) -> None:
    for after in [after for each, after in GOOD if each == before]:
        take(before, after, tmp_path / after)


def take(before: str, after: str, directory: Path) -> None:
    lifecycle.check_transition(before, after)
    journal = Journal(directory, strict=True, system=UNSYNCED)
    journal.append(before, "m")
    journal.write_status(before, "m")
    assert journal.append(after, "n") == 2
    journal.write_status(after, "n")
    assert document(directory, "status")["state"] == after


@pytest.mark.parametrize("before", dict.fromkeys(before for before, _ in BAD))
def test_what_may_not_follow_is_refused_if_order_matters(before: str, tmp_path: Path) -> None:
    for after in [after for each, after in BAD if each == before]:
        refuse(before, after, tmp_path / after)


def refuse(before: str, after: str, directory: Path) -> None:
    with pytest.raises(LifecycleError, match=f"{after} cannot follow {before}") as caught:
        lifecycle.check_transition(before, after)
    assert caught.value.name == "BadTransition"
    assert caught.value.is_bad_argument
    journal = Journal(directory, strict=True, system=UNSYNCED)
    journal.append(before, "m")
    seen = snapshot(directory)
    with pytest.raises(LifecycleError) as caught:
        journal.append(after, "n")
    assert caught.value.name == "BadTransition"
    assert snapshot(directory) == seen
    assert Journal(directory, system=UNSYNCED).append(after, "n") == 2


@pytest.mark.parametrize("before", dict.fromkeys(before for before, _ in BAD))
def test_a_status_keeps_the_order_too(before: str, tmp_path: Path) -> None:
    for after in [after for each, after in BAD if each == before != after]:
        refuse_status(before, after, tmp_path / after)


def refuse_status(before: str, after: str, directory: Path) -> None:
    strict = Journal(directory, strict=True, system=UNSYNCED)
    strict.write_status(before, "m")
    seen = snapshot(directory)
    with pytest.raises(LifecycleError) as caught:
        strict.write_status(after, "n")
    assert caught.value.name == "BadTransition"
    assert snapshot(directory) == seen
    Journal(directory, system=UNSYNCED).write_status(after, "n")
    assert document(directory, "status")["state"] == after


@pytest.mark.parametrize("state", ORDER)
def test_the_same_status_may_be_said_again(state: str, tmp_path: Path) -> None:
    strict = Journal(tmp_path, strict=True)
    strict.write_status(state, "m")
    strict.write_status(state, "n")
    assert document(tmp_path, "status")["message"] == "n"


@pytest.mark.parametrize("state", ORDER[:7] + ORDER[9:])
def test_after_the_result_only_the_host_sees_more(state: str, tmp_path: Path) -> None:
    strict = Journal(tmp_path, strict=True)
    strict.append("ready", "m")
    strict.write_result("failed", 1, "m")
    seen = snapshot(tmp_path)
    with pytest.raises(LifecycleError) as caught:
        strict.append(state, "n")
    assert caught.value.name == "AlreadyFinished"
    assert snapshot(tmp_path) == seen
    assert Journal(tmp_path).append(state, "n") == 2


@pytest.mark.parametrize("state", ["stopped", "destroyed"])
def test_the_host_may_see_the_end_after_the_result(state: str, tmp_path: Path) -> None:
    strict = Journal(tmp_path, strict=True)
    strict.finish("failed", 1, "m")
    assert strict.append(state, "n") == 2
    strict.write_status(state, "n")


def test_a_batch_out_of_order_is_refused_whole(tmp_path: Path) -> None:
    strict = Journal(tmp_path, strict=True)
    strict.append("requested", "m")
    with pytest.raises(LifecycleError):
        strict.append_many([("ready", "m", None), ("booted", "m", None)])
    assert len(events(tmp_path)) == 1


def test_a_second_result_is_a_matter_of_order(tmp_path: Path) -> None:
    strict = Journal(tmp_path, strict=True)
    strict.write_result("failed", 1, "m")
    strict.write_result("failed", 1, "m")
    with pytest.raises(LifecycleError) as caught:
        strict.write_result("failed", 2, "m")
    assert caught.value.name == "AlreadyFinished"
    Journal(tmp_path).write_result("completed", 0, "m")
    assert document(tmp_path, "result")["status"] == "completed"


def test_an_unreadable_result_is_no_proof_of_order(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(b"{")
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path, strict=True).write_result("failed", 1, "m")
    assert caught.value.name == "Corrupt"
    assert str(tmp_path / "result.json") in str(caught.value)


# --- refused calls --------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "unknown kind": ("InvalidArgument", lambda j: j.append("redy", "m")),
    "kind of another case": ("InvalidArgument", lambda j: j.append("Ready", "m")),
    "kind None": ("InvalidArgument", lambda j: j.append(None, "m")),
    "kind is a list": ("InvalidArgument", lambda j: j.append(["ready"], "m")),
    "kind of 1 MiB": ("InvalidArgument", lambda j: j.append("x\n" * 2**19, "m")),
    "unknown state": ("InvalidArgument", lambda j: j.write_status("up", "m")),
    "state empty": ("InvalidArgument", lambda j: j.write_status("", "m")),
    "unknown status": ("InvalidArgument", lambda j: j.write_result("ready", 0, "m")),
    "message None": ("InvalidArgument", lambda j: j.append("ready", None)),
    "message is bytes": ("InvalidArgument", lambda j: j.write_status("ready", b"m")),
    "message is a number": ("InvalidArgument", lambda j: j.write_result("failed", 1, 5)),
    "message a lone surrogate": ("InvalidArgument", lambda j: j.append("ready", "\udce9")),
    "message of 17 KiB": ("TooLarge", lambda j: j.append("ready", "x" * 17 * 1024)),
    "message 16 KiB + 1": ("TooLarge", lambda j: j.write_status("ready", "é" * 8192 + "x")),
    "details of 64 KiB + 1": ("TooLarge", lambda j: j.append("ready", "m", "x" * (65536 - 1))),
    "event of 120 KiB": ("TooLarge", lambda j: j.append("ready", "\1" * 16384, "x" * 40_000)),
    "exit code 2^40": ("InvalidArgument", lambda j: j.write_result("failed", 2**40, "m")),
    "exit code 2^31": ("InvalidArgument", lambda j: j.finish("failed", 2**31, "m")),
    "exit code -2^31 - 1": ("InvalidArgument", lambda j: j.finish("failed", -(2**31) - 1, "m")),
    "exit code True": ("InvalidArgument", lambda j: j.write_result("failed", True, "m")),
    "exit code 1.0": ("InvalidArgument", lambda j: j.write_result("failed", 1.0, "m")),
    "exit code None": ("InvalidArgument", lambda j: j.finish("failed", None, "m")),
    "completed with 7": ("Inconsistent", lambda j: j.write_result("completed", 7, "m")),
    "finish completed with 7": ("Inconsistent", lambda j: j.finish("completed", 7, "m")),
    "failed with 0": ("Inconsistent", lambda j: j.finish("failed", 0, "m")),
    "no events": ("InvalidArgument", lambda j: j.append_many([])),
}


@pytest.mark.parametrize(("name", "work"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_call_changes_nothing(
    name: str, work: Callable[[Journal], Any], tmp_path: Path
) -> None:
    Journal(tmp_path, system=UNSYNCED).append("ready", "m")
    Journal(tmp_path, system=UNSYNCED).write_status("ready", "m")
    seen = snapshot(tmp_path)
    journal = Journal(tmp_path, system=UNSYNCED)
    with pytest.raises(LifecycleError) as caught:
        work(journal)
    assert caught.value.name == name
    assert caught.value.is_bad_argument
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert snapshot(tmp_path) == seen
    assert journal.append("ready", "m") == 2


@pytest.mark.parametrize("work", [work for _, work in REFUSED.values()], ids=REFUSED.keys())
def test_a_refused_first_call_makes_no_file(work: Callable[[Journal], Any], tmp_path: Path) -> None:
    with pytest.raises(LifecycleError):
        work(Journal(tmp_path / "new"))
    assert not snapshot(tmp_path)


@pytest.mark.parametrize(
    "message", ["", "x" * 16384, "é" * 8192, "\U0001f600" * 4096, "\1" * 16384]
)
def test_the_largest_messages_are_taken(message: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", message)
    journal.finish("failed", 1, message)
    said = [events(tmp_path)[0], document(tmp_path, "status"), document(tmp_path, "result")]
    assert [record["message"] for record in said] == [message] * 3


def test_the_largest_event_is_taken_and_read_back(tmp_path: Path) -> None:
    rest = lifecycle.MAX_EVENT - len(line(1, message="\1" * 16384)) - 200
    for seq in (1, 2):
        assert Journal(tmp_path).append("ready", "\1" * 16384, "x" * rest) == seq
    assert len(events(tmp_path)) == 2
    assert (tmp_path / "events.jsonl").stat().st_size > 2 * (lifecycle.MAX_EVENT - 200)


@pytest.mark.parametrize("code", [-(2**31), -1, 1, 255, 2**31 - 1])
def test_the_widest_exit_codes_are_taken(code: int, tmp_path: Path) -> None:
    Journal(tmp_path).finish("failed", code, "m")
    assert document(tmp_path, "result")["exit_code"] == code
