"""Dependencies on the tasks of another object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbuild_pika.errors import InputError
from osbuild_pika.tasks import walk
from osbuild_pika.tasks.decision import Past, Verdict
from osbuild_pika.tasks.task import CALLED, Judged, TaskMethod, TaskWrapper, take_order
from osbuild_pika.tasks.walk import Wanted

if TYPE_CHECKING:
    from osbuild_pika.tasks.mixin import SetupTaskMixin


def related(obj: SetupTaskMixin, relationship: str) -> SetupTaskMixin | None:
    """What an attribute of an object leads to; a method is called."""
    from osbuild_pika.tasks.mixin import SetupTaskMixin

    found: Any = getattr(obj, relationship)
    if callable(found) and not isinstance(found, SetupTaskMixin):
        found = found()
    if found is not None and not isinstance(found, SetupTaskMixin):
        what = f"{relationship} of {obj.stamp_subdir} is a {type(found).__name__}"
        raise InputError(f"{what}; it is to be an object with setup tasks, or None")
    return found


class cross_object_dependency(TaskWrapper):  # noqa: N801 - it is used like a decorator
    """Later tasks of this object run again if a task of another one ran later than they did.

        built_base = cross_object_dependency("build", "base")

    task: the other's, as a name, a task of a class (then its name counts) or of an object.
    relationship: the attribute that holds the other, or a method that gives it; None: no other.
    If the other's tasks need to run, up to that one, they run first; not those behind it.
    order, before: as of setup_task.
    """

    needs_context = False

    def __init__(
        self,
        task: TaskWrapper | TaskMethod | str,
        relationship: str,
        *,
        order: int | None = None,
        before: TaskWrapper | None = None,
    ) -> None:
        whose = task.task if isinstance(task, TaskMethod) else task
        self.task_name = whose if isinstance(whose, str) else whose.name
        self.relationship = relationship
        super().__init__(
            self._bring_up,
            f"{self.task_name} of {relationship}",
            order=take_order(order, before),
            name=f"{relationship}-{self.task_name}",
        )

    async def judge(
        self, obj: SetupTaskMixin, earlier: tuple[Past, ...], expensive: bool
    ) -> Judged:
        other = related(obj, self.relationship)
        if other is None:
            return self._judged(Verdict(False, f"no {self.relationship}"), None)
        found = await walk.look(other, Wanted(expensive, self.task_name))
        verdict = Verdict(False, found[-1].verdict.reason)
        for judged in reversed(found):
            if judged.verdict.should_run:
                reason = f"{judged.name} of {other.stamp_subdir}: {judged.verdict.reason}"
                verdict = Verdict(True, reason)
        is_certain = all(judged.is_certain for judged in found)
        pasts = self._named(other, found[-1].pasts)
        return self._judged(verdict, found[-1].last_run_ns)._replace(
            pasts=pasts, is_certain=is_certain
        )

    def _judged(self, verdict: Verdict, last_run_ns: int | None) -> Judged:
        return Judged(self.name, self.description, verdict, last_run_ns, ())

    async def run(self, obj: SetupTaskMixin, reason: str, expensive: bool) -> tuple[Past, ...]:
        other = related(obj, self.relationship)
        if other is None:
            return ()
        self.tell(obj, "start", reason)
        try:
            walked = await walk.run(other, None, Wanted(expensive, self.task_name))
        except BaseException as error:
            self.tell(obj, "fail", error=error)
            raise
        self.tell(obj, "ran", reason)
        return self._named(other, walked.last)

    def __call__(self, obj: SetupTaskMixin, *args: Any, **kwargs: Any) -> Any:
        """A coroutine that brings the other up to that task."""
        return self._bring_up(obj)

    async def _bring_up(self, obj: SetupTaskMixin) -> None:
        await self.run(obj, CALLED, False)

    def _named(self, other: SetupTaskMixin, pasts: tuple[Past, ...]) -> tuple[Past, ...]:
        name = f"{self.task_name} of {other.stamp_subdir}"
        return tuple(past._replace(name=name) for past in pasts)
