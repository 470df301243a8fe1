"""One setup task: a function of an object, what tells whether it is done, and how it runs."""

from __future__ import annotations

import contextlib
import copy
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

from osbuild_pika.errors import HostError
from osbuild_pika.tasks import calling, events, locks, log, stamps
from osbuild_pika.tasks.decision import (
    ABSENT,
    FUTURE,
    UNASKED,
    Facts,
    Past,
    Question,
    Stamp,
    Verdict,
    decide,
    moment_of,
    time_of,
)

if TYPE_CHECKING:
    from osbuild_pika.tasks.mixin import SetupTaskMixin

STEP = 100  # between the orders of tasks in their order of definition
CALLED = "called"

_Function = Callable[..., Any]
_next_order = 0


class SkipSetupTask(Exception):
    """Raised by a task that has nothing to do now: it is tried again, and nothing follows it."""


class Judged(NamedTuple):
    """What is to become of a task.

    last_run_ns: wall clock, None if that is not known. pasts: what those that follow must not be
    older than. is_certain: False if it was asked before what it depends on has run.
    """

    name: str
    description: str
    verdict: Verdict
    last_run_ns: int | None
    pasts: tuple[Past, ...]
    is_certain: bool = True


def take_order(order: int | None, before: TaskWrapper | None) -> int:
    """The order of a task that is being defined. Raises TypeError for both."""
    global _next_order
    if order is not None and before is not None:
        raise TypeError("a setup task has order or before, not both")
    if before is not None:
        return before.order - 1
    if order is None:
        order = _next_order
    if order >= _next_order:
        _next_order = order + STEP
    return order


def setup_task(
    description: str, *, order: int | None = None, before: TaskWrapper | None = None
) -> Callable[[_Function], TaskWrapper]:
    """Make a method a setup task. It may be async.

    description: says in a table what it does. order: tasks run by it; without, it is the next
    hundred. before: just before that task. Raises TypeError for both.
    """
    place = take_order(order, before)
    return lambda func: TaskWrapper(func, description, order=place)


