"""Who builds in bench/engine.py: a checkout of ours, or upstream osbuild's. One build, measured."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "test/data/modules"
SHELL = "org.test.sh"  # a stage that runs a script; both sides get the same file
OURS = "import sys; from osbuild_pika.cli import main; sys.exit(main())"
# Upstream wants /etc/containers, which not every host has; and what it mounts must not stay.
PRIVATE = """
mkdir -p "$0/upper/containers" "$0/work"
mount -t overlay etc -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" /etc
exec "$@"
"""
KIB = 1024


class BenchError(Exception):
    """A build failed."""


@dataclass(frozen=True)
class Cost:
    """Of one build: wall time, and the most memory that one of its processes had."""

    seconds: float
    cpu_s: float
    peak_mib: float


class Ours:
    """A checkout of this project, by its command line."""

    def __init__(self, name: str, checkout: Path) -> None:
        self.name = name
        self._checkout = checkout

    def build(self, place: Path, manifest: dict[str, Any], export: str) -> Cost:
        (place / "manifest.json").write_text(json.dumps(manifest))
        words = ["build", str(place / "manifest.json"), "--export", export, "--force"]
        words += ["--output", f"{place}/output", "--store", f"{place}/store"]
        words += ["--libdir", str(MODULES), "--progress", "plain"]
        env = {
            **os.environ,
            "PYTHONPATH": str(self._checkout),
            "OSBUILD_PIKA_RUNS": f"{place}/runs",
        }
        return run([sys.executable, "-c", OURS, *words], place, env, place)  # not our cwd


class Upstream:
    """A checkout of upstream's, unmodified but for one more stage."""

    name = "upstream"

    def __init__(self, checkout: Path, directory: Path) -> None:
        self._libdir = directory / "upstream"
        shutil.copytree(checkout, self._libdir, symlinks=True)
        for file in (MODULES / "stages").iterdir():
            shutil.copy(file, self._libdir / "stages")

    def build(self, place: Path, manifest: dict[str, Any], export: str) -> Cost:
        (place / "manifest.json").write_text(json.dumps(manifest))
        words = ["--libdir", str(self._libdir), "--store", f"{place}/store"]
        words += ["--output-directory", f"{place}/output", "--export", export]
        words += ["--checkpoint", export, "--cache-max-size", "unlimited"]
        rundir = Path(f"/run/osbuild-bench-{os.getpid()}")  # a socket's path must be short
        rundir.mkdir(exist_ok=True)
        words += ["--rundir", str(rundir), str(place / "manifest.json")]
        own = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", PRIVATE]
        env = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        command = [*own, f"{place}/etc", sys.executable, "-m", "osbuild", *words]
        try:
            return run(command, place, env, self._libdir)
        finally:
            shutil.rmtree(rundir, ignore_errors=True)


Builder = Ours | Upstream


def run(
    command: list[str], place: Path, env: dict[str, str], directory: Path | None = None
) -> Cost:
    """Run a program with all that it starts; the kernel adds up what they cost."""
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each run compiles what has changed
    with open(place / "log", "wb") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=directory
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        end = (place / "log").read_text(errors="replace")[-2000:]
        raise BenchError(f"{command[:4]}: exit status {status}\n{end}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / KIB)
