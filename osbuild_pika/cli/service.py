"""`osbuild-pika service`: programs under the machine's service manager, one for each profile."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import click

from osbuild_pika.cli import tables
from osbuild_pika.cli.images import say
from osbuild_pika.cli.servicing import manager_of, participant_command, places
from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.service_managers import base
from osbuild_pika.text import one_line

HEADS = ("PROFILE", "STATE", "WANTED", "READY", "PID", "ENDED", "SINCE")
form = tables.form("table")
name = click.argument("name", metavar="NAME")


@click.group()
def service() -> None:
    """Register, start, stop and watch services, one for each profile.

    NAME: the profile, such as default or web; docs/reference/services.md says more.
    Exits 0 if it is so, 1 if the service manager refused, 2 for a name that is not registered or
    cannot be, 3 if this machine has no service manager or lacks its programs, 124 if it took too
    long.
    """


@service.command()
@name
@places
def start(name: str, **where: Any) -> None:
    """Have a service run: it does, and is ready if it tells that, when this ends."""
    manager_of(**where).start(name)
    say(f"{name}: up")


@service.command()
@name
@places
def stop(name: str, **where: Any) -> None:
    """Have a service not run, not after the next boot either. It has ended when this ends."""
    manager_of(**where).stop(name)
    say(f"{name}: down")


@service.command()
@name
@places
def restart(name: str, **where: Any) -> None:
    """Stop a service if it runs, and start it."""
    manager_of(**where).restart(name)
    say(f"{name}: up")


@service.command()
@click.argument("name", metavar="[NAME]", required=False)
@form
@places
def status(name: str | None, form: str, **where: Any) -> None:
    """Tell how a service is, or how all are.

    Of one: exits 0 if it is up, 1 if it is down.
    """
    manager = manager_of(**where)
    seen = {name: manager.state(name)} if name is not None else _all(manager)
    if form == "json":
        click.echo(json.dumps({"services": [_document(each, seen[each]) for each in seen]}))
    else:
        click.echo(tables.render(HEADS, (_row(each, seen[each]) for each in seen)))
    if name is not None and not seen[name].is_up:
        click.get_current_context().exit(ExitCode.FAILED)


@service.command("list")
@form
@places
def list_services(form: str, **where: Any) -> None:
    """List the profiles that are registered, a line each."""
    names = manager_of(**where).list()
    if form == "json":
        click.echo(json.dumps({"profiles": names}))
    elif names:
        click.echo("\n".join(map(one_line, names)))


@service.command()
@name
@click.argument("command", metavar="-- COMMAND...", nargs=-1)
@click.option(
    "--participant",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Instead of COMMAND: build the workitems of DIR; what stands after -- are options of it.",
)
@click.option("--env", metavar="KEY=VALUE", multiple=True, help="For the service; also several.")
@click.option("--no-start", is_flag=True, help="Only make it known.")
@click.option("--notify", metavar="FD", type=int, help="On it the service tells that it is ready.")
@click.option("--user", metavar="NAME", help="Who it runs as. Only root can name another.")
@click.option("--operators", metavar="GROUP", help="Who else may start, stop and look.")
@places
def register(name: str, command: tuple[str, ...], **given: Any) -> None:
    """Make a service known, and start it. If that fails nothing of it is left.

    COMMAND: its program and arguments, in no shell. --participant DIR: `osbuild-pika participant
    spool DIR`.
    """
    env = dict(_pair(text) for text in given["env"])
    if given["participant"] is not None:
        command = participant_command(given["participant"], command)
    if not command:
        raise InputError(f"{name}: what is to run? name it: -- COMMAND, or --participant DIR")
    is_started = not given["no_start"]
    manager = manager_of(**given)
    manager.register(name, command, env=env, start_now=is_started, notify=given["notify"])
    say(f"{name}: registered, {'started' if is_started else 'down'}")


@service.command()
@name
@places
def unregister(name: str, **where: Any) -> None:
    """End and forget a service; its logs stay. Without effect if there is none."""
    manager_of(**where).unregister(name)
    say(f"{name}: not registered")


@service.command()
@form
@places
def reconcile(form: str, **where: Any) -> None:
    """Register all again after a boot; start what is to run, and stop what is not.

    Exits 1 if a service could not be settled; the others are.
    """
    from osbuild_pika.service_managers.s6 import S6ServiceManager

    manager = manager_of(**where)
    if not isinstance(manager, S6ServiceManager):
        what = "starts by itself what is enabled: there is nothing to reconcile"
        raise InputError(f"{manager.kind} {what}")
    done = manager.reconcile()
    if form == "json":
        click.echo(json.dumps(done._asdict()))
    else:
        for what in ("registered", "started", "stopped"):
            for each in getattr(done, what):
                click.echo(f"{one_line(each)}: {what}")
    for text in done.failed.values():
        click.echo(f"osbuild-pika: error: {one_line(text)}", err=True)
    if done.failed:
        click.get_current_context().exit(ExitCode.FAILED)


def _all(manager: base.Registrar) -> dict[str, base.State]:
    """How all services are; those that are unregistered meanwhile are left out."""
    seen = {}
    for each in manager.list():
        with suppress(base.NotRegisteredError):
            seen[each] = manager.state(each)
    return seen


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--env {ascii(text)[:60]}: want KEY=VALUE")
    return key, value


def _document(name: str, state: base.State) -> dict[str, Any]:
    return {"profile": name, **state._asdict()}


def _row(name: str, state: base.State) -> tuple[str, ...]:
    ended = "-"
    if state.exit_code is not None:
        ended = f"exit {state.exit_code}"
    if state.signal is not None:
        ended = f"signal {state.signal}"
    words = ("up" if state.is_up else "down", "up" if state.is_wanted else "down")
    ready = "yes" if state.is_ready else "no"
    pid = "-" if state.pid is None else str(state.pid)
    return (name, *words, ready, pid, ended, f"{state.since_s} s")
