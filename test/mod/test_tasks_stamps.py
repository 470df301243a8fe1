"""Stamps and their counter: what is kept, what is read, what is taken for nothing."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from inodes import inode
from task_objects import Recorder, asking, call, chain, made, predicted, reasons, recording, run

from osbuild_pika import lifecycle
from osbuild_pika.errors import HostError, InputError
from osbuild_pika.tasks import PathMixin, cross_object_dependency
from osbuild_pika.tasks.counter import LIMIT, take
from osbuild_pika.tasks.files import update_below

DAY_NS = 86_400 * 10**9


class Clock:
    """The wall clock, as far as it was set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time.time_ns
        self.offset_ns = 0
        monkeypatch.setattr(time, "time_ns", lambda: self._real() + self.offset_ns)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def stamp_file(obj: Recorder, name: str) -> Path:
    return obj.stamp_path / f".stamp-{name}.json"


# --- what is kept ---------------------------------------------------------------------------------


def test_a_stamp_says_when_it_was_and_of_what(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), False, "hash"))(tmp_path, "images/web")
    obj.says["hash"] = "input"
    before = time.time_ns()
    run(obj)
    path = tmp_path / "stamps/images/web/.stamp-a.json"
    found = json.loads(path.read_text())
    assert list(found) == ["v", "time_ns", "run", "hash", "boot_id"]
    assert (found["v"], found["hash"], found["boot_id"]) == (1, "input", lifecycle.boot_id())
    assert before <= found["time_ns"] <= time.time_ns()
    assert obj.check_stamp("a") == tuple(list(found.values())[1:])


def test_each_run_has_a_greater_number_than_all_before_it(tmp_path: Path) -> None:
    one, other = chain("abc")(tmp_path, "one"), chain("abc")(tmp_path, "other")
    numbers = []
    for obj, name in [(one, "a"), (other, "c"), (one, "b"), (other, "a"), (one, "a")]:
        call(obj, name)
        stamp = obj.check_stamp(name)
        assert stamp is not None
        numbers.append(stamp.run)
    assert numbers == sorted(set(numbers))


def test_a_number_is_given_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: take(tmp_path, 0), range(64)))
    assert len(set(numbers)) == 64


def test_an_object_asked_for_a_missing_stamp_says_so_if_wanted(tmp_path: Path) -> None:
    obj = chain("a")(tmp_path)
    assert obj.check_stamp("a") is None
    with pytest.raises(InputError, match="object: a: it has no stamp"):
        obj.check_stamp("a", raise_on_error=True)
    assert obj.create_stamp("a", "x") == obj.check_stamp("a", raise_on_error=True)
    obj.delete_stamp("a")
    obj.delete_stamp("a")
    assert obj.check_stamp("a") is None


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "stamps").write_text("no directory")
    obj = chain("a")(tmp_path)
    with pytest.raises(HostError, match="stamps/object"):
        run(obj)
    assert obj.ran == []


def test_a_root_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_TASKS", str(tmp_path))
    obj = PathMixin()
    assert obj.tasks_root == tmp_path
    monkeypatch.delenv("OSBUILD_PIKA_TASKS")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert obj.tasks_root == Path("/home/me/state/osbuild-pika/tasks")


# --- what is taken for nothing --------------------------------------------------------------------


