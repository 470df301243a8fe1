"""Measures the lifecycle service against the original's algorithm, SQLite, and the bare disk.

As lifecycle.py does: all sides take turns within one run, each round's log is checked, and what
counts are the medians of the rounds' ratios. Clients are processes that wait for each answer.
Beside it: one call against one call of the original's command line, what `progress` costs a
stage, and the start of the service. Exit status as of lifecycle.py.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from bench import serving, slowdisk, table
from bench.lifecycle import TMPFS, WRITERS, Case, Settings, say
from bench.writers import SIDES, BenchError, Sample, Side, run_round

SERVICE = "service"
OTHERS = ("floor", "original", "sqlite")
NAMES = (*OTHERS, SERVICE)
LEGEND = """\
floor: each client appends a line to a file of its own, write + fdatasync, without a service
original: the original helper's steps in each process; it opens, locks and syncs two files
sqlite: one insert per event in each process, autocommit, journal_mode=WAL, synchronous=FULL
service: one call per event, answered when it is durable; CPU is that of the service alone"""


FULL = Settings(rounds=5, round_s=1.0, calls=20)
QUICK = Settings(rounds=3, round_s=0.1, calls=5)


@dataclass(frozen=True)
class Turn:
    """What the sides gave in one round of a case. cpu_us: the service's, for one event."""

    samples: dict[str, Sample]
    cpu_us: float


Turns = dict[Case, list[Turn]]


def measure(cases: list[Case], settings: Settings) -> Turns:
    """Run every side of every case once per round; who begins changes with the round."""
    turns: Turns = {case: [] for case in cases}
    sides = [side for side in SIDES if side.name in OTHERS]
    for number in range(settings.rounds):
        for case in cases:
            say(f"round {number + 1} of {settings.rounds}: {case.place}, clients: {case.writers}")
            turns[case].append(take_turn(case, sides, number, settings.round_s))
    return turns


def take_turn(case: Case, sides: list[Side], number: int, seconds: float) -> Turn:
    samples = {}
    cpu_us = 0.0
    for name in NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]:
        with tempfile.TemporaryDirectory(prefix=name, dir=case.directory) as text:
            place = Path(text)
            if name == SERVICE:
                samples[name], cpu_us = serve_round(place, case.writers, seconds)
            else:
                side = next(each for each in sides if each.name == name)
                samples[name] = run_round(side, place, case.writers, seconds)
    return Turn(samples, cpu_us)


def serve_round(place: Path, clients: int, seconds: float) -> tuple[Sample, float]:
    """One round of the service: what its clients saw, and its CPU time for one event in us."""
    with serving.Served(place, clients) as served:
        before_s = served.cpu_s()
        side = Side(SERVICE, lambda _: None, served.open, served.check)
        sample = run_round(side, place, clients, seconds)
        return sample, (served.cpu_s() - before_s) / (served.events or 1) * 1e6


def summarize(case: Case, turns: list[Turn]) -> dict[str, Any]:
    """One case's medians: events/s, ms, and the service's rate and p50 over the others'."""
    of: dict[str, list[Sample]] = {n: [turn.samples[n] for turn in turns] for n in NAMES}

    def median(value: Callable[[Sample], float]) -> dict[str, float]:
        return {name: statistics.median(map(value, of[name])) for name in NAMES}

    def ratio(value: Callable[[Sample], float]) -> dict[str, float]:
        pairs = {name: zip(of[SERVICE], of[name], strict=True) for name in OTHERS}
        return {
            name: statistics.median(value(a) / value(b) for a, b in each if value(b))
            for name, each in pairs.items()
        }

    return {
        "place": case.place,
        "file_system": case.file_system,
        "clients": case.writers,
        "events_per_s": median(lambda sample: sample.rate),
        "p50_ms": median(lambda sample: sample.p50_ms),
        "p99_ms": median(lambda sample: sample.p99_ms),
        "rate_ratio": ratio(lambda sample: sample.rate),
        "p50_ratio": ratio(lambda sample: sample.p50_ms),
        "cpu_us": statistics.median(turn.cpu_us for turn in turns),
        "rounds": [
            {n: vars(sample) for n, sample in turn.samples.items()} | {"cpu_us": turn.cpu_us}
            for turn in turns
        ],
    }


