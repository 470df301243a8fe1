"""Runs a command under strace, which kills it before a chosen system call or makes that call fail.

Only calls that touch given paths are counted: nothing else can change what is there, so a kill
before any other call leaves what a kill before the next counted one leaves. A call is known by its
name and its number among the counted calls of that name.

    paths = touched(argv, directory)
    for point in points(argv, paths):
        run(argv, paths, kill_before(point))

`wrap` alone serves who has to start the process: a service whose sockets stand open.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60.0
# "1234 openat(AT_FDCWD</tmp>, ..." of `strace -f -o`
_CALL = re.compile(r"^\d+ +(\w+)\(")
# a path as an argument, or behind a descriptor (`-y`)
_PATH = re.compile(r'"(/[^"]*)"|<(/[^>]*)>')


@dataclass(frozen=True)
class Point:
    """The nth call of this name that touches one of the paths; the first is 1."""

    call: str
    nth: int


@dataclass(frozen=True)
class Outcome:
    """returncode: as subprocess tells it; -9 if the process was killed."""

    returncode: int
    stdout: bytes
    stderr: bytes
    trace: str


def why_not() -> str | None:
    """Why strace cannot be used here; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    killed = run(["true"], (), "exit_group:signal=KILL")
    if killed.returncode != -9:
        return f"strace cannot trace or inject here: {killed.stderr[:200]!r}"
    return None


def kill_before(point: Point) -> str:
    """SIGKILL; the call is not made."""
    return f"{point.call}:signal=KILL:when={point.nth}"


def fail(point: Point, error: str) -> str:
    """The call is not made and says that it failed. error: such as "ENOSPC"."""
    return f"{point.call}:error={error}:when={point.nth}"


def stop_short(point: Point, size: int) -> str:
    """The call says that it took `size` bytes, and takes none: they are lost."""
    return f"{point.call}:retval={size}:when={point.nth}"


def wrap(
    argv: Sequence[str], paths: Sequence[str], inject: str = "", log: str = os.devnull
) -> list[str]:
    """The command that runs `argv` under strace and ends as it ends, killed if it was killed.

    paths: count and trace only calls that touch these exact paths; none: all calls.
    inject: from one of the functions above. log: where the trace goes.
    """
    options = [option for path in paths for option in ("-P", path)]
    if inject:
        options += ["-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}"]
    if inject and ":signal=" not in inject:
        options.append("--seccomp-bpf")  # other calls run at full speed; but it loses signals
    return ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", log, *options, "--", *argv]


def run(argv: Sequence[str], paths: Sequence[str], inject: str = "") -> Outcome:
    """Run a command to its end."""
    with tempfile.NamedTemporaryFile(prefix="strace") as log:
        command = wrap(argv, paths, inject, log.name)
        done = subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
        trace = Path(log.name).read_text(errors="replace")
    return Outcome(done.returncode, done.stdout, done.stderr, trace)


def touched(argv: Sequence[str], directory: Path) -> tuple[str, ...]:
    """Run a command and tell the paths in a directory, and itself, that it names or has open."""
    found = {first or second for first, second in _PATH.findall(run(argv, ()).trace)}
    inside = {path for path in found if Path(path).is_relative_to(directory)}
    return tuple(sorted(inside | {str(directory)}))


def points(argv: Sequence[str], paths: Sequence[str]) -> list[Point]:
    """Run a command and tell its calls that touch the paths, in their order."""
    counts: Counter[str] = Counter()
    found = []
    for line in run(argv, paths).trace.split("\n"):
        match = _CALL.match(line)
        if match:
            counts[match[1]] += 1
            found.append(Point(match[1], counts[match[1]]))
    return found


def moved(paths: Sequence[str], old: Path, new: Path) -> tuple[str, ...]:
    """The same paths below another directory."""
    return tuple(str(new / Path(path).relative_to(old)) for path in paths)
