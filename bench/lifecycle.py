"""Measures the lifecycle writer against the original's algorithm, SQLite, and the bare disk.

All sides take turns within one run, each round is checked (every acknowledged event is there,
seqs are unique and consecutive), and what counts are the medians of the rounds' ratios: they
hold on a busy machine, where rates do not. Nothing is judged: the exit status is 0 if the
figures are sound, 1 if a side lost an event or failed, 130 after Ctrl-C.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from bench import calls, table
from bench.writers import OURS, SIDES, BenchError, Sample, run_round

WRITERS = (1, 8, 32)
OTHERS = tuple(side.name for side in SIDES if side.name != OURS)
TMPFS = Path("/dev/shm")  # noqa: S108  a file system, not a place for names to guess


@dataclass(frozen=True)
class Settings:
    """How much is measured: rounds, the length of each, and calls of each command line."""

    rounds: int
    round_s: float
    calls: int


FULL = Settings(rounds=5, round_s=1.0, calls=40)
QUICK = Settings(rounds=3, round_s=0.05, calls=8)
LEGEND = """\
floor: each writer appends a line of the same size to a file of its own, write + fdatasync: what
  the file system takes for one durable line, without a lock, a seq or JSON
original: the original helper's steps in a process that stays; it opens, locks and syncs two files
ours: osbuild_pika.lifecycle.Journal, one in each process
sqlite: one insert per event, autocommit, journal_mode=WAL, synchronous=FULL"""


@dataclass(frozen=True)
class Case:
    """One line of the table. directory: where its rounds write, on this file system."""

    place: str
    file_system: str
    writers: int
    directory: Path


Samples = dict[Case, dict[str, list[Sample]]]


def measure(cases: list[Case], settings: Settings) -> Samples:
    """Run every side of every case once per round; who begins changes with the round."""
    samples: Samples = {case: {side.name: [] for side in SIDES} for case in cases}
    for number in range(settings.rounds):
        turn = number % len(SIDES)
        for case in cases:
            say(f"round {number + 1} of {settings.rounds}: {case.place}, writers: {case.writers}")
            for side in SIDES[turn:] + SIDES[:turn]:
                with tempfile.TemporaryDirectory(prefix=side.name, dir=case.directory) as place:
                    sample = run_round(side, Path(place), case.writers, settings.round_s)
                samples[case][side.name].append(sample)
    return samples


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def summarize(case: Case, samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """One case's medians: rates in events/s, times in ms, and ours/other of the same round."""
    ours = samples[OURS]
    ratios = {
        f"{OURS}/{name}": statistics.median(
            a.rate / b.rate for a, b in zip(ours, samples[name], strict=True) if b.rate
        )
        for name in OTHERS
    }
    return {
        "place": case.place,
        "file_system": case.file_system,
        "writers": case.writers,
        "events_per_s": {n: statistics.median(s.rate for s in of) for n, of in samples.items()},
        "p50_ms": {n: statistics.median(s.p50_ms for s in of) for n, of in samples.items()},
        "worst_ms": {n: statistics.median(s.worst_ms for s in of) for n, of in samples.items()},
        "ratio": ratios,
        "rounds": {name: [vars(sample) for sample in of] for name, of in samples.items()},
    }


def format_writers(summaries: list[dict[str, Any]]) -> str:
    """Two tables: rates with their ratios, and the time of one event."""
    names = [side.name for side in SIDES]
    ratios = [f"{OURS}/{name}" for name in OTHERS]
    rates, times = [], []
    for one in summaries:
        head = [f"{one['place']} ({one['file_system']})", str(one["writers"])]
        cells = [one["events_per_s"][name] for name in names]
        rates.append(head + [table.figure(cell) for cell in [*cells, *one["ratio"].values()]])
        cells = [one[what][name] for what in ("p50_ms", "worst_ms") for name in names]
        times.append(head + [table.figure(cell) for cell in cells])
    return "\n".join(
        (
            "events/s, and ours/other: above 1 is faster",
            table.render(["", "writers", *names, *ratios], rates),
            "\ntime of one event in ms, the wait for the lock included: median, and the worst",
            table.render(["", "writers", *names, *(f"w.{name}" for name in names)], times),
        )
    )


def format_calls(summary: dict[str, Any]) -> str:
    """The table of the command lines."""
    medians, ratios = summary["median_ms"], summary["ratio"]
    rows = []
    for label, columns in (
        ("installed", ("python", "original", "installed")),
        ("python3", ("python", "original", "ours")),
        ("python3 -I -S", ("python -I -S", "original -I -S", "ours -I -S")),
    ):
        figures = [f"{medians[name]:.1f}" for name in columns]
        rows.append([label, *figures, f"{ratios[columns[-1]]:.2f}"])
    return "\n".join(
        (
            "\none `event` call as a whole process on tmpfs, ms; ours/original below 1 is faster",
            table.render(["", "nothing", "original", "ours", "ours/original"], rows),
            f"original: {summary['original']}; installed: `osbuild-pika lifecycle`, the others: "
            "osbuild_pika/lifecycle.py as a script, which is compiled at each call",
        )
    )


def run(settings: Settings, places: dict[str, Path], helper: Path | None) -> dict[str, Any]:
    """Measure everything below the places. Returns what --json writes."""
    cases = [
        Case(name, table.file_system(directory), writers, directory)
        for name, directory in places.items()
        for writers in WRITERS
    ]
    facts = table.machine()
    say("calls of the command lines")
    times = calls.time_calls(calls.make_calls(places["tmpfs"], helper), settings.calls)
    samples = measure(cases, settings)
    which = "the helper given" if helper else "a stand-in with the same imports and steps"
    return {
        "machine": facts,
        "settings": vars(settings),
        "writers": [summarize(case, of) for case, of in samples.items()],
        "calls": {"original": which, **calls.summarize(times), "all_ms": times},
    }


def show(report: dict[str, Any]) -> None:
    settings = report["settings"]
    print(", ".join(f"{name}: {value}" for name, value in report["machine"].items()))
    print(f"medians of {settings['rounds']} rounds of {settings['round_s']:g} s\n")
    print(format_writers(report["writers"]))
    print(format_calls(report["calls"]))
    print(f"\n{LEGEND}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the lifecycle writer.")
    parser.add_argument("--quick", action="store_true", help="20 s instead of 3 minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {FULL.rounds}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="on the disk to measure (default: here)"
    )
    parser.add_argument(
        "--original-helper", type=Path, metavar="PATH", help="the original's program, as a peer"
    )
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds is less than 1")
    return options


def make_settings(options: argparse.Namespace) -> Settings:
    settings = QUICK if options.quick else FULL
    return settings if options.rounds is None else replace(settings, rounds=options.rounds)


def main() -> int:
    options = parse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            places = {
                name: Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench", dir=directory))
                )
                for name, directory in (("disk", options.dir), ("tmpfs", TMPFS))
            }
            report = run(make_settings(options), places, options.original_helper)
    except KeyboardInterrupt:
        return 130
    except (BenchError, OSError) as error:
        say(f"bench: {error}")
        return 1
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
