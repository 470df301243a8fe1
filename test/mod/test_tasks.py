"""Setup tasks: which a class has, in which order, and what makes each run again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from task_objects import EITHER, Recorder, asking, chain, do, either, heir, made, recording, run

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import SetupTaskMixin, SkipSetupTask, setup_task


def names(cls: type[SetupTaskMixin]) -> list[str]:
    return [task.name for task in cls.class_setup_tasks()]


# --- which, in which order ------------------------------------------------------------------------


def test_tasks_have_orders_a_hundred_apart_as_they_are_defined() -> None:
    first, second, third = (task.order for task in chain("abc").class_setup_tasks())
    assert (second - first, third - second) == (100, 100)


def test_an_order_that_is_given_moves_on_those_that_follow() -> None:
    ahead = recording("a").order + 1050
    assert recording("b", order=ahead).order == ahead
    assert recording("c").order == ahead + 100


def test_an_order_behind_the_counter_does_not_move_it() -> None:
    before = recording("a").order
    assert recording("b", order=0).order == 0
    assert recording("c").order == before + 100


def test_order_0_is_an_order() -> None:
    cls = made(late=recording("late"), soon=recording("soon", order=0))
    assert names(cls) == ["soon", "late"]


def test_before_is_just_before() -> None:
    a, b = recording("a"), recording("b")
    cls = made(a=a, b=b, c=recording("c", before=b))
    assert names(cls) == ["a", "c", "b"]


@pytest.mark.parametrize("order", [0, 5])
def test_order_and_before_exclude_each_other(order: int) -> None:
    with pytest.raises(TypeError, match="not both"):
        setup_task("both", order=order, before=recording("a"))


def test_a_task_of_a_subclass_takes_the_place_of_its_name() -> None:
    base = chain("ab")
    task = recording("other a")
    sub = heir(base, a=task)
    assert sub.class_setup_tasks() == (base.__dict__["b"], task)
    assert names(base) == ["a", "b"]


@pytest.mark.parametrize("instead", [None, lambda self: None], ids=["None", "a method"])
def test_what_is_no_task_removes_the_one_of_its_name(instead: object) -> None:
    assert names(heir(chain("abc"), b=instead)) == ["a", "c"]


def test_bases_are_taken_in_the_order_in_which_methods_are_found() -> None:
    left, right = chain("ab"), chain("ac")
    both: type[Recorder] = type("Both", (left, right), {})
    assert names(both) == ["a", "b", "c"]
    assert both.class_setup_tasks()[0] is left.__dict__["a"]


def test_a_task_may_come_from_a_class_without_setup_tasks() -> None:
    mixin = type("Plain", (), {"a": recording("a")})
    both: type[Recorder] = type("Both", (mixin, Recorder), {})
    assert names(both) == ["a"]


def test_a_function_of_a_task_may_have_another_name_than_the_task() -> None:
    class Named(Recorder):
        @setup_task("build")
        def build(self) -> None: ...

        @build.hash()
        def _hash_of_build(self) -> str:
            return "x"

    assert names(Named) == ["build"]


def test_a_subclass_changes_its_own_task_alone(tmp_path: Path) -> None:
    base = chain("a")
    sub = heir(base, a=base.__dict__["a"].hash()(lambda obj: obj.answers("hash")))
    assert sub.class_setup_tasks() != base.class_setup_tasks()
    plain, obj = base(tmp_path, "plain"), sub(tmp_path)
    obj.says["hash"] = "1"
    assert (run(plain), run(obj)) == (["a"], ["a"])
    obj.says["hash"] = "2"
    assert (run(plain), run(obj)) == ([], ["a"])


def test_a_task_of_another_class_under_another_name_is_another_task(tmp_path: Path) -> None:
    base = chain("a")
    sub = heir(base, again=base.__dict__["a"])
    assert sorted(names(sub)) == ["a", "again"]
    assert names(base) == ["a"]
    obj = sub(tmp_path)
    assert run(obj) == ["a", "a"]
    assert obj.check_stamp("again") != obj.check_stamp("a")


def test_a_class_tells_its_tasks_without_an_object() -> None:
    described = chain("ab").inspect_class_setup_tasks()
    assert [(each.name, each.description) for each in described] == [("a", "do a"), ("b", "do b")]
    assert described[0].order < described[1].order


@EITHER
def test_an_object_may_have_a_task_of_its_own(tmp_path: Path, is_async: bool) -> None:
    cls = chain("ab", is_async)
    obj, other = cls(tmp_path), cls(tmp_path, "other")
    order = cls.class_setup_tasks()[1].order - 1
    extra = either(lambda obj: obj.does("extra"), is_async)
    obj.add_setup_task(extra, name="extra", description="more", order=order)
    assert run(obj) == ["a", "extra", "b"]
    assert run(obj) == []
    assert run(other) == ["a", "b"]


def test_a_task_that_is_added_may_be_one_already(tmp_path: Path) -> None:
    obj = chain("a")(tmp_path)

    @setup_task("more")
    def more(self: Recorder) -> None:
        self.does("more")

    assert obj.add_setup_task(more) is more
    assert run(obj) == ["a", "more"]
    with pytest.raises(TypeError, match="already"):
        obj.add_setup_task(more, name="again")


def test_a_name_is_added_once(tmp_path: Path) -> None:
    obj = chain("a")(tmp_path)
    with pytest.raises(InputError, match="object has a setup task a already"):
        obj.add_setup_task(lambda obj: None, name="a", description="another")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "a.b", "a\0b", "a\n", "x" * 101, "é"])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    obj = chain("a")(tmp_path)
    with pytest.raises(InputError, match="is no name of a setup task"):
        obj.stamps.write(name, "")
    with pytest.raises(InputError, match="is no name of a setup task"):
        obj.check_stamp(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subdir", ["../up", "/etc", "a//b", "", "a/../b", ".", "a\0b", 3])
def test_a_directory_that_could_be_elsewhere_is_refused(tmp_path: Path, subdir: Any) -> None:
    obj = chain("a")(tmp_path / "root", subdir)
    with pytest.raises(InputError, match="is no relative path"):
        run(obj)
    assert list(tmp_path.iterdir()) == []


# --- what runs again ------------------------------------------------------------------------------


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
