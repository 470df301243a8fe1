"""Objects with setup tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Self

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import files, walk
from osbuild_pika.tasks.decision import Stamp
from osbuild_pika.tasks.paths import PathMixin
from osbuild_pika.tasks.stamps import Stamps, shorten
from osbuild_pika.tasks.task import TaskWrapper

Context = AbstractAsyncContextManager[Any]


class Inspection(NamedTuple):
    """What a run would do with a task now, and why.

    reason: a few plain words. last_run_s: seconds since the epoch; None if that is not known.
    is_certain: False where a check_completed function was asked before what it depends on has
    run, and may answer otherwise then.
    """

    name: str
    description: str
    should_run: bool
    reason: str
    last_run_s: float | None
    is_certain: bool


class ClassInspection(NamedTuple):
    """A task that each object of a class has."""

    name: str
    description: str
    order: int


class SetupTaskMixin(PathMixin):
    """An object whose setup_task methods run in their order, each until it is done.

    It needs a `stamp_subdir`. A task named like one of a base class takes its place; None in its
    place removes it.
    """

    # Nothing runs, but what is called directly.
    readonly: bool = False

    @property
    def stamps(self) -> Stamps:
        return Stamps(self.stamp_path, self.tasks_root)

    @classmethod
    def class_setup_tasks(cls) -> tuple[TaskWrapper, ...]:
        """The tasks of a class and its bases, in their order."""
        found: dict[str, Any] = {}
        for each in reversed(cls.__mro__):
            for name, value in vars(each).items():
                found.pop(name, None)
                found[name] = value
        tasks = dict.fromkeys(each for each in found.values() if isinstance(each, TaskWrapper))
        return tuple(sorted(tasks, key=lambda task: task.order))

    @property
    def setup_tasks(self) -> tuple[TaskWrapper, ...]:
        """The tasks of this object, in their order."""
        added: tuple[TaskWrapper, ...] = vars(self).get("_added_setup_tasks", ())
        return tuple(sorted((*self.class_setup_tasks(), *added), key=lambda task: task.order))

    def add_setup_task(
        self,
        task: TaskWrapper | Callable[..., Any],
        *,
        description: str | None = None,
        order: int | None = None,
        name: str | None = None,
    ) -> TaskWrapper:
        """Give this object alone one task more: a task, or a function of the object.

        Raises TypeError for a task with more arguments, InputError for a name that is no name or
        is taken.
        """
        if not isinstance(task, TaskWrapper):
            words = description or (task.__doc__ or task.__name__).partition("\n")[0]
            task = TaskWrapper(task, words, order=order, name=name)
        elif description is not None or order is not None or name is not None:
            raise TypeError("a task has its description, order and name already")
        if files.check_name(task.name) in [each.name for each in self.setup_tasks]:
            raise InputError(f"{self.stamp_subdir} has a setup task {task.name} already")
        vars(self)["_added_setup_tasks"] = (*vars(self).get("_added_setup_tasks", ()), task)
        return task

    async def run_setup_tasks(
        self,
        context: Context | None = None,
        *,
        expensive: bool = False,
        through: str | None = None,
    ) -> tuple[str, ...]:
        """Run what `inspect_setup_tasks` tells. Returns the names of the tasks that ran.

        context: entered before the first task that runs, if one does, and left at the end.
        expensive: slow invalidators are asked, too. through: the last task that is looked at.
        Waits while another process runs tasks of this object. What a task raises is raised; the
        next run goes on there. Raises HostError, InputError.
        """
        return (await walk.run(self, context, walk.Wanted(expensive, through))).ran

    async def inspect_setup_tasks(
        self, *, expensive: bool = False, through: str | None = None
    ) -> tuple[Inspection, ...]:
        """What run_setup_tasks would do now, a value for each task. Changes nothing."""
        found = await walk.look(self, walk.Wanted(expensive, through))
        return tuple(
            Inspection(
                judged.name,
                judged.description,
                judged.verdict.should_run,
                judged.verdict.reason,
                None if judged.last_run_ns is None else judged.last_run_ns / 1e9,
                judged.is_certain,
            )
            for judged in found
        )

    @classmethod
    def inspect_class_setup_tasks(cls) -> tuple[ClassInspection, ...]:
        """The tasks that each object of this class has. Whether they run, only an object tells."""
        tasks = cls.class_setup_tasks()
        return tuple(ClassInspection(each.name, each.description, each.order) for each in tasks)

    async def async_ready(self) -> Self:
        """Bring the object to its use: run its tasks. Returns the object."""
        await self.run_setup_tasks()
        return self

    def setup_task_event_keys(self) -> Iterator[object]:
        """Who listens to one of these is told of this object's tasks (see events.py)."""
        yield from (each for each in type(self).__mro__ if issubclass(each, SetupTaskMixin))
        yield self.stamp_subdir

    def check_stamp(self, name: str, raise_on_error: bool = False) -> Stamp | None:
        """The stamp of a task; None if it has none that can be used.

        raise_on_error: raises InputError then. Raises HostError.
        """
        stamp, fault = self.stamps.read(name)
        if stamp is None and raise_on_error:
            raise InputError(f"{self.stamp_subdir}: {name}: {fault or 'it has no stamp'}")
        return stamp

    def create_stamp(self, name: str, hash: str = "") -> Stamp:
        """Say that a task is done, as if it had just run. Durable. Raises HostError."""
        return self.stamps.write(name, shorten(hash, name))

    def delete_stamp(self, name: str) -> None:
        """Have a task run again. Durable. Raises HostError."""
        self.stamps.delete(name)
