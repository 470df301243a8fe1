"""Says what is wrong with lifecycle artifacts after a crash; every layer of crash tests asks it.

`look` reads a directory; the `check` functions compare what was found with what was expected and
return faults as values, so that a harness can also count what the original does. `append`,
`recover` and `original` are what may happen after a crash: each goes on, then checks. They let a
writer's exceptions through; a harness counts those as REFUSED.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from crash import (
    Acked,
    Batch,
    Event,
    Expected,
    Finish,
    Mark,
    Result,
    Status,
    Work,
    is_original,
)
from crash.original import Original
from osbuild_pika import lifecycle

LOST = "lost"  # an acknowledged event or document is not there, or is not what was asked for
DUPLICATE = "duplicate"  # a seq or an event is there twice, or seqs do not increase
UNREADABLE = "unreadable"  # an artifact, or a line of one, that a strict reader rejects
GAP = "gap"  # a seq was skipped before an event of ours, and no cut-off original explains it
DISAGREE = "disagree"  # event, result and status do not tell the same end
REFUSED = "refused"  # a writer could not go on after the crash; reported by the harness
NEXT = Event("ready", "after the crash")  # what a writer appends when it goes on


@dataclass(frozen=True)
class Fault:
    """kind: one of the names above. detail: one line that says which."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Found:
    """The bytes of the artifacts in a directory; None where there is no such file."""

    log: bytes | None
    seq: bytes | None
    status: bytes | None
    result: bytes | None


def excuse(expected: Expected, crashed: Found) -> Expected:
    """Take away what an original lost by itself, and let it explain gaps.

    The original never syncs the directory, so a power loss can take events that it acknowledged.
    That is its own fault as long as no call of ours returned behind them; after that it is ours.
    crashed: what the crash left, before any writer touched it.
    """
    ours = [n for n, (_, event) in enumerate(expected.acked) if not is_original(event)]
    sure = expected.acked[: max(ours, default=-1) + 1]
    there = {event["seq"] for event in read_log(crashed.log)[0]}
    unsure = expected.acked[len(sure) :]
    kept = tuple((seq, event) for seq, event in unsure if seq in there)
    lost = len(unsure) - len(kept)
    return replace(expected, acked=sure + kept, cut_off=expected.cut_off + lost)


def look(directory: str | os.PathLike[str]) -> Found:
    """Read the artifacts in a directory."""

    return Found(
        _read(f"{os.fspath(directory)}/events.jsonl"),
        _read(f"{os.fspath(directory)}/events.jsonl.seq"),
        _read(f"{os.fspath(directory)}/status.json"),
        _read(f"{os.fspath(directory)}/result.json"),
    )


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        return None


def before(directory: str | os.PathLike[str]) -> tuple[list[Mark], int]:
    """Return the marks for all good there is in a directory when a test begins, and the floor."""
    found = look(directory)
    marks: list[Mark] = []
    floor = int(found.seq) if found.seq and found.seq.strip(b"+\n").isdigit() else 0
    for event in read_log(found.log)[0]:
        body = Event(event["kind"], event["message"], event.get("details"), "before")
        marks.append(Acked(body, event["seq"]))
        floor = max(floor, event["seq"])
    status, _ = _read_document(found.status, "status")
    result, _ = _read_document(found.result, "result")
    if status:
        marks.append(Acked(Status(status["state"], status["message"], status.get("details"))))
    if result:
        head = (result["status"], result.get("exit_code", 0), result["message"])
        marks.append(Acked(Result(*head, result.get("details"))))
    return marks, floor


