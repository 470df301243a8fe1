"""Who may say what, and what becomes of it: from a call's arguments to events. Pure.

Authority comes from the socket that a call arrived on: the owner's words are taken as they are,
a stage's get the identity that its device was opened with, over whatever was sent.
"""

from __future__ import annotations

from collections import namedtuple

from osbuild_pika import lifecycle, runs
from osbuild_pika.lifecycle import LifecycleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

MAX_ITEMS = 256  # events of one call
MAX_LABEL = 256  # characters of a pipeline's, stage's or run's name in an option

# kind None: the one that the run is in
Event = namedtuple("Event", "kind message details")
# What the one who opened the device said of the stage: all str or None, but is_final.
Stage = namedtuple("Stage", "run pipeline stage stage_id is_final")

WRITING = ("event", "events", "progress", "artifact")  # those that only append events
_STAGE = (*WRITING, "result", "flush")
_MANAGER = ("open", "own", "close")
_OWNER = ("event", "events", "status", "result", "flush")
_STAMPED = ("pipeline", "stage", "stage_id")

# What only the engine or the service can know.
_RESERVED = ("build.", "engine.", "source.")
_STAGE_ENDS = ("started", "finished", "failed", "cached", "ended")
_RESERVED_WORDS = ("interrupted", "timeout", *(f"stage.{word}" for word in _STAGE_ENDS))


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises LifecycleError InvalidArgument if a key is given twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise LifecycleError("InvalidArgument", "a key is given twice in one object")
    return made


READER = lifecycle.JsonReader(object_of_pairs)


def check_method(name: str, is_manager: bool, is_owner: bool) -> None:
    """Refuse a method that is unknown, or not for this caller. Raises LifecycleError."""
    known = (_MANAGER + _OWNER * is_owner) if is_manager else _STAGE
    if name in known:
        return
    if is_manager and name in _OWNER:
        raise LifecycleError("NotOpen", f"{name} is for the owner of a run: call own first")
    what = f"unknown method {ascii(name)[:60]}; known are {', '.join(known)}"
    raise LifecycleError("InvalidArgument", what)


def take(method: str, args: Any, needed: Collection[str], others: Collection[str]) -> list[Any]:
    """The arguments of a call in the order of `needed`, then `others` (None: not given).

    Raises LifecycleError InvalidArgument if one is missing or unknown.
    """
    if not isinstance(args, dict):
        raise LifecycleError("InvalidArgument", f"the arguments of {method} are not an object")
    for name in args:
        if name not in needed and name not in others:
            raise LifecycleError("InvalidArgument", f"{method} has no argument {ascii(name)[:60]}")
    for name in needed:
        if name not in args:
            raise LifecycleError("InvalidArgument", f"{method} needs the argument {name}")
    return [args.get(name) for name in (*needed, *others)]


def stage_of(options: Any) -> Stage:
    """Take the device's options apart. Raises LifecycleError InvalidArgument."""
    run, pipeline, stage, stage_id, is_final = take(
        "open", options, (), ("run", "pipeline", "stage", "stage_id", "final")
    )
    for text in (run, pipeline, stage, stage_id):
        if text is not None and not (isinstance(text, str) and len(text) <= MAX_LABEL):
            raise LifecycleError(
                "InvalidArgument", f"an option is no string of {MAX_LABEL} characters or less"
            )
    if not isinstance(is_final, bool | None):
        raise LifecycleError("InvalidArgument", "the option final is neither true nor false")
    return Stage(run, pipeline, stage, stage_id, bool(is_final))


def stamp(details: dict[str, Any], stage: Stage, run_id: str) -> dict[str, Any]:
    """Details as they are kept: with the identity of the stage that sent them, and of its run."""
    kept = {name: value for name, value in details.items() if name not in _STAMPED}
    kept.update(source="stage", run_id=run_id)
    for name in _STAMPED:
        value = getattr(stage, name)
        if value is not None:
            kept[name] = value
    return kept


def stage_events(method: str, args: Any, stage: Stage, run_id: str) -> list[Event]:
    """The events that a stage's call asks for. Raises LifecycleError."""
    if method == "events":
        return [_stage_event("event", item, stage, run_id) for item in items_of(args)]
    return [_stage_event(method, args, stage, run_id)]


