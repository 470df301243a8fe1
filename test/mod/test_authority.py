"""Who may say what: whatever is asked, the only error is one with a stable name."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.lifecycle_service import authority
from osbuild_pika.lifecycle_service.authority import Event, Stage

STAGE = Stage("web", "os", "org.example", "ab", False)
HUGE = 10**4299  # json.loads takes no more digits
STAGE_METHODS = ["event", "events", "progress", "artifact", "result", "flush"]
MANAGER_METHODS = ["open", "own", "close"]
OWNER_METHODS = ["event", "events", "status", "result", "flush"]
# What json.loads can return, with the names that mean something.
NAMES = ["message", "details", "name", "kind", "items", "done", "total", "unit", "path", "status"]
NAMES += ["exit_code", "state", "event", "run", "facts", "pipeline", "stage", "stage_id", "final"]
WORDS = [*lifecycle.STATES, "stage.note", "build.x", "a/b", "../x", "/x", "", "\ud800", "a\0"]
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(st.characters(codec=None), max_size=8)
)
JSON = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)
ARGS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5) | JSON


def error_of(action: Any, *args: Any) -> str:
    """The name of the error that a call raises, "" if none."""
    told = LifecycleError("", "")
    try:
        action(*args)
    except LifecycleError as error:
        told = error
    assert str(told).isprintable()
    assert len(str(told)) < 500
    return told.name


@pytest.mark.parametrize("method", [*STAGE_METHODS, *MANAGER_METHODS, *OWNER_METHODS, "x", ""])
def test_each_caller_has_its_own_methods(method: str) -> None:
    def check(is_manager: bool, is_owner: bool) -> str:
        return error_of(authority.check_method, method, is_manager, is_owner)

    unowned = "NotOpen" if method in OWNER_METHODS else "InvalidArgument"
    owner_only = [*MANAGER_METHODS, *OWNER_METHODS]
    assert check(False, True) == ("" if method in STAGE_METHODS else "InvalidArgument")
    assert check(True, False) == ("" if method in MANAGER_METHODS else unowned)
    assert check(True, True) == ("" if method in owner_only else "InvalidArgument")


def test_arguments_come_in_the_order_of_their_names() -> None:
    assert authority.take("m", {"b": 2, "a": 1}, ("a",), ("b", "c")) == [1, 2, None]
    assert error_of(authority.take, "m", {}, ("a",), ()) == "InvalidArgument"
    assert error_of(authority.take, "m", {"a": 1, "d": 1}, ("a",), ()) == "InvalidArgument"
    assert error_of(authority.take, "m", [], (), ()) == "InvalidArgument"


def test_options_say_which_stage_it_is() -> None:
    assert authority.stage_of({}) == Stage(None, None, None, None, False)
    options = {"run": "r", "pipeline": "p", "stage": "s", "stage_id": "i", "final": True}
    assert authority.stage_of(options) == Stage("r", "p", "s", "i", True)
    assert authority.stage_of({"stage": "s" * 256}).stage == "s" * 256
    assert error_of(authority.stage_of, {"stage": "s" * 257}) == "InvalidArgument"
    assert error_of(authority.stage_of, {"final": 1}) == "InvalidArgument"


def test_a_stamp_is_over_whatever_was_sent() -> None:
    sent = dict.fromkeys(("source", "run_id", "pipeline", "stage", "stage_id", "mine"), "lie")
    said = {"source": "stage", "run_id": "r", "pipeline": "os", "stage": "org.example"}
    assert authority.stamp(sent, STAGE, "r") == {"mine": "lie", **said, "stage_id": "ab"}
    assert authority.stamp(sent, Stage(None, None, None, None, True), "r") == {
        "mine": "lie",
        "source": "stage",
        "run_id": "r",
    }
    assert sent["source"] == "lie", "what was given is not changed"


@given(st.dictionaries(st.sampled_from([*NAMES, "source", "run_id"]), JSON))
def test_no_details_take_another_identity(details: dict[str, Any]) -> None:
    kept = authority.stamp(details, STAGE, "r")
    assert (kept["source"], kept["run_id"]) == ("stage", "r")
    assert tuple(kept[name] for name in ("pipeline", "stage", "stage_id")) == STAGE[1:4]


def test_what_the_events_of_a_stage_are() -> None:
    def told(method: str, args: Any) -> list[tuple[Any, Any]]:
        events = authority.stage_events(method, args, Stage(None, None, None, None, False), "r")
        base = {"source": "stage", "run_id": "r"}
        assert all(event.kind is None for event in events)
        return [(e.message, {k: v for k, v in e.details.items() if k not in base}) for e in events]

    assert told("event", {"message": "m"}) == [("m", {"event": "stage.note"})]
    assert told("event", {"message": "m", "name": "a-b.c_d0"}) == [("m", {"event": "a-b.c_d0"})]
    progress = {"event": "stage.progress", "done": 1}
    assert told("progress", {"done": 1}) == [("1", progress)]
    assert told("progress", {"done": 1, "unit": "B"}) == [("1 B", {**progress, "unit": "B"})]
    assert told("progress", {"done": 1, "total": 2}) == [("1 of 2", {**progress, "total": 2})]
    artifact = {"event": "artifact", "path": "a/b"}
    assert told("artifact", {"path": "a/b"}) == [("a/b", artifact)]
    assert told("artifact", {"path": "a/b", "message": "m"}) == [("m", artifact)]
    assert told("artifact", {"path": "a/b", "details": {"path": "../x", "event": "x", "y": 1}}) == [
        ("a/b", {**artifact, "y": 1})
    ]


def test_what_the_events_of_an_owner_are() -> None:
    items = [{"message": "a"}, {"message": "b", "kind": "provisioning", "details": {"run_id": "x"}}]
    assert authority.owner_events("events", {"items": items}, "r") == [
        Event(None, "a", {"run_id": "r"}),
        Event("provisioning", "b", {"run_id": "r"}),
    ]


@pytest.mark.parametrize("kind", ["completed", "failed", "x", "", 1, [], {}])
def test_an_owners_end_is_said_with_result_alone(kind: Any) -> None:
    event = {"message": "m", "kind": kind}
    assert error_of(authority.owner_events, "event", event, "r") == "InvalidArgument"
    status = {"message": "m", "state": kind}
    assert error_of(authority.status_of, status) == "InvalidArgument"


def test_a_result_has_the_exit_code_that_goes_with_it() -> None:
    assert authority.result_of({"status": "completed", "message": "m"}) == ("completed", 0, "m", {})
    assert authority.result_of({"status": "failed", "message": "m"}) == ("failed", 1, "m", {})
    args = {"status": "completed", "message": "m", "exit_code": 1}
    assert error_of(authority.result_of, args) == "Inconsistent"


@given(ARGS)
@example({"items": [{"message": "m"}] * 257})
@example({"message": "m", "name": HUGE})
@example({"done": HUGE})
@example({"done": 1, "total": HUGE})
@example({"status": "failed", "message": "m", "exit_code": HUGE})
def test_garbage_is_refused_by_name(args: Any) -> None:
    known = ("", "InvalidArgument", "TooLarge", "Inconsistent")
    for method in authority.WRITING:
        assert error_of(authority.stage_events, method, args, STAGE, "r") in known
        assert error_of(authority.owner_events, method, args, "r") in known
    for take in (authority.status_of, authority.result_of, authority.stage_of):
        assert error_of(take, args) in known
