"""Setup tasks: which a class or an object has, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_objects import EITHER, Recorder, chain, either, heir, made, recording, run

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import SetupTaskMixin, setup_task


def names(cls: type[SetupTaskMixin]) -> list[str]:
    return [task.name for task in cls.class_setup_tasks()]


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
