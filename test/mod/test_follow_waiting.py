"""Following: woken at once, idle for nothing, and over when the run is over."""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osbuild_pika import follow as following
from osbuild_pika.follow import Follower, follow
from osbuild_pika.lifecycle import Journal

LONG_S = 30.0
SHORT_S = 0.02

Later = Callable[[float, Callable[[], object]], None]


@pytest.fixture
def later() -> Iterator[Later]:
    """Does something after some seconds, in another thread."""
    timers: list[threading.Timer] = []

    def start(delay_s: float, do: Callable[[], object]) -> None:
        timers.append(threading.Timer(delay_s, do))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "GRACE_S", 0.1)


@pytest.fixture
def _no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", refuse)


def messages(directory: Path, poll_s: float) -> list[str]:
    """The messages of all events until the run is over."""
    with Follower(directory) as follower:
        return [event.message for batch in follow(follower, poll_s) for event in batch]


def live(directory: Path) -> None:
    """A short run from its start to its end."""
    with Journal(directory) as journal:
        journal.append("provisioning", "one")
        journal.append("provisioning", "two")
        journal.finish("completed", 0, "done")


def test_a_run_that_is_over_is_given_whole(tmp_path: Path) -> None:
    live(tmp_path)
    assert messages(tmp_path, LONG_S) == ["one", "two", "done"]


def test_inotify_wakes_long_before_the_poll(tmp_path: Path, later: Later) -> None:
    later(0.1, lambda: live(tmp_path))
    begin = time.monotonic()
    assert messages(tmp_path, LONG_S) == ["one", "two", "done"]
    assert time.monotonic() - begin < LONG_S / 2


@pytest.mark.usefixtures("_no_inotify")
def test_without_inotify_the_poll_alone_does_it(tmp_path: Path, later: Later) -> None:
    later(0.1, lambda: live(tmp_path))
    assert messages(tmp_path, SHORT_S) == ["one", "two", "done"]


def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path, later: Later) -> None:
    later(0.1, lambda: live(tmp_path / "later"))
    assert messages(tmp_path / "later", SHORT_S) == ["one", "two", "done"]


def test_a_directory_that_is_replaced_is_watched_again(tmp_path: Path, later: Later) -> None:
    place = tmp_path / "run"
    place.mkdir()
    with Follower(place) as follower:
        batches = follow(follower, SHORT_S)
        Journal(place).append("starting", "before")
        assert [event.message for event in next(batches)] == ["before"]
        place.rename(tmp_path / "old")
        later(0.1, lambda: live(place))
        assert [event.message for batch in batches for event in batch] == ["one", "two", "done"]


def test_idle_costs_nearly_nothing(tmp_path: Path, later: Later) -> None:
    Journal(tmp_path).append("starting", "up")
    later(0.7, lambda: Journal(tmp_path).finish("completed", 0, "done"))
    with Follower(tmp_path) as follower:
        batches = follow(follower)
        next(batches)
        before = time.process_time()
        next(batches)
        assert time.process_time() - before < 0.1


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    live(tmp_path)
    before = os.listdir("/proc/self/fd")
    messages(tmp_path, LONG_S)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("_short_grace")
def test_a_result_alone_ends_the_run(tmp_path: Path) -> None:
    Journal(tmp_path).append("starting", "up")
    Journal(tmp_path).write_result("failed", 1, "down")
    assert messages(tmp_path, SHORT_S) == ["up"]


@pytest.mark.parametrize("kind", ["completed", "failed", "destroyed"])
@pytest.mark.usefixtures("_short_grace")
def test_a_last_event_alone_ends_the_run(kind: str, tmp_path: Path) -> None:
    Journal(tmp_path).append(kind, "last")
    assert messages(tmp_path, SHORT_S) == ["last"]


@pytest.mark.usefixtures("_short_grace")
def test_a_result_that_cannot_be_read_does_not_hide_the_last_event(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(b"{")
    Journal(tmp_path).append("failed", "last")
    assert messages(tmp_path, SHORT_S) == ["last"]


@pytest.mark.usefixtures("_short_grace")
def test_the_result_of_an_earlier_run_does_not_end_this_one(tmp_path: Path, later: Later) -> None:
    journal = Journal(tmp_path)
    journal.write_result("completed", 0, "earlier")
    os.utime(tmp_path / "result.json", (1, 1))
    journal.append("starting", "again")
    later(0.4, lambda: journal.append("completed", "now"))
    assert messages(tmp_path, SHORT_S) == ["again", "now"]


def test_what_follows_the_first_half_of_the_end_is_given(tmp_path: Path, later: Later) -> None:
    journal = Journal(tmp_path)
    journal.write_result("completed", 0, "done")
    later(0.05, lambda: journal.append("completed", "done"))
    assert messages(tmp_path, LONG_S) == ["done"]
