"""Runs below their root: each is made whole, is one engine's, and is sealed when it is dead."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import messages, snapshot
from services import facts, verdict, whole

from osbuild_pika import lifecycle, runs
from osbuild_pika.lifecycle import Journal, LifecycleError

OURS = runs.engine_of(os.getpid())
DEAD = runs.Engine(os.getpid(), 1, lifecycle.boot_id())  # its pid is another's now
LOST = ("failed", 137, "engine.lost")


def begin(root: Path, name: str, engine: runs.Engine = OURS) -> Path:
    """Make a run with one event, which nobody holds any more."""
    run = runs.join(str(root), name, engine)
    with Journal(run.directory) as journal:
        journal.append("requested", "accepted", {"run_id": run.id, "event": "build.accepted"})
    run.close()
    return Path(run.directory)


def finish(run: Path) -> None:
    with Journal(run) as journal:
        details = {"run_id": run.name, "event": "build.completed"}
        journal.finish("completed", 0, "done", details)


# --- names and places ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 64, "build-1-2"])
def test_a_name_of_a_run(name: str) -> None:
    assert runs.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/x",
        "a/b",
        "a" * 65,
        "A",
        ".a",
        "_a",
        "-a",
        "ä",
        "a\n",
        "a\0",
        "a b",
        None,
        1,
    ],
    ids=ascii,
)
def test_what_is_no_name_makes_nothing(name: Any, tmp_path: Path) -> None:
    for action in (runs.check_name, lambda name: runs.join(f"{tmp_path}/runs", name, OURS)):
        with pytest.raises(LifecycleError) as caught:
            action(name)
        assert caught.value.name == "InvalidArgument"
        assert str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_the_root_is_where_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", "here")
    assert runs.root() == f"{tmp_path}/here"
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", "")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runs.root() == "/var/lib/osbuild-pika/runs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert runs.root() == "/state/osbuild-pika/runs"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert runs.root() == "/home/x/.local/state/osbuild-pika/runs"


# --- join ----------------------------------------------------------------------------------------


def test_a_new_run_is_made_whole(tmp_path: Path) -> None:
    run = runs.join(f"{tmp_path}/deep/runs", "web", OURS)
    assert (run.id, run.is_new, run.recovered) == ("web", True, {})
    assert run.directory == f"{tmp_path}/deep/runs/web"
    assert facts(Path(run.directory))["engine"] == OURS._asdict()
    assert sorted(os.listdir(run.directory)) == [".lock", "run.json"]
    assert os.listdir(tmp_path / "deep/runs") == ["web"]
    run.close()


def test_the_same_engine_joins_its_run(tmp_path: Path) -> None:
    begin(tmp_path, "web")
    run = runs.join(str(tmp_path), "web", OURS)
    assert (run.id, run.is_new) == ("web", False)
    run.close()


def test_an_ended_run_is_not_joined(tmp_path: Path) -> None:
    finish(begin(tmp_path, "web"))
    second = begin(tmp_path, "web")
    assert second.name.startswith("web.")
    assert begin(tmp_path, "web") == second, "it goes on"
    finish(second)
    third = begin(tmp_path, "web")
    assert second.name < third.name, "names of later runs are greater"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("left", ["result.json", "status.json"])
def test_a_run_whose_end_is_half_written_is_completed_and_not_joined(
    left: str, tmp_path: Path
) -> None:
    first = begin(tmp_path, "web")
    finish(first)
    for name in {"result.json", "status.json"} - {left}:
        (first / name).unlink()
    if left == "status.json":
        (first / left).unlink()
    assert begin(tmp_path, "web") != first
    assert verdict(first) == ("completed", 0, "build.completed")


@pytest.mark.parametrize(
    "other",
    [
        DEAD,
        OURS._replace(boot_id="another"),
        OURS._replace(start_time=None),
    ],
    ids=["a pid that is used again", "another boot", "an engine that had ended"],
)
def test_a_dead_engines_run_of_the_name_is_sealed_and_not_joined(
    other: runs.Engine, tmp_path: Path
) -> None:
    first = begin(tmp_path, "web", other)
    assert begin(tmp_path, "web").name.startswith("web.")
    assert verdict(first) == LOST


def test_a_living_engines_run_of_the_name_is_left_alone(tmp_path: Path) -> None:
    first = begin(tmp_path, "web", runs.engine_of(os.getppid()))
    before = snapshot(first)
    assert begin(tmp_path, "web").name.startswith("web.")
    assert snapshot(first) == before


def test_a_run_of_a_longer_name_is_another(tmp_path: Path) -> None:
    longer = begin(tmp_path, "web." + "a" * 25)
    assert begin(tmp_path, "web").name == "web"
    assert messages(longer) == ["accepted"]


def make(root: str, barrier: Any, ids: Any) -> None:
    barrier.wait()
    run = runs.join(root, "web", runs.engine_of(os.getpid()))
    ids.put((run.id, os.getpid()))
    barrier.wait()  # all live while the others look


def test_several_that_make_a_run_of_one_name_get_one_each(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, ids = context.Barrier(4), context.Queue()
    makers = [context.Process(target=make, args=(str(tmp_path), barrier, ids)) for _ in range(4)]
    for maker in makers:
        maker.start()
    made = dict(ids.get(timeout=20) for _ in makers)
    for maker in makers:
        maker.join(20)
    ids.close()
    ids.join_thread()
    assert len(made) == 4
    assert "web" in made
    assert sorted(os.listdir(tmp_path)) == sorted(made), "nothing else is left"
    for run_id, pid in made.items():
        assert facts(tmp_path / run_id)["run_id"] == run_id
        assert facts(tmp_path / run_id)["engine"]["pid"] == pid


# --- seal ----------------------------------------------------------------------------------------


def test_a_dead_run_is_sealed_once(tmp_path: Path) -> None:
    dead = begin(tmp_path, "web", DEAD)
    assert runs.seal_dead(str(tmp_path)) == ["web"]
    assert verdict(dead) == LOST
    before = snapshot(dead)
    assert runs.seal_dead(str(tmp_path)) == []
    assert snapshot(dead) == before


def test_a_run_that_said_nothing_yet_is_sealed(tmp_path: Path) -> None:
    run = runs.join(str(tmp_path), "web", DEAD)
    run.close()
    assert runs.seal(run.directory)
    assert verdict(Path(run.directory)) == LOST
    assert len(whole(Path(run.directory))) == 1


def test_a_run_that_somebody_holds_is_not_sealed(tmp_path: Path) -> None:
    run = runs.join(str(tmp_path), "web", DEAD)
    before = snapshot(tmp_path)
    assert runs.seal_dead(str(tmp_path)) == []
    assert snapshot(tmp_path) == before
    run.close()
    assert runs.seal_dead(str(tmp_path)) == ["web"]


def test_a_run_whose_engine_lives_is_not_sealed(tmp_path: Path) -> None:
    begin(tmp_path, "web")
    before = snapshot(tmp_path)
    assert runs.seal_dead(str(tmp_path)) == []
    assert snapshot(tmp_path) == before


def test_an_engine_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert runs.engine_of(process.pid).start_time is None


def test_a_verdict_is_never_changed_by_a_seal(tmp_path: Path) -> None:
    dead = begin(tmp_path, "web", DEAD)
    finish(dead)
    (dead / "status.json").unlink()
    assert runs.seal_dead(str(tmp_path)) == ["web"]
    assert verdict(dead) == ("completed", 0, "build.completed")
    (dead / "result.json").unlink()
    runs.seal_dead(str(tmp_path))
    assert verdict(dead) == ("completed", 0, "build.completed")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"], ids=repr
)
def test_a_run_whose_facts_are_unreadable_has_no_engine(text: bytes, tmp_path: Path) -> None:
    dead = begin(tmp_path, "web")
    (dead / "run.json").write_bytes(text)
    assert runs.seal_dead(str(tmp_path)) == ["web"]
    assert verdict(dead) == LOST


@pytest.mark.parametrize(
    "engine",
    [None, 1, "x", [], {}, {"pid": 1}, {"pid": "1", "start_time": 1, "boot_id": OURS.boot_id}]
    + [{"pid": pid, "start_time": 1, "boot_id": OURS.boot_id} for pid in (-1, 0, 2**70, True)],
    ids=repr,
)
def test_an_engine_that_cannot_be_is_dead(engine: Any, tmp_path: Path) -> None:
    dead = begin(tmp_path, "web")
    (dead / "run.json").write_text(json.dumps({"engine": engine}))
    assert runs.seal_dead(str(tmp_path)) == ["web"]
    assert verdict(dead) == LOST


def to_pipe(path: Path) -> None:
    os.mkfifo(path)


FOREIGN: list[Callable[[Path], object]] = [
    lambda path: path.mkdir(),
    lambda path: path.write_text("x"),
    lambda path: path.symlink_to("nowhere"),
    to_pipe,
]


@pytest.mark.parametrize("make", FOREIGN, ids=["directory", "file", "link", "pipe"])
def test_what_is_no_run_is_left_alone(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "web")
    make(tmp_path / "not a run")
    before = snapshot(tmp_path)
    assert runs.seal_dead(str(tmp_path)) == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("make", FOREIGN[1:], ids=["file", "link", "pipe"])
def test_a_name_that_is_taken_by_something_else_is_left_to_it(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "web")
    before = snapshot(tmp_path)
    run = begin(tmp_path, "web")
    assert run.name.startswith("web.")
    assert before.items() <= snapshot(tmp_path).items()


def test_a_run_behind_a_link_is_not_sealed(tmp_path: Path) -> None:
    dead = begin(tmp_path / "elsewhere", "web", DEAD)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/web").symlink_to(dead)
    before = snapshot(dead)
    assert runs.seal_dead(f"{tmp_path}/runs") == []
    assert begin(tmp_path / "runs", "web").name.startswith("web.")
    assert snapshot(dead) == before


@pytest.mark.parametrize("name", ["run.json", ".lock", "events.jsonl"])
def test_a_link_in_a_run_is_not_followed(name: str, tmp_path: Path) -> None:
    dead = begin(tmp_path, "web", DEAD)
    target = tmp_path / "target"
    target.write_text("precious")
    with contextlib.suppress(FileNotFoundError):
        (dead / name).unlink()
    (dead / name).symlink_to(target)
    runs.seal_dead(str(tmp_path))
    assert target.read_text() == "precious"


def test_what_a_killed_creator_left_goes_when_it_is_old(tmp_path: Path) -> None:
    for name in (f".web.{'0' * 26}", f".new.{'0' * 26}", ".mine"):
        (tmp_path / name).mkdir()
    (tmp_path / f".web.{'0' * 26}/run.json").write_text("{")
    os.utime(tmp_path / f".web.{'0' * 26}", (0, 0))
    os.utime(tmp_path / ".mine", (0, 0))
    runs.seal_dead(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".mine", f".new.{'0' * 26}"]


def test_a_root_that_is_not_there_or_no_directory_holds_no_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert runs.seal_dead(f"{tmp_path}/none") == runs.seal_dead(f"{tmp_path}/file") == []
    with pytest.raises(OSError):
        runs.join(f"{tmp_path}/file", "web", OURS)


def test_a_holder_shares_the_lock_with_others(tmp_path: Path) -> None:
    one = runs.join(str(tmp_path), "web", OURS)
    other = runs.join(str(tmp_path), "web", OURS)
    assert one.id == other.id
    one.close()
    with open(f"{other.directory}/.lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.close()