def read_log(log: bytes | None) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Return the good events of a log, and a fault for each line that a strict reader rejects."""
    events: list[dict[str, Any]] = []
    faults: list[Fault] = []
    lines = (log or b"").split(b"\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines) and line:
            faults.append(Fault(UNREADABLE, f"torn tail of {len(line)} bytes: {line[:60]!r}"))
        elif line.strip():
            event, reason = _decode(line)
            if event is None:
                faults.append(Fault(UNREADABLE, f"line {number}, {line[:60]!r}: {reason}"))
            else:
                events.append(event)
    return events, faults


@lru_cache(4096)  # a harness shows the same lines again and again
def _decode(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        return lifecycle.decode("event", line), ""
    except lifecycle.LifecycleError as error:
        return None, str(error)


def check(found: Found, expected: Expected) -> list[Fault]:
    """Say what is wrong after a writer of ours went on behind a crash."""
    return check_log(found.log, expected) + check_documents(found, expected)


def check_log(log: bytes | None, expected: Expected) -> list[Fault]:
    """Say what is wrong with an event log that must be whole: no torn tail, no bad line."""
    events, faults = read_log(log)
    by_seq = {event["seq"]: event for event in reversed(events)}
    for seq, asked in expected.acked:
        if seq not in by_seq:
            faults.append(Fault(LOST, f"acknowledged event {seq}: {asked.message!r}"))
        elif not _is_event(by_seq[seq], asked):
            faults.append(Fault(LOST, f"event {seq} is {by_seq[seq]}, not {asked}"))
    times = Counter((event["kind"], event["message"]) for event in events)
    for name in {(asked.kind, asked.message) for asked in expected.asked}:
        if times[name] > 1:
            faults.append(Fault(DUPLICATE, f"event {name} is there {times[name]} times"))
    return faults + _check_seqs(events, expected)


def _check_seqs(events: Iterable[dict[str, Any]], expected: Expected) -> list[Fault]:
    faults: list[Fault] = []
    writers = {asked.message: asked.writer for asked in expected.asked}
    explained = expected.cut_off
    last = 0
    for event in events:
        seq = event["seq"]
        missing = seq - 1 - max(last, expected.floor)
        if seq <= last:
            faults.append(Fault(DUPLICATE, f"seq {seq} after {last}: {event['message']!r}"))
        elif missing > explained and writers.get(event["message"], "ours") == "ours":
            faults.append(Fault(GAP, f"seq {seq} after {last}: {event['message']!r}"))
        explained -= max(0, min(missing, explained))
        last = max(last, seq)
    return faults


def check_documents(found: Found, expected: Expected) -> list[Fault]:
    """Say what is wrong with status.json and result.json; they must be whole at any moment."""
    status, faults = _read_document(found.status, "status")
    result, more = _read_document(found.result, "result")
    faults += more
    if not faults and not any(_is_status(status, asked) for asked in expected.statuses):
        faults.append(Fault(LOST, f"status is {status}, not of {expected.statuses}"))
    if not faults and not any(_is_result(result, asked) for asked in expected.results):
        faults.append(Fault(LOST, f"result is {result}, not of {expected.results}"))
    return faults


def check_end(found: Found, expected: Expected) -> list[Fault]:
    """Say what is wrong with a run's end after recover(): all of it or nothing, and it agrees.

    A host may have seen the instance stop or go after its end; then the status says that.
    """
    ends = [event for event in read_log(found.log)[0] if event["kind"] in _ENDS]
    status, _ = _read_document(found.status, "status")
    result, _ = _read_document(found.result, "result")
    told: dict[str, tuple[Any, ...] | None] = {"event": None, "result": None, "status": None}
    if ends:
        exit_code = (ends[-1].get("details") or {}).get("exit_code")
        told["event"] = (ends[-1]["kind"], ends[-1]["message"], exit_code)
    if result:
        told["result"] = (result["status"], result["message"], result.get("exit_code"))
    if status and status["state"] in _ENDS:
        told["status"] = (status["state"], status["message"], result and result.get("exit_code"))
    elif status and status["state"] in _OBSERVED:
        told["status"] = told["result"]
    is_over = expected.is_finished or any(told.values())
    is_agreed = len(set(told.values())) == 1 and all(told.values())
    return [Fault(DISAGREE, str(told))] if is_over and not is_agreed else []


_ENDS = ("completed", "failed")
_OBSERVED = ("stopped", "destroyed")


def _read_document(data: bytes | None, kind: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    try:
        return (None if data is None else lifecycle.decode(kind, data)), []
    except lifecycle.LifecycleError as error:
        return None, [Fault(UNREADABLE, f"{kind}.json: {error}")]


def _is_event(event: dict[str, Any], asked: Event) -> bool:
    head = (event["kind"], event["message"])
    return head == (asked.kind, asked.message) and event.get("details") == asked.details


def _is_status(status: dict[str, Any] | None, asked: Status | None) -> bool:
    if status is None or asked is None:
        return status is None and asked is None
    head = (status["state"], status["message"])
    return head == (asked.state, asked.message) and _details(status) == (asked.details or {})


def _is_result(result: dict[str, Any] | None, asked: Result | None) -> bool:
    if result is None or asked is None:
        return result is None and asked is None
    head = (result["status"], result.get("exit_code"), result["message"])
    wanted = (asked.status, asked.exit_code, asked.message)
    return head == wanted and _details(result) == (asked.details or {})


def _details(document: dict[str, Any]) -> dict[str, Any]:
    # finish() may tell the exit code in the details of all three, for recover().
    details = document.get("details") or {}
    return {name: value for name, value in details.items() if name != "exit_code"}


def do(writer: Any, work: Work) -> int:
    """Have a writer do a work. Returns the seq of its first event, 0 if it has none."""
    if isinstance(work, Event):
        return int(writer.append(work.kind, work.message, work.details))
    if isinstance(work, Batch):
        return int(writer.append_many([(e.kind, e.message, e.details) for e in work.events])[0])
    if isinstance(work, Finish):
        return int(writer.finish(*vars(work.result).values()))
    if isinstance(work, Status):
        writer.write_status(*vars(work).values())
    else:
        writer.write_result(*vars(work).values())
    return 0


def recover_log(directory: Path, system: Any = os) -> None:
    """Call recover(), which refuses where there is no log to recover."""
    if (directory / "events.jsonl").exists():
        with lifecycle.Journal(directory, system=system) as journal:
            journal.recover()


def append(directory: Path, expected: Expected) -> list[Fault]:
    """A fresh writer of ours appends an event, without recover()."""
    faults = check_documents(look(directory), expected)
    with lifecycle.Journal(directory) as journal:
        after = expected.and_acked(NEXT, do(journal, NEXT))
    return faults + check(look(directory), after)


def recover(directory: Path, expected: Expected) -> list[Fault]:
    """recover() puts all in order; then a fresh writer appends."""
    recover_log(directory)
    found = look(directory)
    # recover() completes a status.json from a result that stands alone.
    ends = tuple(Finish(end).status for end in expected.results if end)
    expected = replace(expected, statuses=expected.statuses + ends)
    faults = check(found, expected)
    if expected.finish:
        faults += check_end(found, expected)
    return faults + append(directory, expected)


def original(directory: Path, expected: Expected) -> list[Fault]:
    """The original appends, as it may in a guest with an old helper."""
    asked = replace(NEXT, writer="original")
    directory.mkdir(parents=True, exist_ok=True)
    after = expected.and_acked(asked, do(Original(directory), asked))
    return check(look(directory), after)
