"""What a look at an instance says about a wait."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika import lifecycle
from osbuild_pika.incus.waiting import (
    Failed,
    Gone,
    Reached,
    Seen,
    Word,
    decide,
    last_word,
    records,
    words_of,
)

BOOT = "7f27c0de-1111-4222-8333-444455556666"
OTHER = "7f27c0de-0000-4000-8000-000000000000"
STATES = st.sampled_from(lifecycle.STATES)
WORDS = st.lists(st.builds(Word, STATES, st.just("m")), max_size=4).map(tuple)
LOOKS = st.builds(
    Seen,
    st.sampled_from(["Running", "Stopped", "Starting", "Error", "Frozen", ""]),
    st.sampled_from([BOOT, None]),
    st.booleans(),
    WORDS,
)


def running(*states: str) -> Seen:
    return Seen("Running", BOOT, True, tuple(Word(state, f"m-{state}") for state in states))


@pytest.mark.parametrize(
    ("wanted", "said", "outcome"),
    [
        ("ready", ("booted", "starting"), None),
        ("ready", ("booted", "ready"), Reached("ready", "m-ready")),
        ("starting", ("ready",), Reached("ready", "m-ready")),
        ("ready", ("completed",), Reached("completed", "m-completed")),
        ("ready", ("ready", "failed"), Failed("m-failed")),
        ("failed", ("failed",), Reached("failed", "m-failed")),
        ("completed", ("ready",), None),
        ("completed", ("failed",), Failed("m-failed")),
        ("unreachable", ("unreachable", "ready"), Reached("unreachable", "m-ready")),
        ("ready", ("ready", "starting"), Reached("ready", "m-starting")),
        ("stopped", ("stopped",), None),
        ("destroyed", ("destroyed",), None),
        ("ready", ("stopped",), None),
        ("booted", (), Reached("booted", "")),
        ("booted", ("failed",), Failed("m-failed")),
        ("provisioning", (), Reached("provisioning", "")),
        ("ready", (), None),
    ],
)
def test_what_a_running_guest_said(wanted: str, said: tuple[str, ...], outcome: Any) -> None:
    assert decide(wanted, running(*said)) == outcome


@pytest.mark.parametrize(
    ("wanted", "seen", "outcome"),
    [
        ("booted", Seen("Running", BOOT, False), None),
        ("booted", Seen("Starting"), None),
        ("ready", Seen("Stopped"), Gone("stopped", "")),
        ("ready", Seen("Error"), Gone("stopped", "")),
        ("ready", Seen(""), Gone("deleted", "")),
        (
            "ready",
            Seen("Stopped", BOOT, True, (Word("starting", "m"),)),
            Gone("stopped", "starting: m"),
        ),
        ("ready", Seen("Stopped", BOOT, True, (Word("failed", "m"),)), Failed("m")),
        ("stopped", Seen("Stopped"), Reached("stopped", "")),
        ("stopped", Seen(""), Gone("deleted", "")),
        ("destroyed", Seen(""), Reached("destroyed", "")),
        ("destroyed", Seen("Stopped"), Gone("stopped", "")),
    ],
)
def test_what_the_host_saw(wanted: str, seen: Seen, outcome: Any) -> None:
    assert decide(wanted, seen) == outcome


@given(STATES, LOOKS)
def test_ready_is_reached_only_by_the_guests_own_word(wanted: str, seen: Seen) -> None:
    outcome = decide(wanted, seen)
    said = {word.state for word in seen.words}
    assert not isinstance(outcome, Failed) or seen.words[-1].state == "failed"
    assert not isinstance(outcome, Gone) or seen.instance in ("Stopped", "Error", "")
    assert outcome != Reached("ready", "m") or "ready" in said
    is_word = isinstance(outcome, Reached) and outcome.message == "m"
    assert not is_word or {"wanted": wanted, **vars(outcome)}["state"] in said


def document(kind: str, state: str, boot: str | None = BOOT, **more: Any) -> bytes:
    times = {"status": "updated_at", "event": "timestamp", "result": "finished_at"}
    heads = {"status": "state", "event": "kind", "result": "status"}
    found = {"schema_version": 1, heads[kind]: state, times[kind]: "t", "message": "m", **more}
    return json.dumps(found if boot is None else {**found, "boot_id": boot}).encode()


def lines(*states: str, boot: str | None = BOOT) -> bytes:
    events = [document("event", each, boot, seq=at + 1) for at, each in enumerate(states)]
    return b"\n".join([*events, b""])


@pytest.mark.parametrize("boot", [OTHER, None])
def test_words_of_another_boot_or_of_none_do_not_count(boot: str | None) -> None:
    words, note = words_of(BOOT, document("status", "ready", boot), lines("ready", boot=boot))
    assert (words, note) == ((), "its status.json is not of this boot")
    assert records(BOOT, document("status", "ready", boot), lines("ready", boot=boot), None) == {}


def test_the_status_is_the_last_word() -> None:
    words, note = words_of(BOOT, document("status", "failed"), lines("starting", "ready"))
    assert [(word.state, word.seq) for word in words] == [
        ("starting", 1),
        ("ready", 2),
        ("failed", 0),
    ]
    assert note == ""


@pytest.mark.parametrize("status", [b"", b"{", b"\0" * 100, b"[" * 5000, b'{"state": "ready"}'])
def test_a_status_that_is_none_leaves_the_events(status: bytes) -> None:
    words, note = words_of(BOOT, status, lines("ready"))
    assert [word.state for word in words] == ["ready"]
    assert note == "its status.json is not one"


@given(st.integers(0, 400))
def test_a_tail_that_begins_anywhere_has_no_torn_word(cut: int) -> None:
    events = lines("booted", "starting", "ready")
    words, _ = words_of(BOOT, None, events[cut:] + b'{"schema_version":1,"kind":"fai')
    assert [word.state for word in words] == ["booted", "starting", "ready"][3 - len(words) :]


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_of_a_guest_are_an_error(status: bytes, events: bytes, result: bytes) -> None:
    assert words_of(BOOT, status, events)[0] == ()
    assert records(BOOT, status, events, result) == {}


def test_what_is_kept_is_of_this_boot() -> None:
    events = lines("ready", boot=OTHER) + lines("starting") + b"nonsense\n" + lines("completed")
    status, result = document("status", "completed"), document("result", "completed", None)
    kept = records(BOOT, status, events, result)
    assert (kept["status.json"], kept["result.json"]) == (status, result)
    kinds = [json.loads(line)["kind"] for line in kept["events.jsonl"].splitlines()]
    assert kinds == ["starting", "completed"]


def test_a_result_without_an_end_of_this_boot_is_yesterdays() -> None:
    result = document("result", "completed", None)
    assert "result.json" not in records(BOOT, document("status", "ready"), None, result)


def test_messages_are_made_safe() -> None:
    evil = document("status", "failed").replace(b'"m"', b'"\\u001b[2J\\nforged"')
    (word,), _ = words_of(BOOT, evil, None)
    assert word.message == "\ufffd[2J forged"


def test_why_nothing_counted_is_told() -> None:
    assert last_word(Seen("Running", BOOT, note="why")) == "it said nothing of this boot; why"
    assert last_word(running("starting")) == "it said last: starting: m-starting"
