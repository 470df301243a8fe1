"""Objects with setup tasks that write down what ran."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from osbuild_pika.tasks import SetupTaskMixin, TaskEvent, TaskMethod, TaskWrapper, setup_task

T = TypeVar("T", bound="Recorder")

# A task, its hash, its invalidator, its check_completed: plain functions or coroutines.
EITHER = pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])


class Recorder(SetupTaskMixin):
    """ran: the names of its tasks that ran, in order. says: what its functions answer."""

    def __init__(self, root: Path, subdir: str = "object") -> None:
        self.root = root
        self.subdir = subdir
        self.ran: list[str] = []
        self.says: dict[str, Any] = {}
        self.asked: list[str] = []

    @property
    def tasks_root(self) -> Path:
        return self.root

    @property
    def stamp_subdir(self) -> str:
        return self.subdir

    def does(self, name: str) -> Any:
        """What a task does: it is written down, and raises what it is told to."""
        self.ran.append(name)
        error = self.says.get(name)
        if isinstance(error, BaseException):
            raise error
        return error

    def answers(self, name: str) -> Any:
        self.asked.append(name)
        return self.says[name]


def either(func: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """The function, or a coroutine that does the same after it waited."""

    @functools.wraps(func)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return func(*args, **kwargs)

    return waiting if is_async else func


def recording(name: str, is_async: bool = False, **place: Any) -> TaskWrapper:
    """A task that is written down under its name."""
    return setup_task(f"do {name}", **place)(either(lambda obj: obj.does(name), is_async))


def asking(task: TaskWrapper, is_async: bool, *kinds: str, prefix: str = "") -> TaskWrapper:
    """A task with functions that answer what the object says: `says[prefix + kind]`.

    kinds: hash, invalidator, slow_invalidator, check_completed.
    """
    decorators: dict[str, Any] = {
        "hash": task.hash,
        "invalidator": task.invalidator,
        "slow_invalidator": functools.partial(task.invalidator, slow=True),
        "check_completed": task.check_completed,
    }
    for kind in kinds:
        key = prefix + kind
        decorators[kind]()(either(lambda obj, key=key: obj.answers(key), is_async))
    return task


def heir(base: type[T], **tasks: Any) -> type[T]:
    """A class with these tasks, and those of a base."""
    return type("Made", (base,), tasks)


def made(**tasks: Any) -> type[Recorder]:
    """A class with these tasks."""
    return heir(Recorder, **tasks)


def chain(names: str | list[str], is_async: bool = False) -> type[Recorder]:
    return made(**{name: recording(name, is_async) for name in names})


def do(doing: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(doing)


def method(obj: Recorder, name: str) -> TaskMethod:
    found = getattr(obj, name)
    assert isinstance(found, TaskMethod)
    return found


def call(obj: Recorder, name: str) -> Any:
    """Call a task directly, and wait for its end."""
    result = method(obj, name)()
    return do(result) if inspect.iscoroutine(result) else result


def run(obj: Recorder, **how: Any) -> list[str]:
    """Run its tasks. Returns the names of those that ran this time."""
    before = len(obj.ran)
    do(obj.run_setup_tasks(**how))
    return obj.ran[before:]


def predicted(obj: Recorder, **how: Any) -> list[str]:
    return [each.name for each in do(obj.inspect_setup_tasks(**how)) if each.should_run]


def reasons(obj: Recorder, **how: Any) -> list[str]:
    return [each.reason for each in do(obj.inspect_setup_tasks(**how))]


class Told:
    """Listens: `kinds` are the events as "<kind> <task>"."""

    def __init__(self) -> None:
        self.events: list[TaskEvent] = []

    def __call__(self, event: TaskEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [f"{each.kind} {each.task}" for each in self.events]
