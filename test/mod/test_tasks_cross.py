"""Tasks that depend on those of another object."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from task_objects import (
    EITHER,
    Recorder,
    Told,
    asking,
    call,
    chain,
    do,
    heir,
    made,
    predicted,
    reasons,
    recording,
    run,
)

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import CycleError, SkipSetupTask, cross_object_dependency, listening


class Derived(Recorder):
    """Made from another object; its tasks are added by `derived`."""

    def __init__(self, root: Path, base: Recorder | None, subdir: str = "derived") -> None:
        super().__init__(root, subdir)
        self.base = base

    def foundation(self) -> Recorder | None:
        return self.base


def derived(is_async: bool = False, task: str = "b", relationship: str = "base") -> type[Derived]:
    """A task, a dependency on the base's task, two tasks behind it."""
    tasks = {
        "own": recording("own", is_async),
        "needs": cross_object_dependency(task, relationship),
        "x": recording("x", is_async),
        "y": recording("y", is_async),
    }
    return heir(Derived, **tasks)


@EITHER
def test_the_other_runs_first_if_it_needs_to(tmp_path: Path, is_async: bool) -> None:
    base = chain("abc", is_async)(tmp_path, "base")
    obj = derived(is_async)(tmp_path, base)
    obj.ran = base.ran  # one list, to see the order
    assert predicted(obj) == ["own", "needs", "x", "y"]
    run(obj)
    assert base.ran == ["own", "a", "b", "x", "y"]
    assert predicted(obj) == run(obj) == []


@EITHER
def test_only_what_the_dependency_needs_of_the_other_runs(tmp_path: Path, is_async: bool) -> None:
    base = chain("abc", is_async)(tmp_path, "base")
    run(derived(is_async)(tmp_path, base))
    assert base.ran == ["a", "b"]
    assert predicted(base) == ["c"]


@EITHER
def test_later_tasks_run_again_if_the_others_ran_later(tmp_path: Path, is_async: bool) -> None:
    base = chain("abc", is_async)(tmp_path, "base")
    obj = derived(is_async)(tmp_path, base)
    run(obj)
    call(base, "b")
    assert reasons(obj) == ["done", "done", "b of base ran later", "b of base ran later"]
    assert run(obj) == ["x", "y"]
    assert run(obj) == []


def test_what_the_other_ran_that_is_not_depended_on_does_not_matter(tmp_path: Path) -> None:
    base = chain("abc")(tmp_path, "base")
    obj = derived()(tmp_path, base)
    run(base)
    run(obj)
    call(base, "c")
    assert predicted(obj) == run(obj) == []


def test_a_change_far_below_is_followed_all_the_way(tmp_path: Path) -> None:
    ground = chain("ab")(tmp_path, "ground")
    middle = derived()(tmp_path, ground, "middle")
    top = derived(task="y")(tmp_path, middle, "top")
    run(top)
    assert (ground.ran, middle.ran) == (["a", "b"], ["own", "x", "y"])
    ground.delete_stamp("a")
    expected = "needs of middle: a of ground: not done yet"
    assert reasons(top)[1:] == [expected, "follows y of middle", "follows y of middle"]
    assert predicted(top) == ["needs", "x", "y"]
    assert run(top) == ["x", "y"]
    assert (ground.ran[2:], middle.ran[3:]) == (["a", "b"], ["x", "y"])
    assert run(top) == []


def test_one_base_is_made_once_for_all_that_are_made_from_it(tmp_path: Path) -> None:
    base = chain("ab", is_async=True)(tmp_path, "base")
    cls = derived(is_async=True)
    objects = [cls(tmp_path, base, f"image{n}") for n in range(3)]

    async def together() -> None:
        await asyncio.gather(*(obj.run_setup_tasks() for obj in objects))

    do(together())
    assert base.ran == ["a", "b"]
    assert [obj.ran for obj in objects] == [["own", "x", "y"]] * 3


def test_each_object_has_its_own_other(tmp_path: Path) -> None:
    one, two = (chain("ab")(tmp_path, name) for name in ("one", "two"))
    cls = derived()
    of_one, of_two = cls(tmp_path, one, "of-one"), cls(tmp_path, two, "of-two")
    run(of_one)
    run(of_two)
    call(two, "b")
    assert (predicted(of_one), predicted(of_two)) == ([], ["x", "y"])


