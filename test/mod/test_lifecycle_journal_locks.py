"""Journal and the lock of its log: waiting has an end, and nobody is left waiting behind it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journals import UNSYNCED, FailsAt, messages, seqs

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

SEQ = "events.jsonl.seq"
WRITER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lifecycle", sys.argv[1])
lifecycle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lifecycle)
sys.stdin.read()
with lifecycle.Journal(sys.argv[2]) as journal:
    for number in range(100):
        print(journal.append("ready", f"{sys.argv[3]} {number}"))
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock as another process would: with a file description of our own."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def is_free(path: Path) -> bool:
    """Whether the lock can be had, at the latest in a moment."""
    fd = os.open(path, os.O_RDWR)
    try:
        return lifecycle.lock_file(fd, 0.5)
    finally:
        os.close(fd)


def timed_out(journal: Journal) -> None:
    started = time.monotonic()
    with pytest.raises(LifecycleError, match="locked") as caught:
        journal.append("ready", "m")
    assert caught.value.name == "LockTimeout"
    assert not caught.value.is_bad_argument
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("is_open", [False, True])
def test_a_hung_holder_is_waited_for_in_vain_but_not_for_ever(
    is_open: bool, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, lock_timeout_s=0.05)
    expected = [journal.append("ready", "first")] if is_open else []
    with locked(tmp_path / SEQ):
        timed_out(journal)
        timed_out(journal)
        timed_out(Journal(tmp_path, lock_timeout_s=0))
    expected.append(journal.append("ready", "after"))
    assert seqs(tmp_path) == expected == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("is_open", [False, True])
def test_who_gave_up_waiting_does_not_get_the_lock_later(is_open: bool, tmp_path: Path) -> None:
    journal = Journal(tmp_path, lock_timeout_s=0.05)
    opened = [journal.append("ready", "m")] if is_open else []
    with locked(tmp_path / SEQ):
        timed_out(journal)
    time.sleep(0.1)  # time for it to get what it no longer wants
    assert is_free(tmp_path / SEQ)
    assert Journal(tmp_path, lock_timeout_s=0.5).append("ready", "m") == len(opened) + 1


def test_giving_up_leaks_no_file_once_the_holder_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lock_timeout_s=0.001)
    before = len(os.listdir("/proc/self/fd"))
    with locked(tmp_path / SEQ):
        for _ in range(20):
            timed_out(journal)
    journal.close()
    deadline = time.monotonic() + 3
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("function", ["fstat", "lstat", "pread", "pwrite", "write"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_failed_call_of_an_open_journal_lets_the_lock_go(
    error: BaseException, function: str, tmp_path: Path
) -> None:
    system = FailsAt(function, error, -1)
    journal = Journal(tmp_path, system=system)
    journal.append("ready", "m")
    system.left = 0
    with pytest.raises((LifecycleError, KeyboardInterrupt)):
        journal.append("ready", "m")
    assert is_free(tmp_path / SEQ)


def test_an_idle_journal_holds_no_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("ready", "m")
    journal.finish("completed", 0, "m")
    journal.write_status("stopped", "m")
    journal.recover()
    assert is_free(tmp_path / SEQ)


def test_a_holder_that_lets_go_in_time_is_waited_for(tmp_path: Path) -> None:
    holder = locked(tmp_path / SEQ)
    holder.__enter__()
    timer = threading.Timer(0.2, holder.__exit__, (None, None, None))
    timer.start()
    assert Journal(tmp_path, lock_timeout_s=10).append("ready", "m") == 1
    timer.join()


def test_a_hung_holder_of_a_document_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lock_timeout_s=0.05)
    journal.write_status("starting", "old")
    with locked(tmp_path / ".status.json.tmp"):
        with pytest.raises(LifecycleError) as caught:
            journal.write_status("ready", "m")
        assert caught.value.name == "LockTimeout"
    journal.write_status("ready", "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["status.json"]


def test_threads_with_a_journal_each_share_a_log(tmp_path: Path) -> None:
    given: list[int] = []

    def write() -> None:
        with Journal(tmp_path, system=UNSYNCED) as journal:
            for _ in range(25):
                given.append(journal.append("ready", "m"))
                journal.write_status("ready", "m")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == seqs(tmp_path) == list(range(1, 101))
    assert lifecycle.decode("status", (tmp_path / "status.json").read_bytes())


def test_processes_share_a_log(tmp_path: Path) -> None:
    source = str(lifecycle.__file__)
    start, starter = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WRITER, source, str(tmp_path), str(number)],
            stdin=start,
            stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]
    os.close(start)
    os.close(starter)  # what they wait for
    acked = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert seqs(tmp_path) == list(range(1, 401))
    said = messages(tmp_path)
    for number, theirs in enumerate(acked):
        assert [said[int(seq) - 1] for seq in theirs] == [f"{number} {n}" for n in range(100)]
