"""Through the tasks of an object in their order: looking, or running."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import locks
from osbuild_pika.tasks.decision import Past
from osbuild_pika.tasks.task import Judged, SkipSetupTask, TaskWrapper

if TYPE_CHECKING:
    from osbuild_pika.tasks.mixin import Context, SetupTaskMixin

_Way = ContextVar[tuple[tuple[str, str], ...]]  # stamp directory and name of each object
_looking: _Way = ContextVar("looking", default=())
_running: _Way = ContextVar("running", default=())


class CycleError(InputError):
    """Objects whose tasks depend on each other."""


class Wanted(NamedTuple):
    """expensive: slow invalidators are asked. through: the last task that matters; None: all."""

    expensive: bool = False
    through: str | None = None


class Walked(NamedTuple):
    """ran: names of the object's own tasks. last: what follows the last of them must follow."""

    ran: tuple[str, ...] = ()
    last: tuple[Past, ...] = ()


async def look(obj: SetupTaskMixin, wanted: Wanted) -> list[Judged]:
    """What `run` would do with each task. Changes nothing. Raises as TaskWrapper.judge does."""
    found = []
    earlier: tuple[Past, ...] = ()
    with _entered(_looking, obj):
        for task in _chosen(obj, wanted.through):
            judged = await task.judge(obj, earlier, wanted.expensive)
            if obj.readonly and judged.verdict.should_run:
                verdict = judged.verdict._replace(
                    should_run=False, reason=f"readonly; otherwise: {judged.verdict.reason}"
                )
                judged = judged._replace(verdict=verdict, pasts=())
            found.append(judged)
            earlier += judged.pasts
    return found


async def run(obj: SetupTaskMixin, context: Context | None, wanted: Wanted) -> Walked:
    """Run what is to run. context: entered before the first task that runs.

    Raises what a task raises; the next run goes on there.
    """
    tasks = _chosen(obj, wanted.through)
    if obj.readonly or not tasks:
        return Walked()
    earlier: tuple[Past, ...] = ()
    ran = []
    with _entered(_running, obj):
        async with locks.Holding(obj.stamp_path), contextlib.AsyncExitStack() as stack:
            for task in tasks:
                await task.prepare(obj, wanted.expensive)
                judged = await task.judge(obj, earlier, wanted.expensive)
                last = judged.pasts
                if judged.verdict.should_run:
                    task.tell(obj, "should_run", judged.verdict.reason)
                    if context is not None and task.needs_context:
                        await stack.enter_async_context(context)
                        context = None
                    last = ()
                    with contextlib.suppress(SkipSetupTask):
                        last = await task.run(obj, judged.verdict.reason, wanted.expensive)
                        ran.append(task.name)
                else:
                    task.tell(obj, "already_run", judged.verdict.reason)
                earlier += last
    return Walked(tuple(ran), last)


def _chosen(obj: SetupTaskMixin, through: str | None) -> tuple[TaskWrapper, ...]:
    tasks = obj.setup_tasks
    if through is None:
        return tasks
    names = [task.name for task in tasks]
    if through not in names:
        raise InputError(f"{obj.stamp_subdir} has no setup task {through!a}")
    return tasks[: names.index(through) + 1]


@contextlib.contextmanager
def _entered(way: _Way, obj: SetupTaskMixin) -> Iterator[None]:
    """Go into an object. Raises CycleError if the way is in it already."""
    place = (os.path.abspath(obj.stamp_path), obj.stamp_subdir)
    before = way.get()
    if place in before:
        names = [name for _, name in (*before[before.index(place) :], place)]
        raise CycleError(f"setup tasks depend on each other: {' -> '.join(names)}")
    token = way.set((*before, place))
    try:
        yield
    finally:
        way.reset(token)
