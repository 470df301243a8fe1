"""`osbuild-pika service`: programs under the machine's service manager, one for each profile."""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from osbuild_pika.cli import tables
from osbuild_pika.cli.images import say
from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.service_managers import base
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.service_managers.s6 import S6ServiceManager
    from osbuild_pika.service_managers.systemd import SystemdServiceManager

HEADS = ("PROFILE", "STATE", "WANTED", "READY", "PID", "ENDED", "SINCE")
form = tables.form("table")
name = click.argument("name", metavar="NAME")


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with the options that say which services are meant."""
    scan = click.option(
        "--scan-directory",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Of the s6-svscan that is meant, if that is not the first process.",
    )
    state = click.option(
        "--state",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Where it is kept what is registered and is to run.",
    )
    units = click.option(
        "--unit-directory",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Of systemd: lets register and unregister write unit files there.",
    )
    return scan(state(units(command)))


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
    _manager(**where).start(name)
    say(f"{name}: up")


@service.command()
@name
@places
def stop(name: str, **where: Any) -> None:
    """Have a service not run, not after the next boot either. It has ended when this ends."""
    _manager(**where).stop(name)
    say(f"{name}: down")


@service.command()
@name
@places
def restart(name: str, **where: Any) -> None:
    """Stop a service if it runs, and start it."""
    _manager(**where).restart(name)
    say(f"{name}: up")


@service.command()
@click.argument("name", metavar="[NAME]", required=False)
@form
@places
def status(name: str | None, form: str, **where: Any) -> None:
    """Tell how a service is, or how all are.

    Of one: exits 0 if it is up, 1 if it is down.
    """
    manager = _manager(**where)
    names = manager.list() if name is None else (name,)
    seen = {each: manager.state(each) for each in names}
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
    names = _manager(**where).list()
    if form == "json":
        click.echo(json.dumps({"profiles": names}))
    elif names:
        click.echo("\n".join(map(one_line, names)))


@service.command()
@name
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True)
@click.option("--env", metavar="KEY=VALUE", multiple=True, help="For the service; also several.")
@click.option("--no-start", is_flag=True, help="Only make it known.")
@click.option("--notify", metavar="FD", type=int, help="On it the service tells that it is ready.")
@click.option("--user", metavar="NAME", help="Who it runs as. Only root can name another.")
@click.option("--operators", metavar="GROUP", help="Who else may start, stop and look.")
@places
def register(name: str, command: tuple[str, ...], **given: Any) -> None:
    """Make a service known, and start it. If that fails nothing of it is left."""
    env = dict(_pair(text) for text in given["env"])
    where = {key: given[key] for key in ("scan_directory", "state", "unit_directory", "user")}
    manager = _manager(**where, operators=_gid(given["operators"]))
    is_started = not given["no_start"]
    manager.register(name, command, env=env, start_now=is_started, notify=given["notify"])
    say(f"{name}: registered, {'started' if is_started else 'down'}")


@service.command()
@name
@places
def unregister(name: str, **where: Any) -> None:
    """End and forget a service; its logs stay. Without effect if there is none."""
    _manager(**where).unregister(name)
    say(f"{name}: not registered")


@service.command()
@form
@places
def reconcile(form: str, **where: Any) -> None:
    """Register all again after a boot; start what is to run, and stop what is not.

    Exits 1 if a service could not be settled; the others are.
    """
    from osbuild_pika.service_managers.s6 import S6ServiceManager

    manager = _manager(**where)
    if not isinstance(manager, S6ServiceManager):
        raise InputError("systemd starts by itself what is enabled: there is nothing to reconcile")
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


def _manager(
    scan_directory: str | None,
    state: str | None,
    unit_directory: str | None,
    user: str | None = None,
    operators: int = -1,
) -> S6ServiceManager | SystemdServiceManager:
    """The service manager that is meant: one that a scan directory names is s6.

    Raises NoServiceManagerError, and InputError for what the found one has not.
    """
    from osbuild_pika.service_managers import s6, systemd

    is_s6 = scan_directory or os.environ.get(s6.SCAN_VARIABLE)
    if is_s6 or base.get_service_manager().kind == "s6":
        given = {"scan_directory": scan_directory, "state": state}
        found = {key: os.path.abspath(path) for key, path in given.items() if path}
        chosen = s6.default_settings()._replace(user=user, operators=operators, **found)
        return s6.S6ServiceManager(chosen)
    if state is not None or operators != -1:
        raise InputError("--state and --operators are s6's; this machine has systemd")
    directory = None if unit_directory is None else os.path.abspath(unit_directory)
    return systemd.SystemdServiceManager(
        systemd.default_settings()._replace(directory=directory, user=user)
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--env {ascii(text)[:60]}: want KEY=VALUE")
    return key, value


def _gid(group: str | None) -> int:
    """The number of a group; -1, the caller's own, if none is named."""
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"--operators {ascii(group)[:60]}: there is no such group") from None


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