def test_an_object_without_another_depends_on_nothing(tmp_path: Path) -> None:
    obj = derived(relationship="foundation")(tmp_path, None)
    assert run(obj) == ["own", "x", "y"]
    assert reasons(obj)[1] == "no foundation"
    assert run(obj) == []


def test_the_other_may_come_from_a_method_and_its_task_from_a_class(tmp_path: Path) -> None:
    base_class = chain("ab")
    base = base_class(tmp_path, "base")
    task = cross_object_dependency(base_class.__dict__["b"], "foundation")
    obj = heir(Derived, needs=task, x=recording("x"))(tmp_path, base)
    run(obj)
    assert (base.ran, obj.ran) == (["a", "b"], ["x"])


def test_a_task_that_an_heir_of_the_class_replaced_is_the_one(tmp_path: Path) -> None:
    base_class = chain("ab")
    base = heir(base_class, b=recording("other b"))(tmp_path, "base")
    task = cross_object_dependency(base_class.__dict__["b"], "base")
    run(heir(Derived, needs=task)(tmp_path, base))
    assert base.ran == ["a", "other b"]


def test_a_failure_of_the_other_ends_the_run(tmp_path: Path) -> None:
    base = chain("ab")(tmp_path, "base")
    base.says["b"] = RuntimeError("no mirror")
    obj = derived()(tmp_path, base)
    told = Told()
    with listening(told, "derived"), pytest.raises(RuntimeError, match="no mirror"):
        run(obj)
    assert told.kinds[-2:] == ["start needs", "fail needs"]
    base.says.clear()
    assert predicted(obj) == ["needs", "x", "y"]
    assert run(obj) == ["x", "y"]


def test_a_skip_of_the_other_is_not_followed(tmp_path: Path) -> None:
    base = chain("ab")(tmp_path, "base")
    obj = derived()(tmp_path, base)
    run(obj)
    base.delete_stamp("b")
    base.says["b"] = SkipSetupTask("not now")
    assert run(obj) == []


def test_a_readonly_other_is_taken_as_it_is(tmp_path: Path) -> None:
    base = chain("ab")(tmp_path, "base")
    base.readonly = True
    obj = derived()(tmp_path, base)
    assert predicted(obj) == ["own", "x", "y"]
    assert reasons(obj)[1] == "readonly; otherwise: not done yet"
    run(obj)
    assert base.ran == []
    assert predicted(obj) == []


def test_what_makes_the_other_run_is_the_reason(tmp_path: Path) -> None:
    base_class = made(b=asking(recording("b"), False, "hash"))
    base = base_class(tmp_path, "base")
    base.says["hash"] = "1"
    obj = derived()(tmp_path, base)
    run(obj)
    base.says["hash"] = "2"
    expected = ["done", "b of base: the hash differs", "follows b of base", "follows b of base"]
    assert reasons(obj) == expected


def test_a_cycle_is_one_clear_error(tmp_path: Path) -> None:
    cls = derived(task="x")
    one = cls(tmp_path, None, "one")
    two = cls(tmp_path, one, "two")
    three = cls(tmp_path, two, "three")
    one.base = three
    with pytest.raises(CycleError, match="on each other: one -> three -> two -> one"):
        predicted(one)
    with pytest.raises(CycleError, match="setup tasks depend on each other: "):
        run(one)


def test_a_task_that_the_other_does_not_have_is_named(tmp_path: Path) -> None:
    obj = derived(task="publish")(tmp_path, chain("ab")(tmp_path, "base"))
    with pytest.raises(InputError, match="base has no setup task 'publish'"):
        predicted(obj)


def test_a_relationship_that_is_no_object_is_named(tmp_path: Path) -> None:
    obj = derived(relationship="root")(tmp_path, None)
    with pytest.raises(InputError, match="root of derived is a PosixPath"):
        predicted(obj)


def test_a_dependency_that_is_called_brings_the_other_up(tmp_path: Path) -> None:
    base = chain("abc")(tmp_path, "base")
    call(derived()(tmp_path, base), "needs")
    assert base.ran == ["a", "b"]
