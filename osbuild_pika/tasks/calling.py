"""Calling functions that may be async or plain, from code that may be either."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any


async def settle(value: Any, can_await: bool = True) -> Any:
    """A value, or what an awaitable one comes to. Raises TypeError if that cannot be awaited."""
    if not inspect.isawaitable(value):
        return value
    if can_await:
        return await value
    if inspect.iscoroutine(value):
        value.close()
    raise TypeError("a function of the task is async but does not say so: define it by async def")


def drive(doing: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        doing.send(None)
    except StopIteration as end:
        return end.value
    doing.close()
    raise AssertionError("a task that is not async waited for something")


def takes(func: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of that name."""
    parameters = inspect.signature(func).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)
