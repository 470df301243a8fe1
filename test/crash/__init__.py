"""Crash tests of the lifecycle writer, and the words in which all their layers talk.

A harness keeps marks outside the files, in the order in which it saw things happen: Asked before
a call, Acked when the call returned, Crashed when a crash cut off all that was in flight. From
them `expect` says what must, and what may, be in the directory; oracle.py compares.

Each event of a test needs a kind and message of its own: by them an event is known again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Writer = Literal["ours", "original", "before"]


@dataclass(frozen=True)
class Event:
    """An event that a writer was asked to append. `before`: it was there when the test began."""

    kind: str
    message: str
    details: Any = None
    writer: Writer = "ours"


@dataclass(frozen=True)
class Batch:
    """Events that were asked for with one call."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Status:
    """A status.json that a writer was asked for."""

    state: str
    message: str
    details: Any = None


@dataclass(frozen=True)
class Result:
    """A result.json that a writer was asked for."""

    status: str
    exit_code: int
    message: str
    details: Any = None


@dataclass(frozen=True)
class Finish:
    """A call of finish(): a terminal event, a result and a status."""

    result: Result

    @property
    def event(self) -> Event:
        details = self.result.details or {}
        exit_code = {"exit_code": self.result.exit_code}
        return Event(self.result.status, self.result.message, details | exit_code)

    @property
    def status(self) -> Status:
        return Status(self.result.status, self.result.message, self.result.details)


Work = Event | Batch | Status | Result | Finish


@dataclass(frozen=True)
class Asked:
    """A call is about to be made."""

    work: Work


@dataclass(frozen=True)
class Acked:
    """A call returned. seq: of its event, or of the first event of its batch."""

    work: Work
    seq: int = 0


@dataclass(frozen=True)
class Crashed:
    """Calls in flight were cut off: what they had not done by now, they will never do.

    work: the one that was; None: all.
    """

    work: Work | None = None


Mark = Asked | Acked | Crashed


@dataclass(frozen=True)
class Expected:
    """What a directory must and may hold.

    acked: (seq, event) that must be there. asked: all events that may be there.
    statuses, results: one of them is what the file must say; None is "no file".
    finish: the end of the run that was asked for, and whether it was acknowledged.
    floor: seqs up to this may be missing. cut_off: seqs that cut-off originals may have used up.
    """

    acked: tuple[tuple[int, Event], ...] = ()
    asked: tuple[Event, ...] = ()
    statuses: tuple[Status | None, ...] = (None,)
    results: tuple[Result | None, ...] = (None,)
    finish: Finish | None = None
    is_finished: bool = False
    floor: int = 0
    cut_off: int = 0

    def and_acked(self, event: Event, seq: int) -> Expected:
        """The same, and one more event was asked for and acknowledged."""
        acked = (*self.acked, (seq, event))
        return replace(self, acked=acked, asked=(*self.asked, event))


@dataclass
class _Call:
    """One call as the marks saw it; `ended` is beyond all marks while it is in flight."""

    work: Work
    began: int
    ended: int
    seq: int = 0
    is_acked: bool = False


def _calls(marks: Sequence[Mark]) -> list[_Call]:
    calls: list[_Call] = []
    in_flight: list[_Call] = []
    for now, mark in enumerate(marks):
        if isinstance(mark, Crashed):
            for call in in_flight:
                if mark.work in (None, call.work):
                    call.ended = now
            in_flight = [call for call in in_flight if call.ended > now]
            continue
        same = [call for call in in_flight if call.work == mark.work]
        call = same[0] if same else _Call(mark.work, now, len(marks))
        if not same:
            calls.append(call)
            in_flight.append(call)
        if isinstance(mark, Acked):
            call.ended, call.seq, call.is_acked = now, mark.seq, True
            in_flight.remove(call)
    return calls


def _events(work: Work) -> tuple[Event, ...]:
    if isinstance(work, Finish):
        return (work.event,)
    if isinstance(work, Batch):
        return work.events
    return (work,) if isinstance(work, Event) else ()


def _candidates(calls: Sequence[tuple[_Call, Any]]) -> tuple[Any, ...]:
    """What a file may hold after calls that may overlap: what no later acked call replaced."""
    last_began = max((call.began for call, _ in calls if call.is_acked), default=-1)
    values = [value for call, value in calls if call.ended >= last_began]
    return tuple(values) if last_began >= 0 else (None, *values)


def expect(marks: Sequence[Mark], floor: int = 0) -> Expected:
    """Fold marks, in the order in which they were made, into what a directory must and may hold.

    floor: the highest seq that was used up when the test began.
    """
    calls = _calls(marks)
    ends = [(call, call.work) for call in calls if isinstance(call.work, Finish)]
    statuses = [(call, call.work) for call in calls if isinstance(call.work, Status)]
    results = [(call, call.work) for call in calls if isinstance(call.work, Result)]
    acked = [call for call in calls if call.is_acked]
    return Expected(
        acked=tuple(
            (call.seq + n, event) for call in acked for n, event in enumerate(_events(call.work))
        ),
        asked=tuple(event for call in calls for event in _events(call.work)),
        statuses=_candidates([*statuses, *((call, end.status) for call, end in ends)]),
        results=_candidates([*results, *((call, end.result) for call, end in ends)]),
        finish=ends[-1][1] if ends else None,
        is_finished=any(call.is_acked for call, _ in ends),
        floor=floor,
        cut_off=sum(is_original(call.work) for call in calls if not call.is_acked),
    )


def is_original(work: Work) -> bool:
    return isinstance(work, Event) and work.writer == "original"
