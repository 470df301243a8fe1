"""Layer L1 of the crash tests: no crash state of the writer loses, doubles or garbles a record.

Each scenario runs on a recorder. Every state that a crash can leave is then made for real in a
directory in memory, a writer goes on from there, and the oracle looks at what is there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crash import (
    Acked,
    Asked,
    Batch,
    Crashed,
    Event,
    Expected,
    Finish,
    Result,
    Status,
    Work,
    expect,
    is_original,
    oracle,
    states,
)
from crash.oracle import Fault, append, original, recover
from crash.original import Original

from osbuild_pika.lifecycle import Journal, LifecycleError

TIME = re.compile(rb":\d\d?")  # minutes and seconds, also of a torn timestamp
END = Finish(Result("failed", 3, "the end", {"why": "a test"}))
Files = dict[str, bytes | None]
FAULTS = ("lost", "duplicate", "unreadable", "gap", "disagree", "refused")


def event(name: object, **fields: Any) -> Event:
    return Event("ready", f"event {name}", {"name": str(name)}, **fields)


Prepare = Callable[[Path], None]
Action = Callable[[Path, Expected], list[Fault]]


class Run:
    """What writers do to one directory, recorded, with marks of what they were asked for.

    prepare: fills the directory before. place: where below it the writers work.
    """

    def __init__(self, directory: Path, prepare: Prepare, place: str = ".") -> None:
        directory.mkdir(exist_ok=True)
        prepare(directory)
        self.directory = directory
        self.place = place
        # In a damaged log writers are refused until recover().
        self.is_damaged = prepare is damage
        self.base, self.floor = oracle.before(directory)
        self.recorder = states.Recorder(directory)
        self.process = states.Process(self.recorder)

    def play(self, script: Script) -> None:
        directory = self.directory / self.place
        for step in script:
            with self.process:
                if not step.works:
                    oracle.recover_log(directory, self.process)
                writer = step.writer(directory, system=self.process)
                for work in step.works:
                    self.recorder.note(Asked(work))
                    self.recorder.note(Acked(work, oracle.do(writer, work)))

    def judge(
        self, crash: states.Crash, memory: Path, actions: Sequence[Action]
    ) -> Iterator[tuple[Action, Fault]]:
        """Make what a crash left in `memory`, let each action go on from there, yield faults."""
        place = memory / self.place
        expected: Expected | None = None
        for action in actions:
            crash.materialise(memory)
            if expected is None:
                marked = expect([*self.base, *crash.marks], self.floor)
                expected = oracle.excuse(marked, oracle.look(place))
            try:
                yield from ((action, fault) for fault in action(place, expected))
            except (LifecycleError, OSError, ValueError) as error:
                yield action, Fault(oracle.REFUSED, f"{action.__name__}: {error!r}")


@dataclass
class Tally:
    """What was judged. kinds: of faults. originals: what the original did next, only counted."""

    memory: Path
    every: int = 1  # of how many new crashes one is judged
    judged: int = 0
    seen: set[tuple[bytes, str]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    originals: Counter[str] = field(default_factory=Counter)

    def play(self, run: Run, script: Script) -> None:
        """Play a script, and judge crashes in or after it that were not seen before."""
        start = len(run.recorder.log)
        with contextlib.suppress(*[LifecycleError] * run.is_damaged):
            run.play(script)
        crashes = states.crashes(run.recorder, start)
        for marks, group in itertools.groupby(crashes, lambda crash: crash.marks):
            # A second crash before anything was done is the first one.
            text = ", ".join(map(str, [*run.base, *marks])).removesuffix(", Crashed()")
            for crash in group:
                data = (f"{path}\n".encode() + (content or b"") for path, content in crash.files)
                key = (TIME.sub(b"", b"\n".join(data)), text)
                is_new = key not in self.seen
                self.seen.add(key)
                if is_new and len(self.seen) % self.every == 0:
                    self._judge(run, crash)

    def _judge(self, run: Run, crash: states.Crash) -> None:
        assert crash.is_exhaustive, f"too much is in flight: {crash}"
        self.judged += 1
        works = [mark.work for mark in crash.marks if not isinstance(mark, Crashed)]
        is_ours = not works or not is_original(works[-1]) or not isinstance(crash.marks[-1], Asked)
        actions = (recover, original) if run.is_damaged else (append, recover, original)
        for action, fault in run.judge(crash, self.memory, actions):
            # I4: after a crash of ours the original may make a gap, but no duplicate.
            is_i4 = fault.kind == oracle.DUPLICATE and not any(map(is_original, works))
            if is_ours and (action is not original or is_i4):
                self.kinds[fault.kind] += 1
                self.faults.append(f"{fault} by {action.__name__}; {crash}")
            else:
                self.originals[fault.kind] += 1

    def __str__(self) -> str:
        faults = ", ".join(f"{self.kinds[kind]} {kind}" for kind in FAULTS)
        more = ", ".join(f"{self.originals[kind]} {kind}" for kind in FAULTS)
        return f"{self.judged} states, {faults} (originals, only counted: {more})"


@dataclass(frozen=True)
class Step:
    """What one process does: works with one writer or, without works, recover()."""

    works: tuple[Work, ...] = ()
    writer: Callable[..., Any] = Journal


def ours(*works: Work) -> Step:
    return Step(works)


def theirs(*names: object) -> Step:
    return Step(tuple(event(name, writer="original") for name in names), Original)


Script = tuple[Step, ...]
REPAIR = Step()
FIRST = (ours(event(1)),)
SAME_WRITER = (ours(event(1), event(2), event(3)),)
EACH_WRITER = (ours(event(1)), ours(event(2)), ours(event(3)))
BATCHES = (ours(event(1), Batch((event(2), event(3), event(4))), Batch((event(5), event(6)))),)
LARGE = Batch(tuple(Event("ready", f"large {n}", "x" * 62_000) for n in range(4)))
STATUSES = (ours(Status("booted", "1", {"a": 1}), Status("ready", "2")), ours(Status("ready", "3")))
RESULTS = (ours(Result("failed", 1, "one", {"a": 1}), Result("completed", 0, "two")),)
AN_END = (ours(event(1), Status("ready", "up"), END),)
MIXED = (theirs(1), ours(event(2)), theirs(3, 4), ours(event(5), Batch((event(6), event(7)))))
GO_ON = (ours(event("after one crash"), event("and another")),)
REPAIR_AND_GO_ON = (REPAIR, ours(event("after a repair")))
SEEN_TO_GO = (ours(Event("destroyed", "the host saw it"), Status("destroyed", "the host saw it")),)


def nothing(_: Path) -> None:
    """An empty directory."""


def a_log(directory: Path, *extra: bytes, seq: bytes = b"0%019d\n" % 3) -> None:
    """Three events that were acknowledged once, and what stands between and behind them."""
    fields = {"schema_version": 1, "kind": "ready", "timestamp": "2026-01-01T00:00:00+00:00"}
    events = [fields | {"message": f"before {n}", "seq": n} for n in (1, 2, 3)]
    lines = [json.dumps(each).encode() + b"\n" for each in events]
    pieces = itertools.zip_longest(lines, extra, fillvalue=b"")
    (directory / "events.jsonl").write_bytes(b"".join(itertools.chain(*pieces)))
    (directory / "events.jsonl.seq").write_bytes(seq)


def a_torn_log(directory: Path) -> None:
    a_log(directory, b"", b"", b'{"torn', seq=b"+%019d\n" % 4)


def damage(directory: Path) -> None:
    a_log(directory, b'{"schema_version": 1, "ki', bytes(40) + b"\n", b'{"torn')
    (directory / "status.json").write_bytes(bytes(80))
    (directory / "result.json").write_bytes(b"")


ONE_CRASH: tuple[tuple[Prepare, Script, str], ...] = (
    *((nothing, script, ".") for script in (FIRST, SAME_WRITER, EACH_WRITER, BATCHES, STATUSES)),
    *((nothing, script, ".") for script in (RESULTS, AN_END, MIXED, (ours(event(1), LARGE),))),
    *((nothing, script, "in/a/new/one") for script in (FIRST, STATUSES)),
    *((a_torn_log, script, ".") for script in (BATCHES, AN_END, (REPAIR,), REPAIR_AND_GO_ON)),
    (damage, REPAIR_AND_GO_ON, "."),
)
TWO_CRASHES: tuple[tuple[Prepare, Script, Script], ...] = (
    *((nothing, script, GO_ON) for script in (EACH_WRITER, BATCHES, (theirs(1, 2),), MIXED)),
    *((nothing, script, REPAIR_AND_GO_ON) for script in (EACH_WRITER, BATCHES, (theirs(1, 2),))),
    *((nothing, script, REPAIR_AND_GO_ON) for script in (STATUSES, RESULTS, AN_END)),
    *((nothing, AN_END, then) for then in ((ours(END),), SEEN_TO_GO)),
    *((a_torn_log, FIRST, then) for then in (GO_ON, REPAIR_AND_GO_ON)),
    *((damage, (REPAIR,), then) for then in (GO_ON, REPAIR_AND_GO_ON)),
)


def kill_and_crash(tally: Tally, runs: Iterator[Run], script: Script, then: Script) -> None:
    """Kill a script at each change, let another follow with what is unsynced, and crash that."""
    for number, run in enumerate(runs):
        kill_at, is_torn = divmod(number, 2)
        run.process = states.Process(run.recorder, kill_at, bool(is_torn))
        with contextlib.suppress(states.Killed):
            run.play(script)
            return
        if is_torn and not run.process.has_torn:
            continue  # it was not killed in a write: seen already
        run.recorder.note(Crashed())
        run.process = states.Process(run.recorder)
        tally.play(run, then)


def crash_and_crash(tally: Tally, runs: Iterator[Run], script: Script, then: Script) -> None:
    """Let another script follow on what a crash of one left, durable as it is, and crash that."""
    first = next(runs)
    first.play(script)
    for crash in itertools.islice(states.crashes(first.recorder), 0, None, tally.every * 3):
        run = Run(next(runs).directory, crash.materialise)
        run.base, run.floor = [*crash.marks, Crashed()], 0
        tally.play(run, then)


@pytest.fixture
def fresh() -> Iterator[Iterator[Path]]:
    """New directories in memory, if there is some: nothing here needs a disk."""
    memory = "/dev/shm"  # noqa: S108 - a new directory in it is ours alone
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as top:
        yield (Path(top) / str(number) for number in itertools.count())


def survey(fresh: Iterator[Path], every: int) -> Tally:
    """Judge all after one crash, and one of `every` states after two."""
    tally = Tally(next(fresh))
    for prepare, script, place in ONE_CRASH:
        tally.play(Run(next(fresh), prepare, place), script)
    tally.every = every
    for prepare, script, then in TWO_CRASHES:
        kill_and_crash(tally, (Run(path, prepare) for path in fresh), script, then)
    for script in (BATCHES, AN_END):
        crash_and_crash(tally, (Run(path, nothing) for path in fresh), script, REPAIR_AND_GO_ON)
    return tally


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_no_crash_loses_doubles_or_garbles_a_record(
    fresh: Iterator[Path], every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = survey(fresh, every)
    with capsys.disabled():
        print(f"\nL1 crash states: {tally}")
    assert "\n".join(tally.faults[:3]) == ""
    assert tally.judged >= 2000


def is_between_truncate_and_write(files: Files) -> bool:
    return files.get("events.jsonl.seq") == b"" and bool(files.get("events.jsonl"))


def is_torn(files: Files) -> bool:
    return (files.get("events.jsonl") or b"\n")[-1:] not in (b"\n", b"\0")


def has_nuls_as_seq(files: Files) -> bool:
    return files.get("events.jsonl.seq") == bytes(2)


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (is_between_truncate_and_write, oracle.DUPLICATE),  # it starts again with 1
        (is_torn, oracle.LOST),  # its next event, acknowledged, is glued to the torn line
        (is_torn, oracle.UNREADABLE),
        (has_nuls_as_seq, oracle.REFUSED),
    ],
)
def test_harness_sees_the_faults_of_the_original(
    fresh: Iterator[Path], where: Callable[[Files], bool], kind: str
) -> None:
    run = Run(next(fresh), nothing)
    run.play((theirs(1, 2, 3),))
    memory = next(fresh)
    crashes = [crash for crash in states.crashes(run.recorder) if where(dict(crash.files))]
    seen = [fault.kind for crash in crashes for _, fault in run.judge(crash, memory, [original])]
    assert kind in seen


class Forgetful(states.Process):
    """A disk that says that it synced what it did not, for files whose name fits `forgets`."""

    forgets = ""

    def fsync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not re.fullmatch(self.forgets, "/" if os.path.isdir(path) else os.path.basename(path)):
            super().fsync(fd)

    fdatasync = fsync


@pytest.mark.parametrize(
    ("forgets", "script", "kind"),
    [
        ("/", EACH_WRITER, oracle.LOST),
        ("/", STATUSES, oracle.LOST),
        ("/", RESULTS, oracle.LOST),
        (r"events\.jsonl", EACH_WRITER, oracle.LOST),
        (r"events\.jsonl", AN_END, oracle.DISAGREE),
        (r"events\.jsonl\.seq", EACH_WRITER, oracle.DUPLICATE),
        (r"events\.jsonl\.seq", BATCHES, oracle.REFUSED),
        (r"\.status\.json\.tmp", STATUSES, oracle.UNREADABLE),
        (r"\.result\.json\.tmp", RESULTS, oracle.UNREADABLE),
    ],
)
def test_harness_sees_each_sync_that_is_missing(
    fresh: Iterator[Path], forgets: str, script: Script, kind: str
) -> None:
    run = Run(next(fresh), nothing)
    run.process = Forgetful(run.recorder)
    run.process.forgets = forgets
    tally = Tally(next(fresh), every=8)
    tally.play(run, script)
    assert tally.kinds[kind] > 0