def test_a_stamp_that_is_cut_at_any_byte_is_none(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    run(obj)
    path = stamp_file(obj, "a")
    whole = path.read_bytes()
    for size in range(len(whole) - 1):  # the last byte is a newline
        path.write_bytes(whole[:size])
        assert obj.check_stamp("a") is None, size
        assert reasons(obj) == ["its stamp cannot be used: it is damaged", "follows a"], size
    assert run(obj) == ["a", "b"]
    log = (obj.log_path / "a.log").read_text()
    assert "started: its stamp cannot be used: it is damaged" in log


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"v": 2}, "not of version 1"),
        ({"run": 0}, "damaged"),
        ({"run": True}, "damaged"),
        ({"run": LIMIT}, "damaged"),
        ({"run": "7"}, "damaged"),
        ({"run": 7.5}, "damaged"),
        ({"time_ns": -1}, "damaged"),
        ({"time_ns": None}, "damaged"),
        ({"hash": None}, "damaged"),
        ({"boot_id": 7}, "damaged"),
    ],
)
def test_a_stamp_that_says_what_none_can_is_none(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    obj = chain("a")(tmp_path)
    run(obj)
    path = stamp_file(obj, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert why in reasons(obj)[0]
    assert run(obj) == ["a"]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\0" * 200, b"[" * 60_000, b"\xff{}"])
def test_a_stamp_of_other_bytes_is_none(tmp_path: Path, content: bytes) -> None:
    obj = chain("a")(tmp_path)
    run(obj)
    stamp_file(obj, "a").write_bytes(content)
    assert run(obj) == ["a"]


def test_a_link_or_a_pipe_in_the_place_of_a_stamp_is_none_and_goes(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    run(obj)
    elsewhere = tmp_path / "elsewhere"
    stamp_file(obj, "a").rename(elsewhere)
    stamp_file(obj, "a").symlink_to(elsewhere)
    stamp_file(obj, "b").unlink()
    os.mkfifo(stamp_file(obj, "b"))
    content = elsewhere.read_bytes()
    assert reasons(obj)[0] == "its stamp cannot be used: it is a link"
    assert run(obj) == ["a", "b"]
    assert predicted(obj) == []
    assert elsewhere.read_bytes() == content


# --- stamps of the original -----------------------------------------------------------------------


def plain(obj: Recorder, name: str, text: str, age_s: float) -> None:
    obj.stamp_path.mkdir(parents=True, exist_ok=True)
    path = obj.stamp_path / f".stamp-{name}"
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_plain_text_stamps_are_read(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), False, "hash"), b=recording("b"))(tmp_path)
    plain(obj, "a", "1", age_s=100)
    plain(obj, "b", "", age_s=50)
    obj.says["hash"] = "1"
    assert predicted(obj) == run(obj) == []
    obj.says["hash"] = "2"
    assert predicted(obj) == run(obj) == ["a", "b"]
    assert not (obj.stamp_path / ".stamp-a").exists()


def test_plain_text_stamps_compare_by_their_times(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    plain(obj, "a", "", age_s=50)
    plain(obj, "b", "", age_s=100)
    assert reasons(obj) == ["done", "a ran later"]


def test_a_plain_text_stamp_of_the_future_is_followed_all_the_same(tmp_path: Path) -> None:
    """What runs now is later than it."""
    obj = chain("ab")(tmp_path)
    plain(obj, "b", "", age_s=-5000)
    assert run(obj) == ["a", "b"]
    call(obj, "a")
    plain(obj, "b", "", age_s=-5000)
    call(obj, "a")
    assert reasons(obj) == ["done", "a ran later"]


# --- clocks and counters --------------------------------------------------------------------------


class Follower(Recorder):
    base: Recorder
    needs = cross_object_dependency("b", "base")
    x = recording("x")


def test_a_clock_that_is_set_back_a_day_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    base, obj = chain("ab")(tmp_path, "base"), Follower(tmp_path)
    obj.base = base
    run(obj)
    clock.offset_ns = -DAY_NS
    assert run(obj) == []
    call(base, "a")
    assert predicted(obj) == ["needs", "x"]
    assert run(obj) == ["x"]
    assert run(obj) == []
    call(base, "b")
    assert run(obj) == ["x"]
    clock.offset_ns = 0
    assert predicted(base) == run(obj) == []


def test_a_clock_that_was_ahead_once_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    obj = chain("abc")(tmp_path)
    clock.offset_ns = 365 * DAY_NS
    run(obj)
    clock.offset_ns = 0
    assert run(obj) == []
    call(obj, "b")
    assert predicted(obj) == run(obj) == ["c"]


@pytest.mark.parametrize("content", [b"", b"0", b"9" * 400, b"\0" * 17, b"-000000000000001\n"])
def test_a_counter_that_is_lost_or_damaged_changes_nothing(tmp_path: Path, content: bytes) -> None:
    base, obj = chain("ab")(tmp_path, "base"), Follower(tmp_path)
    obj.base = base
    run(obj)
    (tmp_path / "run").write_bytes(content)
    call(base, "b")
    assert predicted(obj) == run(obj) == ["x"]
    assert run(obj) == []
    assert len((tmp_path / "run").read_bytes()) == 17


def test_a_lost_counter_and_a_clock_set_back_do_not_harm_one_object(
    tmp_path: Path, clock: Clock
) -> None:
    obj = chain("abc")(tmp_path)
    run(obj)
    (tmp_path / "run").unlink()
    clock.offset_ns = -DAY_NS
    call(obj, "a")
    assert predicted(obj) == run(obj) == ["b", "c"]


# --- files below a root ---------------------------------------------------------------------------


def test_a_file_is_replaced_only_if_it_differs(tmp_path: Path) -> None:
    assert update_below(tmp_path, "a/b", b"1")
    first = inode(tmp_path / "a/b")
    assert not update_below(tmp_path, "a/b", b"1")
    assert inode(tmp_path / "a/b") == first
    assert update_below(tmp_path, "a/b", b"12")
    assert (tmp_path / "a/b").read_bytes() == b"12"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_no_link_below_a_root_leads_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "etc").symlink_to(outside)
    (root / "file").symlink_to(outside / "target")
    with pytest.raises(OSError):
        update_below(root, "etc/hosts", b"1")
    update_below(root, "file", b"1")
    assert list(outside.iterdir()) == []
    assert (root / "file").read_bytes() == b"1"