def measure_single(places: dict[str, Path], settings: Settings) -> dict[str, Any]:
    """One call beside one call of the original's command line, and the service's start."""
    found: dict[str, Any] = {}
    for name, directory in places.items():
        say(f"one call, and the start: {name}")
        rounds = []
        for _ in range(settings.calls):
            with tempfile.TemporaryDirectory(dir=directory) as text:
                rounds.append(serving.time_single(Path(text)))
        medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        medians["cli/rpc"] = statistics.median(each["cli"] / each["rpc"] for each in rounds)
        found[name] = {"median": medians, "rounds": rounds}
    return found


def format_report(report: dict[str, Any]) -> str:
    rates, times = [], []
    for one in report["clients"]:
        head = [f"{one['place']} ({one['file_system']})", str(one["clients"])]
        cells = [*one["events_per_s"].values(), *one["rate_ratio"].values(), one["cpu_us"]]
        rates.append(head + [table.figure(cell) for cell in cells])
        cells = [one[what][name] for what in ("p50_ms", "p99_ms") for name in NAMES]
        cells.append(one["p50_ratio"]["floor"])
        times.append(head + [table.figure(cell) for cell in cells])
    ratios = [f"{SERVICE}/{name}" for name in OTHERS]
    p99 = [f"p99.{name}" for name in NAMES]
    return "\n".join(
        (
            "events/s, service/other (above 1 is faster), and CPU time of the service per event",
            table.render(["", "clients", *NAMES, *ratios, "CPU us"], rates),
            "\ntime of one event in ms: median (the last column: over the floor's), and p99",
            table.render(["", "clients", *NAMES, *p99, f"{SERVICE}/floor"], times),
            format_single(report["single"]),
            "\nprogress() in a loop, CPU time: " + format_progress(report["progress"]),
        )
    )


def format_single(places: dict[str, Any]) -> str:
    rows = []
    for name, found in places.items():
        medians = found["median"]
        figures = [f"{medians[key]:.3g}" for key in serving.SINGLE]
        rows.append([name, *figures, f"{medians['cli/rpc']:,.0f}"])
    return (
        "\nms of one event by a call (its client idle before), and by the original's command\n"
        "line; of the interpreter alone, of the start to the first reply, and to that of `own`\n"
        + table.render(["", *serving.SINGLE, "cli/rpc"], rows)
    )


def format_progress(found: dict[str, float]) -> str:
    return (
        f"{found['call_ns']:.0f} ns per call, {found['send_us']:.0f} us for one that is sent;\n"
        f"{found['share'] * 100:.2f} % of a loop that hashes {serving.BLOCK // 1024} KiB"
        f" ({found['work_us']:.0f} us) between two calls"
    )


def run(settings: Settings, places: dict[str, Path]) -> dict[str, Any]:
    """Measure everything below the places. Returns what --json writes."""
    cases = [
        Case(name, table.file_system(directory), clients, directory)
        for name, directory in places.items()
        for clients in WRITERS
    ]
    report: dict[str, Any] = {"machine": table.machine(), "settings": vars(settings)}
    report["single"] = measure_single(places, settings)
    say("progress")
    with tempfile.TemporaryDirectory(dir=places["disk"]) as place:
        report["progress"] = serving.time_progress(Path(place), settings.rounds, settings.round_s)
    report["clients"] = [summarize(case, of) for case, of in measure(cases, settings).items()]
    return report


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the lifecycle service.")
    parser.add_argument("--quick", action="store_true", help="30 s instead of 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="on the disk to measure (default: here)"
    )
    parser.add_argument(
        "--flush-ms", type=float, default=0.0, help="have each sync of all sides wait so long"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    slowdisk.start_over(options.flush_ms)
    settings = QUICK if options.quick else FULL
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            places = {
                name: Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench", dir=directory))
                )
                for name, directory in (("disk", options.dir), ("tmpfs", TMPFS))
                if name == "disk" or not options.flush_ms
            }
            report = run(settings, places)
    except KeyboardInterrupt:
        return 130
    except (BenchError, OSError) as error:
        say(f"bench: {error}")
        return 1
    print(", ".join(f"{name}: {value}" for name, value in report["machine"].items()))
    print(f"medians of {settings.rounds} rounds of {settings.round_s:g} s")
    print(f"each sync waits {options.flush_ms:g} ms\n" if options.flush_ms else "")
    print(f"{format_report(report)}\n\n{LEGEND}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
