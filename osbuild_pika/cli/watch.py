"""`osbuild-pika watch`: the events of a run as they come, then its result."""

import json
import os
import re
from typing import Any

import click

from osbuild_pika import runs
from osbuild_pika.cli import places, tables
from osbuild_pika.errors import InputError
from osbuild_pika.follow import Cursor, Event, Follower, follow, read_result
from osbuild_pika.text import one_line

MAX_FACTS = 160  # characters of what is shown of an event's details
_CLOCK = re.compile(r"[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})")
_SINCE = re.compile(r"(?:(.+):)?([0-9]{1,20})", re.DOTALL)


def _parse_since(_: click.Context, __: click.Parameter, text: str | None) -> Cursor | None:
    if text is None:
        return None
    match = _SINCE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{ascii(text)[:80]} is not [BOOT_ID:]SEQ, such as 42")
    return Cursor(int(match[2]), match[1])


@click.command()
@click.argument("directory", metavar="RUN|DIR", type=click.Path())
@click.option(
    "--since",
    metavar="[BOOT_ID:]SEQ",
    callback=_parse_since,
    help="Only events after this one (of that boot).",
)
@click.option("--no-follow", is_flag=True, help="Show what is there, and end.")
@tables.form("plain", "each event and the result as they were written, one object a line.")
def watch(directory: str, since: Cursor | None, no_follow: bool, form: str) -> None:
    """Show the events of a run as they come, then its result.

    RUN: a run's id, or its directory, which need not be there yet. Ends when the run has ended,
    and exits 0 also if it failed: the result says so. Lines that are no events are passed over,
    and counted on stderr. A build whose processes are all dead, and that has no result, gets one
    first: failed, engine.lost.
    """
    directory = places.resolve(directory)
    _check_place(directory, is_there=no_follow)
    runs.seal(directory)
    with Follower(directory, since) as follower:
        told = 0
        for events in iter(follower.poll, []) if no_follow else follow(follower):
            click.echo("\n".join(map(plain_event if form == "plain" else json_event, events)))
            told = _tell_skipped(follower, told)
        _tell_skipped(follower, told)
        has_ended = follower.verdict is not None
    result = read_result(directory)
    if result is not None:
        click.echo(plain_result(result) if form == "plain" else json.dumps(result))
    elif has_ended and not no_follow:
        click.echo("osbuild-pika: the run has ended without a result.json", err=True)


def _check_place(directory: str, is_there: bool) -> None:
    """Refuse a DIR that cannot be watched; say so if it has to be waited for."""
    name = one_line(directory)
    if not directory:
        raise InputError("DIR is empty; name the directory of a run")
    if os.path.isdir(directory):
        return
    if os.path.lexists(directory):
        raise InputError(f"{name}: is not a directory")
    if is_there or not os.path.isdir(os.path.dirname(os.path.abspath(directory))):
        raise InputError(f"{name}: no such directory")
    click.echo(f"osbuild-pika: waiting for {name}", err=True)


def _tell_skipped(follower: Follower, told: int) -> int:
    """Say how many lines were passed over if they became more. Returns how many were told."""
    if follower.skipped > told:
        text = f"lines that are no events: {follower.skipped}; see `osbuild-pika check`"
        click.echo(f"osbuild-pika: {text}", err=True)
    return follower.skipped


def json_event(event: Event) -> str:
    """An event with all of its fields as one line of ASCII."""
    return json.dumps(event.raw)


def plain_event(event: Event) -> str:
    """An event as one safe line: the writer's time of day, seq, kind, message, facts."""
    match = _CLOCK.search(event.timestamp)
    clock = match[1] if match else "--:--:--"
    facts = one_line(_facts(event.details), MAX_FACTS)
    message = one_line(event.message)
    return f"{clock} {event.seq:>5}  {event.kind:<12}  {message}  {facts}".rstrip()


def _facts(details: Any) -> str:
    """What happened and how far it is, from an event's details: `[stage.progress 3/8 steps]`."""
    if not isinstance(details, dict):
        return ""
    name, done, total, unit = map(details.get, ("event", "done", "total", "unit"))
    parts = [name] if isinstance(name, str) else []
    if _is_number(done):
        parts.append(f"{done}/{total}" if _is_number(total) else f"{done}")
        parts += [unit] if isinstance(unit, str) else []
    return f"[{' '.join(parts)}]" if parts else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain_result(result: dict[str, Any]) -> str:
    """A result as one safe line."""
    code = result.get("exit_code")
    shown = "" if code is None else f" (exit code {code})"
    return f"result: {result['status']}{shown}: {one_line(result['message'])}"
