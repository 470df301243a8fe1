"""Whether a setup task is to run: one function of frozen values, which asks for what it lacks.

Asking is costly (a hash reads files, an invalidator may call a server), so `decide` gives back the
name of the first fact that it needs and does not have; who calls it finds that out and asks again.
"""

from __future__ import annotations

import enum
import math
from typing import Literal, NamedTuple

Question = Literal["completed", "hash", "valid"]


class Lack(enum.Enum):
    """Why a fact is not there."""

    ABSENT = "the task has no such function"
    UNASKED = "nobody has asked it yet"


ABSENT = Lack.ABSENT
UNASKED = Lack.UNASKED


class Stamp(NamedTuple):
    """What is kept of a task that is done.

    time_ns: wall clock, when it was written. run: see counter.py. hash: "" if the task has none.
    """

    time_ns: int
    run: int
    hash: str
    boot_id: str | None


class Moment(NamedTuple):
    """When something happened.

    run: a number that only grows (counter.py); 0 where only the time is known.
    time_ns: wall clock.
    """

    run: int
    time_ns: int


class Past(NamedTuple):
    """Something that a task must not be older than. is_now: it ran, or would run, in this walk."""

    name: str
    moment: Moment
    is_now: bool = False


class Facts(NamedTuple):
    """What is known of a task.

    fault: why its stamp cannot be read, "" if it can or there is none. earlier: what it follows.
    completed, hash, valid: what its functions say now; seconds since the epoch are a time.
    """

    stamp: Stamp | None
    fault: str = ""
    earlier: tuple[Past, ...] = ()
    completed: object = ABSENT
    hash: str | Lack = ""
    valid: bool | Lack = True


class Verdict(NamedTuple):
    """moments: when a task that is done was done, for what follows it; () where nobody knows."""

    should_run: bool
    reason: str
    moments: tuple[Moment, ...] = ()


# A task that would run is later than all that ever ran.
FUTURE = Moment(2**63, 2**63 * 1000)


def decide(facts: Facts) -> Verdict | Question:
    """The verdict, or the fact that it needs. Raises ValueError for a `completed` that is none."""
    if facts.completed is UNASKED:
        return "completed"
    if facts.completed is not ABSENT:
        return _decide_completed(facts)
    if facts.stamp is None:
        return Verdict(True, facts.fault or "not done yet")
    mine = moment_of(facts.stamp)
    reason = _what_is_later(facts.earlier, mine)
    if reason:
        return Verdict(True, reason)
    if isinstance(facts.hash, Lack):
        return "hash"
    if facts.hash != facts.stamp.hash:
        return Verdict(True, "the hash differs")
    if facts.valid is UNASKED:
        return "valid"
    if not facts.valid:
        return Verdict(True, "it is no longer valid")
    return Verdict(False, "done", (mine,))


def moment_of(stamp: Stamp) -> Moment:
    return Moment(stamp.run, stamp.time_ns)


def time_of(completed: object) -> int | None:
    """Nanoseconds of what a check_completed function says; None for True and False.

    Raises ValueError for all that is neither True, False nor a time.
    """
    if isinstance(completed, bool):
        return None
    if not isinstance(completed, int | float) or not math.isfinite(completed):
        what = f"check_completed says {ascii(completed)[:60]}; it is to be True, False or a time"
        raise ValueError(what)
    return round(completed * 1e9)


def _decide_completed(facts: Facts) -> Verdict:
    """A stamp then tells only when the task last changed something, for those that follow it."""
    stamped = (moment_of(facts.stamp),) if facts.stamp else ()
    time_ns = time_of(facts.completed)
    if time_ns is None:
        if facts.completed:
            return Verdict(False, "check_completed says it is done", stamped)
        return Verdict(True, "check_completed says it is not done")
    mine = Moment(0, time_ns)
    reason = _what_is_later(facts.earlier, mine)
    if reason:
        return Verdict(True, reason)
    return Verdict(False, "check_completed says when it was done", (*stamped, mine))


def _what_is_later(earlier: tuple[Past, ...], mine: Moment) -> str:
    """The reason to run that lies in what was to be done before; "" if there is none."""
    for past in earlier:
        if past.is_now and (mine.run or _is_later(past.moment, mine)):
            return f"follows {past.name}"
        if _is_later(past.moment, mine):
            return f"{past.name} ran later"
    return ""


def _is_later(one: Moment, other: Moment) -> bool:
    """Strictly. Times decide only where one of them has nothing else."""
    if one.run and other.run:
        return one.run > other.run
    return one.time_ns > other.time_ns
