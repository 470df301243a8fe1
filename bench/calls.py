"""The time of one `event` call of a command line, as a whole process."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import slowdisk
from bench.writers import BenchError, check_log

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "osbuild_pika/lifecycle.py"
# What installing puts into a bin directory, with the package found as one that is installed; there
# a shell starts the Python beside it.
INSTALLED = ROOT / "bin/osbuild-pika"
SHELL = ("/bin/sh", "-c", 'exec "$@"', "sh")
STAND_IN = ROOT / "bench/standin.py"
PYTHON = sys.executable  # of the environment that installing would use
ISOLATED = ("-I", "-S")
ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **slowdisk.variables()}
WARM_UP = 2  # calls of each that fill the page cache


@dataclass(frozen=True)
class Call:
    """One command line. directory: where its events go; None if it writes none."""

    name: str
    arguments: tuple[str, ...]
    directory: Path | None


def make_calls(directory: Path, original_helper: Path | None) -> list[Call]:
    """The command lines to compare; they write below `directory`.

    original_helper: the original's program; None for the stand-in beside this file.
    """

    def make(name: str, *program: str | Path, shell: tuple[str, ...] = ()) -> Call:
        place = directory / name.replace(" ", "")
        place.mkdir()
        words = ("--kind", "ready", "--message", "up", "--details-json", '{"port": 22}')
        log = ("event", "--events-path", str(place / "events.jsonl"))
        return Call(name, (*shell, PYTHON, *map(str, program), *log, *words), place)

    calls = [make("installed", INSTALLED, "lifecycle", shell=SHELL)]
    for flags in ((), ISOLATED):
        suffix = "".join(f" {flag}" for flag in flags)
        calls.append(Call(f"python{suffix}", (PYTHON, *flags, "-c", "pass"), None))
        for name, program in (("original", original_helper or STAND_IN), ("ours", OURS)):
            calls.append(make(f"{name}{suffix}", *flags, program))
    return calls


def time_calls(calls: list[Call], rounds: int) -> dict[str, list[float]]:
    """Time each call once per round, one after the other. Returns milliseconds by name.

    Raises BenchError if a call fails or its events are not all there.
    """
    times: dict[str, list[float]] = {call.name: [] for call in calls}
    for number in range(-WARM_UP, rounds):
        turn = number % len(calls)
        for call in calls[turn:] + calls[:turn]:
            spent_ms = time_one(call)
            if number >= 0:
                times[call.name].append(spent_ms)
    for call in calls:
        if call.directory is not None:
            check_log(call.directory, WARM_UP + rounds)
    return times


def time_one(call: Call) -> float:
    begin = time.perf_counter()
    # In a session of its own: a Ctrl-C is ours, and `run` then kills the call and waits for it.
    done = subprocess.run(call.arguments, env=ENVIRONMENT, start_new_session=True, check=False)
    spent_ms = (time.perf_counter() - begin) * 1000
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(call.arguments)}` ended with {done.returncode}")
    return spent_ms


def summarize(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, and by name the median of that call's ratio to the original's."""
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    isolated = "".join(f" {flag}" for flag in ISOLATED)
    ratios = {}
    for name, original in (
        ("installed", "original"),
        ("ours", "original"),
        (f"ours{isolated}", f"original{isolated}"),
    ):
        pairs = zip(times[name], times[original], strict=True)
        ratios[name] = statistics.median(a / b for a, b in pairs)
    return {"median_ms": medians, "ratio": ratios}
