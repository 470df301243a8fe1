"""What makes a setup task run again, and what does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from task_objects import EITHER, Recorder, asking, chain, do, either, made, recording, run

from osbuild_pika.tasks import SkipSetupTask, setup_task


@EITHER
def test_what_is_done_does_not_run_again(tmp_path: Path, is_async: bool) -> None:
    cls = chain("abc", is_async)
    assert run(cls(tmp_path)) == ["a", "b", "c"]
    assert run(cls(tmp_path)) == []


@EITHER
def test_what_follows_a_task_that_ran_runs(tmp_path: Path, is_async: bool) -> None:
    obj = chain("abcd", is_async)(tmp_path)
    run(obj)
    obj.delete_stamp("b")
    assert run(obj) == ["b", "c", "d"]


@EITHER
def test_another_hash_runs_it_again(tmp_path: Path, is_async: bool) -> None:
    obj = made(a=asking(recording("a", is_async), is_async, "hash"), b=recording("b"))(tmp_path)
    obj.says["hash"] = "1"
    assert run(obj) == ["a", "b"]
    assert run(obj) == []
    obj.says["hash"] = "2"
    assert run(obj) == ["a", "b"]
    assert run(obj) == []


def test_a_long_hash_is_as_good_as_a_short_one(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), False, "hash"))(tmp_path)
    obj.says["hash"] = "x" * 100_000
    assert (run(obj), run(obj)) == (["a"], [])
    obj.says["hash"] += "y"
    assert run(obj) == ["a"]


@EITHER
def test_a_hash_that_changes_while_the_task_runs_runs_it_again(
    tmp_path: Path, is_async: bool
) -> None:
    """What was edited while it was built has not been built."""
    task = setup_task("edit")(either(lambda obj: obj.says.update(hash="2"), is_async))
    obj = made(a=asking(task, is_async, "hash"))(tmp_path)
    obj.says["hash"] = "1"
    assert do(obj.run_setup_tasks()) == ("a",)
    assert do(obj.run_setup_tasks()) == ("a",)
    assert do(obj.run_setup_tasks()) == ()


@EITHER
def test_a_hash_of_what_a_task_makes_is_taken_at_its_end(tmp_path: Path, is_async: bool) -> None:
    task = setup_task("lock")(either(lambda obj: obj.says.update(hash="2"), is_async))
    task.hash(covers_output=True)(either(lambda obj: obj.answers("hash"), is_async))
    obj = made(a=task)(tmp_path)
    obj.says["hash"] = "1"
    assert do(obj.run_setup_tasks()) == ("a",)
    assert do(obj.run_setup_tasks()) == ()


def test_a_hash_is_a_string(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), False, "hash"))(tmp_path)
    obj.says["hash"] = 17
    with pytest.raises(ValueError, match="object: a: its hash is 17, which is not a string"):
        run(obj)


@EITHER
@pytest.mark.parametrize("falsy", [False, None, 0, ""])
def test_a_falsy_invalidator_runs_it_again(tmp_path: Path, is_async: bool, falsy: object) -> None:
    task = asking(recording("a", is_async), is_async, "invalidator")
    obj = made(a=task, b=recording("b"))(tmp_path)
    obj.says["invalidator"] = "truthy"
    assert run(obj) == ["a", "b"]
    assert run(obj) == []
    obj.says["invalidator"] = falsy
    assert run(obj) == ["a", "b"]


def test_an_invalidator_is_told_when_the_task_ran(tmp_path: Path) -> None:
    told: list[float] = []

    def still(obj: Recorder, last_run: float, **others: object) -> bool:
        told.append(last_run)
        return True

    obj = made(a=recording("a").invalidator()(still))(tmp_path)
    began = time.time()
    run(obj)
    run(obj)
    assert began - 1 < told[0] <= time.time() + 1


def test_an_invalidator_is_not_asked_of_what_is_not_done(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), False, "invalidator"))(tmp_path)
    run(obj)
    assert obj.asked == []


@EITHER
def test_a_slow_invalidator_is_asked_where_that_is_wanted(tmp_path: Path, is_async: bool) -> None:
    obj = made(a=asking(recording("a", is_async), is_async, "slow_invalidator"))(tmp_path)
    obj.says["slow_invalidator"] = False
    run(obj)
    assert run(obj) == []
    assert obj.asked == []
    assert run(obj, expensive=True) == ["a"]


@EITHER
def test_check_completed_alone_decides(tmp_path: Path, is_async: bool) -> None:
    first = recording("a")
    task = asking(recording("b", is_async), is_async, "check_completed", "hash", "invalidator")
    obj = made(a=first, b=task)(tmp_path)
    obj.says |= {"check_completed": True, "hash": "1", "invalidator": False}
    assert run(obj) == ["a"]
    obj.says["check_completed"] = False
    assert run(obj) == ["b"]
    assert run(obj) == ["b"]


@EITHER
def test_a_time_of_check_completed_compares(tmp_path: Path, is_async: bool) -> None:
    first = recording("a")
    task = asking(recording("b", is_async), is_async, "check_completed")
    obj = made(a=first, b=task, c=recording("c"))(tmp_path)
    obj.says["check_completed"] = time.time() + 1000
    assert run(obj) == ["a", "c"]
    assert run(obj) == ["c"]  # it is older than what it follows
    obj.says["check_completed"] = time.time() - 1000
    assert run(obj) == ["b", "c"]


@EITHER
def test_a_check_completed_without_an_answer_is_an_error(tmp_path: Path, is_async: bool) -> None:
    obj = made(a=asking(recording("a"), is_async, "check_completed"))(tmp_path)
    obj.says["check_completed"] = None
    with pytest.raises(ValueError, match="object: a: check_completed says None"):
        run(obj)


def test_what_follows_a_task_of_check_completed_follows_it_also_after_a_crash(
    tmp_path: Path,
) -> None:
    """It says that it is done; but what follows it did not run since."""
    obj = made(a=asking(recording("a"), False, "check_completed"), b=recording("b"))(tmp_path)
    obj.says["check_completed"] = False
    run(obj)
    obj.says["b"] = KeyboardInterrupt()
    obj.create_stamp("b")
    with pytest.raises(KeyboardInterrupt):
        run(obj)
    obj.says = {"check_completed": True}
    assert run(obj) == ["b"]


@EITHER
def test_a_task_that_skips_is_tried_again_and_nothing_follows_it(
    tmp_path: Path, is_async: bool
) -> None:
    obj = chain("abc", is_async)(tmp_path)
    obj.says["b"] = SkipSetupTask("not now")
    assert run(obj) == ["a", "b", "c"]
    assert obj.check_stamp("b") is None
    assert run(obj) == ["b"]
    obj.says.clear()
    assert run(obj) == ["b", "c"]


@EITHER
def test_a_checked_task_that_skips_leaves_what_follows_alone(
    tmp_path: Path, is_async: bool
) -> None:
    task = asking(recording("a", is_async), is_async, "check_completed")
    obj = made(a=task, b=recording("b"))(tmp_path)
    obj.says["check_completed"] = False
    assert run(obj) == ["a", "b"]
    stamp = obj.check_stamp("a")
    obj.says["a"] = SkipSetupTask("not now")
    assert run(obj) == ["a"]
    assert obj.check_stamp("a") == stamp