class TaskWrapper:
    """A task of a class.

    Called with an object, it always runs, and stamps; as the object's method, likewise. Its
    functions get the object, may be async, and are given by decorators:

        @setup_task("unpack the tarball")
        async def unpack(self): ...

        @unpack.hash()
        def unpack(self): return self.checksum

    In a subclass these make a task of its own of an inherited one.
    """

    needs_context = True  # of run_setup_tasks

    def __init__(
        self,
        func: _Function,
        description: str,
        *,
        order: int | None = None,
        name: str | None = None,
    ) -> None:
        self.func = func
        self.description = description
        self.order = take_order(order, None)
        self.name = str(name or getattr(func, "__name__", ""))
        self.__doc__ = func.__doc__
        self._owner: type | None = None
        self._completed: _Function | None = None
        self._hash: _Function | None = None
        self._hash_covers_output = False
        self._invalidator: _Function | None = None
        self._is_slow = False
        self._needs: tuple[_Function, ...] = ()

    # --- how it is defined ---

    def __set_name__(self, owner: type, name: str) -> None:
        if self._owner is None:
            self._owner, self.name = owner, name
        elif self._owner is not owner:  # another class's task under a name of this one
            made = self.copy()
            setattr(owner, name, made)
            made.__set_name__(owner, name)

    def copy(self) -> Self:
        """The same task, for another class."""
        made = copy.copy(self)
        made._owner = None
        return made

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: SetupTaskMixin, owner: type) -> TaskMethod: ...

    def __get__(self, instance: SetupTaskMixin | None, owner: type) -> Self | TaskMethod:
        return self if instance is None else TaskMethod(self, instance)

    def __repr__(self) -> str:
        return f"<setup task {self.name}: {self.description}>"

    def invalidator(self, slow: bool = False) -> Callable[[_Function], Self]:
        """Decorate what says whether a task that was done still is: falsy runs it again.

        It is given `last_run`, seconds since the epoch, if it takes that.
        slow: it is asked only where expensive checks are wanted.
        """
        return lambda func: self._with(_invalidator=func, _is_slow=slow)

    def check_completed(self) -> Callable[[_Function], Self]:
        """Decorate what alone says whether it is done: True, False, or when (seconds since the
        epoch): then it runs if what it follows ran later."""
        return lambda func: self._with(_completed=func)

    def hash(self, *, covers_output: bool = False) -> Callable[[_Function], Self]:
        """Decorate what gives a string; another one than at the last run runs the task again.

        The string is kept as it was when the task began, so that what changes while it runs is
        not lost. covers_output: as it is at its end, for one that also depends on what it makes.
        """
        return lambda func: self._with(_hash=func, _hash_covers_output=covers_output)

    def depend_on(self, dependency: _Function) -> Self:
        """Have a function called with the object before the task runs; it may fail it."""
        return self._with(_needs=(*self._needs, dependency))

    def _with(self, **changes: object) -> Self:
        task = self if self._owner is None else self.copy()
        for name, value in changes.items():
            setattr(task, name, value)
        return task

    # --- whether it is to run ---

    async def judge(
        self, obj: SetupTaskMixin, earlier: tuple[Past, ...], expensive: bool
    ) -> Judged:
        """Find out what is to become of it; changes nothing.

        Raises ValueError for functions that answer what is no answer, HostError, and what they do.
        """
        stamp, fault = obj.stamps.read(self.name)
        facts = Facts(
            stamp,
            fault,
            (*earlier, *await self.others(obj, expensive)),
            UNASKED if self._completed else ABSENT,
            UNASKED if self._hash else "",
            UNASKED if self._invalidator else True,
        )
        while isinstance(answer := decide(facts), str):
            told: dict[str, Any] = {answer: await self._ask(answer, obj, facts, expensive)}
            facts = facts._replace(**told)
        pasts = tuple(Past(self.name, moment) for moment in answer.moments)
        if answer.should_run:
            pasts = (Past(self.name, FUTURE, is_now=True),)
        is_certain = not (self._completed and any(past.is_now for past in facts.earlier))
        last_run_ns = stamp.time_ns if stamp else None
        if answer.moments:
            last_run_ns = answer.moments[-1].time_ns
        return Judged(self.name, self.description, answer, last_run_ns, pasts, is_certain)

    async def others(self, obj: SetupTaskMixin, expensive: bool) -> tuple[Past, ...]:
        """What it follows beside the earlier tasks of its object."""
        return ()

    async def prepare(self, obj: SetupTaskMixin, expensive: bool) -> None:
        """What has to happen in a run before it is judged."""

    async def _ask(
        self, question: Question, obj: SetupTaskMixin, facts: Facts, expensive: bool
    ) -> object:
        if question == "hash":
            return await self._hash_of(obj)
        if question == "completed" and self._completed:
            answer = await calling.settle(self._completed(obj))
            try:
                time_of(answer)
            except ValueError as error:
                raise ValueError(f"{obj.stamp_subdir}: {self.name}: {error}") from None
            return answer
        if self._invalidator is None or (self._is_slow and not expensive):
            return True
        more = {}
        if calling.takes(self._invalidator, "last_run") and facts.stamp:
            more["last_run"] = facts.stamp.time_ns / 1e9
        return bool(await calling.settle(self._invalidator(obj, **more)))

    async def _hash_of(self, obj: SetupTaskMixin, can_await: bool = True) -> str:
        if self._hash is None:
            return ""
        text = await calling.settle(self._hash(obj), can_await)
        return stamps.shorten(text, f"{obj.stamp_subdir}: {self.name}")

    # --- how it runs ---

    def __call__(self, obj: SetupTaskMixin, *args: Any, **kwargs: Any) -> Any:
        """Run it whatever its stamp says. Returns what it returns: a coroutine, if it, its hash or
        what it depends on is async. Raises what it does, HostError, locks.BusyError."""
        functions = (self.func, self._hash, *self._needs)
        is_async = any(map(inspect.iscoroutinefunction, functions))
        doing = self._result(obj, args, kwargs, is_async)
        return doing if is_async else calling.drive(doing)

    async def _result(
        self, obj: SetupTaskMixin, args: tuple[Any, ...], kwargs: dict[str, Any], can_await: bool
    ) -> Any:
        async def body() -> Any:
            return await calling.settle(self.func(obj, *args, **kwargs), can_await)

        return (await self._perform(obj, body, CALLED, can_await))[0]

    async def run(self, obj: SetupTaskMixin, reason: str, expensive: bool) -> tuple[Past, ...]:
        """Run it as one of its object's tasks. Returns what those that follow must follow."""

        async def body() -> Any:
            return await calling.settle(self.func(obj))

        stamp = (await self._perform(obj, body, reason, True))[1]
        return (Past(self.name, moment_of(stamp), is_now=True),)

    async def _perform(
        self,
        obj: SetupTaskMixin,
        body: Callable[[], Coroutine[Any, Any, Any]],
        reason: str,
        can_await: bool,
    ) -> tuple[Any, Stamp]:
        async with locks.Holding(obj.stamp_path, can_await):
            before, _ = obj.stamps.read(self.name)
            began = time.monotonic()
            try:
                self._begin(obj, reason)
                for need in self._needs:
                    await calling.settle(need(obj), can_await)
                text = "" if self._hash_covers_output else await self._hash_of(obj, can_await)
                result = await body()
                if self._hash_covers_output:
                    text = await self._hash_of(obj, can_await)
                stamp = obj.stamps.write(self.name, text)
            except SkipSetupTask as skip:
                if self._completed:
                    obj.stamps.restore(self.name, before)
                log.write(obj.log_path, self.name, f"skipped: {skip}")
                self.tell(obj, "skip", str(skip))
                raise
            except BaseException as error:
                self._fail(obj, error)
                raise
            log.write(obj.log_path, self.name, f"ran in {time.monotonic() - began:.3f} s")
            self.tell(obj, "ran", reason)
        return result, stamp

    def _begin(self, obj: SetupTaskMixin, reason: str) -> None:
        """From here on it is not done, whoever dies.

        Where check_completed tells that, the stamp only tells when something was last changed:
        that is now.
        """
        if self._completed:
            obj.stamps.write(self.name, "")
        else:
            obj.stamps.delete(self.name)
        log.write(obj.log_path, self.name, f"started: {reason}")
        self.tell(obj, "start", reason)

    def _fail(self, obj: SetupTaskMixin, error: BaseException) -> None:
        with contextlib.suppress(HostError):  # `error` is what is raised
            if not self._completed:
                obj.stamps.delete(self.name)
        with contextlib.suppress(HostError):
            log.write(obj.log_path, self.name, log.failure(error))
        self.tell(obj, "fail", error=error)

    def tell(
        self,
        obj: SetupTaskMixin,
        kind: events.Kind,
        reason: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Emit an event."""
        subject = obj.stamp_subdir
        event = events.TaskEvent(kind, subject, self.name, self.description, obj, reason, error)
        events.emit(event, obj.setup_task_event_keys())


class TaskMethod:
    """A task of an object: calling it runs the task, always, and stamps it."""

    def __init__(self, task: TaskWrapper, owner: SetupTaskMixin) -> None:
        self.task = task
        self.owner = owner
        self.__name__ = task.name
        self.__doc__ = task.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.task(self.owner, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<setup task {self.task.name} of {self.owner.stamp_subdir}>"