def _stage_event(method: str, args: Any, stage: Stage, run_id: str) -> Event:
    if method == "progress":
        message, details = _progress(args)
    elif method == "artifact":
        message, details = _artifact(args)
    else:
        message, details = _note(args)
    return Event(None, message, stamp(details, stage, run_id))


def _note(args: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(args, dict) and "kind" in args:
        raise LifecycleError("InvalidArgument", "a stage's events have no kind: its run has one")
    message, details, name = take("event", args, ("message",), ("details", "name"))
    name = "stage.note" if name is None else name
    if not isinstance(name, str) or not runs.is_name(name):
        raise LifecycleError("InvalidArgument", f"{ascii(name)[:60]} is no name of an event")
    if name.startswith(_RESERVED) or name in _RESERVED_WORDS:
        raise LifecycleError("InvalidArgument", f"{name} is not for a stage to say")
    return message, {**object_of(details), "event": name}


def _progress(args: Any) -> tuple[Any, dict[str, Any]]:
    done, total, unit, message = take("progress", args, ("done",), ("total", "unit", "message"))
    for number in (done,) if total is None else (done, total):
        if type(number) not in (int, float) or not number >= 0:
            raise LifecycleError("InvalidArgument", "done or total is not a number from 0 on")
    if not isinstance(unit, str | None):
        raise LifecycleError("InvalidArgument", "unit is not a string")
    if message is None:
        of = "" if total is None else f" of {total}"
        message = f"{done}{of} {unit or ''}".rstrip()
    details = {"event": "stage.progress", "done": done, "total": total, "unit": unit or None}
    return message, {name: value for name, value in details.items() if value is not None}


def _artifact(args: Any) -> tuple[Any, dict[str, Any]]:
    path, message, details = take("artifact", args, ("path",), ("message", "details"))
    if not isinstance(path, str) or path.startswith("/") or "\0" in path:
        raise LifecycleError("InvalidArgument", "path is not relative to the tree")
    if not path or {"", ".", ".."} & set(path.split("/")):
        raise LifecycleError("InvalidArgument", "path is not below the tree, or not in short form")
    return path if message is None else message, {
        **object_of(details),
        "event": "artifact",
        "path": path,
    }


def object_of(details: Any) -> dict[str, Any]:
    """Details that may be left out. Raises LifecycleError InvalidArgument."""
    if details is not None and not isinstance(details, dict):
        raise LifecycleError("InvalidArgument", "details are not an object")
    return details or {}


def items_of(args: Any) -> Sequence[Any]:
    """The items of an `events` call. Raises LifecycleError."""
    (items,) = take("events", args, ("items",), ())
    if not isinstance(items, list) or not items:
        raise LifecycleError("InvalidArgument", "items are not a list of events")
    if len(items) > MAX_ITEMS:
        raise LifecycleError("TooLarge", f"{len(items)} events in one call; at most {MAX_ITEMS}")
    return items


def owner_events(method: str, args: Any, run_id: str) -> list[Event]:
    """The events that the owner's call asks for. Raises LifecycleError."""
    items = items_of(args) if method == "events" else [args]
    events = []
    for item in items:
        message, kind, details = take("event", item, ("message",), ("kind", "details"))
        if kind is not None:
            _check_state(kind)
        events.append(Event(kind, message, {**object_of(details), "run_id": run_id}))
    return events


def _check_state(state: Any) -> None:
    if state in lifecycle.RESULT_STATUSES:
        raise LifecycleError("InvalidArgument", f"{state} is said with `result`")
    if state not in lifecycle.STATES:
        raise LifecycleError("InvalidArgument", f"unknown state {ascii(state)[:60]}")


def status_of(args: Any) -> tuple[str, str, dict[str, Any]]:
    """State, message and details of a `status` call. Raises LifecycleError."""
    state, message, details, event = take(
        "status", args, ("state", "message"), ("details", "event")
    )
    _check_state(state)
    return state, message, {**object_of(details), **({} if event is None else {"event": event})}


def result_of(args: Any) -> tuple[str, int, str, dict[str, Any]]:
    """Status, exit code, message and details of a `result` call. Raises LifecycleError."""
    status, message, code, details = take(
        "result", args, ("status", "message"), ("exit_code", "details")
    )
    code = int(status != "completed") if code is None else code
    lifecycle.check_result(status, code)
    return status, code, message, object_of(details)
