"""The four ways to keep an event that are compared, and one timed round of one of them."""

import json
import multiprocessing
import os
import signal
import sqlite3
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from crash.original import Original

from osbuild_pika.lifecycle import Journal, boot_id

KIND = "provisioning"
MESSAGE = "stage org.osbuild.hostname: 3 of 8 steps"
DETAILS = {"event": "stage.progress", "done": 3, "total": 8, "unit": "steps"}
# As long as the lines that the two logs get.
LINE = {
    "schema_version": 1,
    "kind": KIND,
    "timestamp": "2026-01-01T00:00:00+00:00",
    "message": MESSAGE,
    "boot_id": boot_id(),
    "details": DETAILS,
    "seq": 1234,
}
START_LIMIT_S = 60.0  # until all writers of a round stand ready
HEAD_START_S = 0.02  # from the last one's word to the start of the clock
BUSY_LIMIT_S = 60.0  # that SQLite waits for its lock

Append = Callable[[], object]


class BenchError(Exception):
    """The measurement is void: a writer died, or what it left is not what it acknowledged."""


@dataclass(frozen=True)
class Side:
    """One of the compared.

    prepare: makes what must be in the directory before the writers start.
    open: (directory, number of the writer) -> a function that keeps one event and returns when
    it is durable; called in the writer's process.
    check: (directory, events acknowledged) raises BenchError if they are not what is there.
    """

    name: str
    prepare: Callable[[Path], None]
    open: Callable[[Path, int], Append]
    check: Callable[[Path, int], None]


@dataclass(frozen=True)
class Sample:
    """What one round of one side gave.

    rate: events per second, of all writers together, that became durable within the round.
    p50_ms, p99_ms, worst_ms: the time of one event as its writer sees it, the wait for the lock
    included.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def _nothing(directory: Path) -> None:
    pass


def _open_floor(directory: Path, number: int) -> Append:
    fd = os.open(directory / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = json.dumps(LINE).encode() + b"\n"

    def append() -> None:
        os.write(fd, line)
        os.fdatasync(fd)

    return append


def _check_floor(directory: Path, total: int) -> None:
    lines = sum(path.read_bytes().count(b"\n") for path in directory.iterdir())
    if lines != total:
        raise BenchError(f"floor: {total} lines written, {lines} there")


def _open_original(directory: Path, number: int) -> Append:
    writer = Original(directory, boot_id=boot_id())
    return lambda: writer.append(KIND, MESSAGE, DETAILS)


def _open_ours(directory: Path, number: int) -> Append:
    journal = Journal(directory, lock_timeout_s=BUSY_LIMIT_S)
    return lambda: journal.append(KIND, MESSAGE, DETAILS)


def check_log(directory: Path, total: int) -> None:
    """Raise BenchError unless events.jsonl holds exactly the seqs 1 to `total`, in order."""
    with (directory / "events.jsonl").open("rb") as log:
        seqs = [json.loads(line)["seq"] for line in log]
    if seqs != list(range(1, total + 1)):
        found = f"{len(seqs)} lines, {len(set(seqs))} seqs up to {max(seqs, default=0)}"
        raise BenchError(f"{directory.name}: {total} events acknowledged, {found} there")


def _connect(directory: Path) -> sqlite3.Connection:
    path = directory / "events.db"
    base = sqlite3.connect(path, timeout=BUSY_LIMIT_S, isolation_level=None)
    base.execute("pragma synchronous = full")
    return base


def _prepare_sqlite(directory: Path) -> None:
    base = _connect(directory)
    base.execute("pragma journal_mode = wal")
    base.execute("create table event (seq integer primary key, line text not null)")
    base.close()


def _open_sqlite(directory: Path, number: int) -> Append:
    base = _connect(directory)

    def append() -> None:
        base.execute("insert into event (line) values (?)", (json.dumps(LINE),))

    return append


def _check_sqlite(directory: Path, total: int) -> None:
    base = _connect(directory)
    (rows,) = base.execute("select count(*) from event").fetchone()
    (mode,) = base.execute("pragma journal_mode").fetchone()
    base.close()
    if (rows, mode) != (total, "wal"):
        raise BenchError(f"sqlite: {total} events acknowledged, {rows} there, journal mode {mode}")


OURS = "ours"
SIDES = (
    Side("floor", _nothing, _open_floor, _check_floor),
    Side("original", _nothing, _open_original, check_log),
    Side(OURS, _nothing, _open_ours, check_log),
    Side("sqlite", _prepare_sqlite, _open_sqlite, _check_sqlite),
)


def run_round(side: Side, directory: Path, writers: int, seconds: float) -> Sample:
    """Let `writers` processes append to one new directory for `seconds`, and check the outcome.

    Each of them appends one event before the clock starts, so neither the start of a process nor
    the making of the files is in the figures. Raises BenchError.
    """
    side.prepare(directory)
    fork = multiprocessing.get_context("fork")
    links: list[Connection] = []
    processes = []
    try:
        for number in range(writers):
            link, far_end = fork.Pipe()
            job = (far_end, side, directory, number, seconds)
            processes.append(fork.Process(target=_write, args=job, daemon=True))
            processes[-1].start()
            far_end.close()  # so that its death reads as an end of file
            links.append(link)
        return _time(side, directory, links, seconds)
    except EOFError:
        raise BenchError(f"{side.name}: a writer died") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _time(side: Side, directory: Path, links: list[Connection], seconds: float) -> Sample:
    for link in links:
        link.recv()
    start = time.monotonic() + HEAD_START_S
    for link in links:
        link.send(start)
    results: list[tuple[array[float], int]] = [link.recv() for link in links]
    side.check(directory, sum(1 + len(spent) for spent, _ in results))
    in_time = sum(count for _, count in results)
    times_s = sorted(one for spent, _ in results for one in spent)
    count = len(times_s)
    p50, p99, worst = (times_s[at] * 1000 for at in (count // 2, count * 99 // 100, -1))
    return Sample(in_time / seconds, p50, p99, worst)


def _write(link: Connection, side: Side, directory: Path, number: int, seconds: float) -> None:
    """One writer: says that it is ready, gets the start time, appends until the time is over.

    Answers with the time that each event took, in seconds, and how many ended within the round.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    append = side.open(directory, number)
    append()
    link.send(None)
    if not link.poll(START_LIMIT_S):
        return
    now = link.recv()
    end = now + seconds
    time.sleep(max(0.0, now - time.monotonic()))
    spent = array("d")
    while now < end:
        append()
        before, now = now, time.monotonic()
        spent.append(now - before)
    link.send((spent, len(spent) - (now > end)))
