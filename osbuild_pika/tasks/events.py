"""What is told of setup tasks while they run.

should_run     it is to run, and why
start          it runs
ran            it ran to its end, and its stamp is there
fail           it raised an exception: `error`
skip           it raised SkipSetupTask
already_run    it is done, and why
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

Kind = Literal["should_run", "start", "ran", "fail", "skip", "already_run"]
ANY = "any setup task"


class TaskEvent(NamedTuple):
    """subject: the object's `stamp_subdir`. owner: the object. reason: "" where there is none."""

    kind: Kind
    subject: str
    task: str
    description: str
    owner: object
    reason: str = ""
    error: BaseException | None = None


_listeners: dict[Hashable, list[Callable[[TaskEvent], None]]] = {}


@contextlib.contextmanager
def listening(callback: Callable[[TaskEvent], None], *keys: Any) -> Iterator[None]:
    """Have a function called with each event of these keys; of all, if there are none.

    An object's keys are what its `setup_task_event_keys` gives. What the function raises is raised
    where the task runs.
    """
    for key in keys or (ANY,):
        _listeners.setdefault(key, []).append(callback)
    try:
        yield
    finally:
        for key in keys or (ANY,):
            _listeners[key].remove(callback)


def emit(event: TaskEvent, keys: Iterable[Any]) -> None:
    """Give an event to all who listen to one of the keys, once each."""
    found = [each for key in (ANY, *keys) for each in _listeners.get(key, ())]
    for callback in dict.fromkeys(found):
        callback(event)
