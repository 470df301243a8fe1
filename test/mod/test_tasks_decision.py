"""Whether a setup task runs: every pair of states of what is known of it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from osbuild_pika.tasks.decision import (
    ABSENT,
    FUTURE,
    UNASKED,
    Facts,
    Moment,
    Past,
    Stamp,
    Verdict,
    decide,
)

S = 1_000_000_000  # nanoseconds
NONE = None
DONE = Stamp(time_ns=50 * S, run=50, hash="new", boot_id=None)

# Each dimension: the name of a state -> what stands for it in Facts.
STAMPS: dict[str, tuple[Stamp | None, str]] = {
    "none": (None, ""),
    "damaged": (None, "its stamp cannot be used: it is damaged"),
    "there": (DONE, ""),
}
HASHES: dict[str, Any] = {"unasked": UNASKED, "same": "new", "differs": "old"}
VALID: dict[str, Any] = {"unasked": UNASKED, "valid": True, "invalid": False}
EARLIER: dict[str, tuple[Past, ...]] = {
    "nothing": (),
    "earlier": (Past("base", Moment(49, 49 * S)),),
    "same": (Past("base", Moment(50, 50 * S)),),
    "later": (Past("first", Moment(1, 1 * S)), Past("base", Moment(51, 51 * S))),
    "later by the clock alone": (Past("base", Moment(49, 90 * S)),),
    "later but for the clock": (Past("base", Moment(51, 10 * S)),),
    "a time before": (Past("base", Moment(0, 49 * S)),),
    "a time after": (Past("base", Moment(0, 51 * S)),),
    "now": (Past("base", Moment(52, 52 * S), is_now=True),),
    "would run": (Past("base", FUTURE, is_now=True),),
}
COMPLETED: dict[str, Any] = {
    "absent": ABSENT,
    "unasked": UNASKED,
    "true": True,
    "false": False,
    "time": 50.0,
}

# What makes a task of run 50 stale; and one that check_completed says was done at second 50.
LATER_THAN_STAMP = {"later", "later but for the clock", "a time after", "now", "would run"}
LATER_THAN_TIME = {"later", "later by the clock alone", "a time after", "now", "would run"}

CASES = list(itertools.product(STAMPS, HASHES, VALID, EARLIER, COMPLETED))


def answer(case: tuple[str, str, str, str, str]) -> Verdict | str:
    stamp, digest, valid, earlier, completed = case
    known, fault = STAMPS[stamp]
    return decide(
        Facts(known, fault, EARLIER[earlier], COMPLETED[completed], HASHES[digest], VALID[valid])
    )


def expected(case: tuple[str, str, str, str, str]) -> str:
    """The rules in their order, the first that applies: "run", "done", or what is asked."""
    stamp, digest, valid, earlier, completed = case
    rules = [
        (completed == "unasked", "completed"),
        (completed == "true", "done"),
        (completed == "false", "run"),
        (completed == "time", "run" if earlier in LATER_THAN_TIME else "done"),
        (stamp != "there", "run"),
        (earlier in LATER_THAN_STAMP, "run"),
        (digest == "unasked", "hash"),
        (digest == "differs", "run"),
        (valid == "unasked", "valid"),
        (valid == "invalid", "run"),
        (True, "done"),
    ]
    return next(what for applies, what in rules if applies)


def word(found: Verdict | str) -> str:
    return found if isinstance(found, str) else ("run" if found.should_run else "done")


def test_the_first_rule_that_applies_decides() -> None:
    assert len(CASES) == 3 * 3 * 3 * 10 * 5
    wrong = [case for case in CASES if word(answer(case)) != expected(case)]
    assert not wrong


def test_nothing_is_asked_that_cannot_change_the_verdict() -> None:
    """Who is asked a question gets a verdict, or the next question, by the answer alone."""
    asked = Facts(DONE, "", (), ABSENT, UNASKED, UNASKED)
    assert decide(asked) == "hash"
    assert decide(asked._replace(hash="new")) == "valid"
    assert word(decide(asked._replace(hash="old"))) == "run"
    assert word(decide(asked._replace(stamp=None))) == "run"
    assert word(decide(asked._replace(earlier=EARLIER["later"]))) == "run"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(None), "not done yet"),
        (Facts(None, "its stamp cannot be used: it is a link"), "its stamp cannot be used"),
        (Facts(DONE, earlier=EARLIER["later"]), "base ran later"),
        (Facts(DONE, earlier=EARLIER["now"]), "follows base"),
        (Facts(DONE, earlier=EARLIER["would run"]), "follows base"),
        (Facts(DONE, hash="old"), "the hash differs"),
        (Facts(DONE, hash="new", valid=False), "it is no longer valid"),
        (Facts(DONE, hash="new"), "done"),
        (Facts(DONE, completed=True), "check_completed says it is done"),
        (Facts(None, completed=False), "check_completed says it is not done"),
    ],
)
def test_each_verdict_has_its_reason(facts: Facts, reason: str) -> None:
    verdict = decide(facts)
    assert isinstance(verdict, Verdict)
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize("answered", [None, "yes", math.nan, math.inf, b"", ()])
def test_check_completed_says_true_or_false_or_a_time(answered: object) -> None:
    with pytest.raises(ValueError, match="it is to be True, False or a time"):
        decide(Facts(DONE, completed=answered))


def test_a_time_that_is_done_is_passed_on_with_the_run_that_did_it() -> None:
    verdict = decide(Facts(DONE, completed=70.5))
    assert isinstance(verdict, Verdict)
    assert verdict.moments == (Moment(50, 50 * S), Moment(0, 70 * S + S // 2))


def test_what_check_completed_calls_done_is_not_older_than_its_last_run() -> None:
    verdict = decide(Facts(DONE, completed=True))
    assert isinstance(verdict, Verdict)
    assert verdict.moments == (Moment(50, 50 * S),)
