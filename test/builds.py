"""What the tests of whole builds share: real builds, by the build process, as root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.engine.order import Order

ROOT = Path(__file__).parents[1]
MODULES = ROOT / "test/data/modules"
TIMEOUT_S = 120
Records = list[dict[str, Any]]


def needs_root() -> None:
    """Skip a test that cannot run here."""
    if os.geteuid() or shutil.which("bwrap") is None:
        pytest.skip("needs root and bubblewrap")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")


def sh(script: str, **more: Any) -> dict[str, Any]:
    """A stage that runs a shell script in its tree."""
    return {"type": "org.test.sh", "options": {"script": script}, **more}


def manifest(*stages: dict[str, Any], **pipelines: list[dict[str, Any]]) -> dict[str, Any]:
    """A manifest of the pipelines, of which the last is `tree`."""
    named = [{"name": name, "stages": list(each)} for name, each in pipelines.items()]
    return {"version": "2", "pipelines": [*named, {"name": "tree", "stages": list(stages)}]}


class Place:
    """A store, runs and outputs of a test's own."""

    python_path = str(ROOT)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules = path / "modules"
        shutil.copytree(MODULES, self.modules)

    @property
    def output(self) -> Path:
        """Where the pipeline `tree` is exported to."""
        return self.path / "out/tree"

    def command(self, fd: int) -> list[str]:
        """What runs a build and writes records to a descriptor."""
        return [sys.executable, "-m", "osbuild_pika.engine", str(fd)]

    def order(self, what: dict[str, Any], **changes: Any) -> Order:
        fields: dict[str, Any] = {
            "manifest": json.dumps(what),
            "name": "test.json",
            "run": "test",
            "store": str(self.path / "store"),
            "exports": ("tree",),
            "output": str(self.output.parent),
            "libdirs": (str(self.modules),),
            "is_forced": True,
        }
        return Order(**{**fields, **changes})

    @contextmanager
    def started(self, order: Order) -> Iterator[Started]:
        """A build under way; it is killed at the end of the block if it still runs."""
        reading, writing = os.pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": self.python_path,
            "OSBUILD_PIKA_RUNS": str(self.path / "runs"),
        }
        process = subprocess.Popen(
            self.command(writing),
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            env=environment,
            start_new_session=True,
        )
        os.close(writing)
        assert process.stdin
        process.stdin.write(order.encode())
        process.stdin.close()
        started = Started(process, reading)
        try:
            yield started
        finally:
            process.kill()
            process.wait()
            os.close(reading)

    def build(self, what: dict[str, Any], **changes: Any) -> tuple[int, Records]:
        """Build; returns the exit status and the records."""
        with self.started(self.order(what, **changes)) as started:
            records = started.until(lambda _: False)
            return started.process.wait(TIMEOUT_S), records


class Started:
    """A build under way and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.records: Records = []
        self._fd = fd
        self._rest = b""

    def until(self, is_it: Callable[[dict[str, Any]], bool]) -> Records:
        """Read records until one is it, or all have come; returns all so far."""
        while data := os.read(self._fd, 1 << 16):
            *lines, self._rest = (self._rest + data).split(b"\n")
            new = [json.loads(line) for line in lines]
            self.records += new
            if any(map(is_it, new)):
                break
        return self.records


def named(records: Records, name: str) -> Records:
    return [record for record in records if record["record"] == name]


def ended(run: Path) -> dict[str, Any]:
    """The result of a run."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def wait_for(what: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)
