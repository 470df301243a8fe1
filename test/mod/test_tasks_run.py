"""Running setup tasks: context, failures, direct calls, events, logs, readonly, who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
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
    either,
    heir,
    made,
    method,
    predicted,
    reasons,
    recording,
    run,
)

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import BusyError, CycleError, SkipSetupTask, listening, setup_task

BAD = RuntimeError("the mirror is gone")


@contextlib.asynccontextmanager
async def written(obj: Recorder) -> AsyncIterator[None]:
    obj.ran.append("enter")
    try:
        yield
    except BaseException as error:
        obj.ran.append(f"leave by {type(error).__name__}")
        raise
    else:
        obj.ran.append("leave")


def test_the_context_is_entered_before_the_first_task_that_runs(tmp_path: Path) -> None:
    obj = chain("abc")(tmp_path)
    run(obj)
    obj.delete_stamp("b")
    told = Told()
    with listening(told, "object"):
        assert run(obj, context=written(obj)) == ["enter", "b", "c", "leave"]
    assert told.kinds[0] == "already_run a"


def test_the_context_is_not_entered_if_nothing_runs(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    run(obj)
    assert run(obj, context=written(obj)) == []


def test_the_context_is_told_how_it_ends(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    obj.says["a"] = BAD
    with pytest.raises(RuntimeError, match="the mirror is gone"):
        run(obj, context=written(obj))
    assert obj.ran == ["enter", "a", "leave by RuntimeError"]


@EITHER
def test_the_run_after_a_failure_goes_on_there(tmp_path: Path, is_async: bool) -> None:
    obj = chain("abc", is_async)(tmp_path)
    run(obj)
    obj.delete_stamp("b")
    obj.says["b"] = BAD
    with pytest.raises(RuntimeError) as caught:
        run(obj)
    assert caught.value is BAD
    assert obj.check_stamp("b") is None
    obj.says.clear()
    assert run(obj) == ["b", "c"]


@EITHER
@pytest.mark.parametrize("error", [BAD, KeyboardInterrupt(), SystemExit(3)], ids=lambda e: repr(e))
def test_a_failure_of_what_was_done_removes_its_stamp(
    tmp_path: Path, is_async: bool, error: BaseException
) -> None:
    obj = made(a=asking(recording("a", is_async), is_async, "hash"))(tmp_path)
    obj.says["hash"] = "1"
    run(obj)
    obj.says |= {"hash": "2", "a": error}
    with pytest.raises(type(error)):
        run(obj)
    obj.says |= {"hash": "1", "a": None}
    assert run(obj) == ["a"]


def test_a_task_that_is_cancelled_is_not_done(tmp_path: Path) -> None:
    obj = chain("ab", is_async=True)(tmp_path)
    run(obj)

    async def cancelled() -> None:
        doing = asyncio.create_task(method(obj, "a")())
        await asyncio.sleep(0)
        doing.cancel()
        await asyncio.wait([doing])
        assert doing.cancelled()

    do(cancelled())
    assert obj.check_stamp("a") is None
    assert run(obj) == ["a", "b"]


@EITHER
def test_while_a_task_runs_it_is_not_done(tmp_path: Path, is_async: bool) -> None:
    task = setup_task("look")(
        either(lambda obj: obj.ran.append(str(obj.check_stamp("a"))), is_async)
    )
    obj = made(a=task)(tmp_path)
    run(obj)
    obj.create_stamp("a", "other")
    assert run(obj) == ["None"]


def test_a_plain_task_that_is_called_runs_and_stamps_at_once(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    obj.says["a"] = 17
    assert method(obj, "a")() == 17
    first = obj.check_stamp("a")
    assert method(obj, "a")() == 17
    assert obj.check_stamp("a") != first
    assert run(obj) == ["b"]


def test_an_async_task_that_is_called_runs_and_stamps_when_awaited(tmp_path: Path) -> None:
    obj = chain("ab", is_async=True)(tmp_path)
    obj.says["a"] = 17
    assert call(obj, "a") == 17
    assert run(obj) == ["b"]


def test_a_task_is_called_with_arguments(tmp_path: Path) -> None:
    obj = made(a=setup_task("add")(lambda obj, one, more=0: one + more))(tmp_path)
    assert method(obj, "a")(1, more=2) == 3


def test_a_call_that_hides_that_it_is_async_is_refused(tmp_path: Path) -> None:
    inner = either(lambda obj: None, True)
    obj = made(a=setup_task("hidden")(lambda obj: inner(obj)))(tmp_path)
    with pytest.raises(TypeError, match="define it by async def"):
        method(obj, "a")()
    assert do(obj.run_setup_tasks()) == ("a",)


def test_a_task_with_an_async_hash_is_awaited(tmp_path: Path) -> None:
    obj = made(a=asking(recording("a"), True, "hash"))(tmp_path)
    obj.says["hash"] = "1"
    call(obj, "a")
    assert run(obj) == []


@EITHER
def test_a_skip_that_is_called_is_raised(tmp_path: Path, is_async: bool) -> None:
    obj = chain("a", is_async)(tmp_path)
    run(obj)
    obj.says["a"] = SkipSetupTask("not now")
    with pytest.raises(SkipSetupTask):
        call(obj, "a")
    assert obj.check_stamp("a") is None


@EITHER
def test_what_a_task_depends_on_is_called_before_it_runs(tmp_path: Path, is_async: bool) -> None:
    task = recording("a", is_async).depend_on(either(lambda obj: obj.does("start"), is_async))
    obj = made(a=task)(tmp_path)
    assert run(obj) == ["start", "a"]
    assert run(obj) == []
    obj.delete_stamp("a")
    obj.says["start"] = BAD
    with pytest.raises(RuntimeError, match="the mirror is gone"):
        run(obj)
    assert obj.ran[-1] == "start"
    assert obj.check_stamp("a") is None


@EITHER
def test_a_task_may_call_another_of_its_object(tmp_path: Path, is_async: bool) -> None:
    a = setup_task("call")(lambda obj: obj.b())
    obj = made(a=a, b=recording("b", is_async))(tmp_path)
    assert run(obj) == ["b", "b"]  # it follows its caller
    assert run(obj) == []


def test_an_object_that_runs_itself_is_a_cycle(tmp_path: Path) -> None:
    obj = made(a=setup_task("again")(lambda obj: obj.run_setup_tasks()))(tmp_path)
    with pytest.raises(CycleError, match="depend on each other: object -> object"):
        run(obj)


# --- events and logs ------------------------------------------------------------------------------


@EITHER
def test_each_step_is_told(tmp_path: Path, is_async: bool) -> None:
    obj = chain("abc", is_async)(tmp_path)
    run(obj)
    obj.delete_stamp("b")
    obj.says |= {"b": SkipSetupTask("not now"), "c": BAD}
    obj.delete_stamp("c")
    told = Told()
    with listening(told), pytest.raises(RuntimeError):
        run(obj)
    assert told.kinds == [
        "already_run a",
        *("should_run b", "start b", "skip b"),
        *("should_run c", "start c", "fail c"),
    ]
    assert told.events[-1].error is BAD
    assert told.events[1].reason == "not done yet"
    assert {(each.subject, each.owner) for each in told.events} == {("object", obj)}
    obj.says.clear()
    with listening(told):
        run(obj)
    assert told.kinds[8:11] == ["should_run b", "start b", "ran b"]
    count = len(told.events)
    run(obj)
    assert len(told.events) == count


def test_who_listens_to_a_class_or_an_object_hears_of_that_alone(tmp_path: Path) -> None:
    base = chain("a")
    sub = heir(base)
    by_base, by_sub, by_name, by_both = Told(), Told(), Told(), Told()
    with (
        listening(by_base, base),
        listening(by_sub, sub),
        listening(by_name, "one"),
        listening(by_both, base, "one"),
    ):
        run(base(tmp_path, "one"))
        run(sub(tmp_path, "two"))
    subjects = [[each.subject for each in told.events] for told in (by_base, by_sub, by_name)]
    assert subjects == [["one"] * 3 + ["two"] * 3, ["two"] * 3, ["one"] * 3]
    assert len(by_both.events) == 6


def test_the_log_of_a_task_has_its_failure_with_the_traceback(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    obj.says["b"] = BAD
    with pytest.raises(RuntimeError):
        run(obj)
    assert "started: not done yet\n" in (obj.log_path / "a.log").read_text()
    log = (obj.log_path / "b.log").read_text()
    assert "failed:\nTraceback (most recent call last):" in log
    assert log.endswith("RuntimeError: the mirror is gone\n")
    assert (obj.log_path / "b.log").stat().st_mode & 0o77 == 0


def test_a_log_does_not_grow_without_end(tmp_path: Path) -> None:
    obj = chain("a")(tmp_path)
    run(obj)
    log = obj.log_path / "a.log"
    log.write_text("x" * (1 << 20))
    method(obj, "a")()
    assert log.stat().st_size < 1000
    assert (obj.log_path / "a.log.1").stat().st_size > 1 << 20


# --- what does not run ----------------------------------------------------------------------------


def test_a_readonly_object_runs_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    obj.readonly = True
    told = Told()
    with listening(told):
        assert run(obj, context=written(obj)) == []
    assert told.events == []
    assert predicted(obj) == []
    assert reasons(obj) == ["readonly; otherwise: not done yet"] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_readonly_object_still_does_what_it_is_told(tmp_path: Path) -> None:
    obj = chain("a")(tmp_path)
    obj.readonly = True
    method(obj, "a")()
    assert obj.ran == ["a"]


def test_only_what_is_asked_for_runs(tmp_path: Path) -> None:
    obj = chain("abc")(tmp_path)
    assert predicted(obj, through="b") == ["a", "b"]
    assert run(obj, through="b") == ["a", "b"]
    with pytest.raises(InputError, match="object has no setup task 'd'"):
        run(obj, through="d")


def test_a_ready_object_has_run_its_tasks(tmp_path: Path) -> None:
    obj = chain("ab")(tmp_path)
    assert do(obj.async_ready()) is obj
    assert obj.ran == ["a", "b"]


def test_looking_changes_nothing(tmp_path: Path) -> None:
    predicted(chain("abc")(tmp_path / "root"))
    assert list(tmp_path.iterdir()) == []


# --- one at a time --------------------------------------------------------------------------------


def test_two_objects_of_one_directory_take_turns_in_one_process(tmp_path: Path) -> None:
    cls = chain("abc", is_async=True)
    one, other = cls(tmp_path), cls(tmp_path)

    async def both() -> None:
        await asyncio.gather(one.run_setup_tasks(), other.run_setup_tasks())

    do(both())
    assert one.ran + other.ran == ["a", "b", "c"]


def test_a_plain_call_that_would_wait_for_itself_is_refused(tmp_path: Path) -> None:
    cls = chain("ab")
    obj = cls(tmp_path)

    async def hold(self: Recorder) -> None:
        await asyncio.sleep(0)
        going.set()
        await over.wait()

    async def both() -> None:
        holder = made(c=setup_task("hold")(hold))(tmp_path)
        running = asyncio.create_task(holder.run_setup_tasks())
        await going.wait()
        with pytest.raises(BusyError, match="its tasks are running"):
            method(obj, "a")()
        over.set()
        await running

    going, over = asyncio.Event(), asyncio.Event()
    do(both())
    assert obj.ran == []
