"""Two processes and the tasks of one object: one runs them, the other waits and finds them done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAIT_S = 60
PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path
from osbuild_pika.tasks import SetupTaskMixin, setup_task

root = Path(sys.argv[1])

def note(text):
    fd = os.open(root / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text} {os.getpid()}\\n".encode())
    os.close(fd)

class Thing(SetupTaskMixin):
    stamp_subdir = "thing"

    @setup_task("first")
    def first(self):
        note("first")
        while not (root / "go").exists():
            time.sleep(0.01)

    @setup_task("second")
    async def second(self):
        await asyncio.sleep(0.01)
        note("second")

note("here")
print(*asyncio.run(Thing().run_setup_tasks()))
"""

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def one() -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "OSBUILD_PIKA_TASKS": str(tmp_path / "tasks")}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


def wait_for(directory: Path, text: str, count: int = 1) -> list[str]:
    """Wait until a line that begins so was noted. Returns the pids of those who noted it."""
    until = time.monotonic() + WAIT_S
    while True:
        lines = (directory / "ran").read_text().split("\n") if (directory / "ran").exists() else []
        pids = [line.split()[1] for line in lines if line.startswith(text)]
        if len(pids) >= count:
            return pids
        assert time.monotonic() < until, f"{text} was not noted {count} times"
        time.sleep(0.01)


def noted(directory: Path) -> list[str]:
    words = [line.split()[0] for line in (directory / "ran").read_text().splitlines()]
    return sorted(word for word in words if word != "here")


def test_each_task_runs_once_and_who_waits_finds_it_done(tmp_path: Path, start: Start) -> None:
    one = start()
    wait_for(tmp_path, "first")
    other = start()
    wait_for(tmp_path, "here", 2)
    (tmp_path / "go").touch()
    assert one.communicate(timeout=WAIT_S)[0] == "first second\n"
    assert other.communicate(timeout=WAIT_S)[0] == "\n"
    assert noted(tmp_path) == ["first", "second"]


def test_of_many_that_start_at_once_one_runs_each_task(tmp_path: Path, start: Start) -> None:
    (tmp_path / "go").touch()
    processes = [start() for _ in range(4)]
    said = sorted(each.communicate(timeout=WAIT_S)[0] for each in processes)
    assert said == ["\n", "\n", "\n", "first second\n"]
    assert noted(tmp_path) == ["first", "second"]


def test_who_waits_goes_on_when_the_holder_is_killed(tmp_path: Path, start: Start) -> None:
    one = start()
    wait_for(tmp_path, "first")
    other = start()
    wait_for(tmp_path, "here", 2)
    one.send_signal(signal.SIGKILL)
    assert one.wait(timeout=WAIT_S) == -signal.SIGKILL
    assert wait_for(tmp_path, "first", 2)[1] == str(other.pid)
    (tmp_path / "go").touch()
    assert other.communicate(timeout=WAIT_S)[0] == "first second\n"
    assert noted(tmp_path) == ["first", "first", "second"]
