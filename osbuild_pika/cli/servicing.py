"""Which service manager the verbs of `osbuild-pika service` mean, by which options."""

from __future__ import annotations

import grp
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import click

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.service_managers import base

# Option -> what it is called among the settings, and whose settings have it.
_FIELDS = {
    "scan_directory": ("scan_directory", ("s6",)),
    "state": ("state", ("s6",)),
    "operators": ("operators", ("s6",)),
    "unit_directory": ("directory", ("systemd", "openrc", "launchd")),
    "transient": ("is_transient", ("systemd",)),
    "user": ("user", ("s6", "systemd", "openrc", "launchd", "windows")),
}
_PATHS = ("scan_directory", "state", "unit_directory")


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
        help="Of s6: where it is kept what is registered and is to run.",
    )
    units = click.option(
        "--unit-directory",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Of systemd, OpenRC, launchd: register writes units, scripts, plists there.",
    )
    transient = click.option(
        "--transient",
        is_flag=True,
        help="Of systemd: register makes a unit that is gone when it stops; no file is written.",
    )
    return scan(state(units(transient(command))))


def manager_of(**given: Any) -> base.Registrar:
    """The service manager that is meant: one that a scan directory names is s6.

    given: values of options; None and False: not given. Raises NoServiceManagerError, and
    InputError for what the found one has not.
    """
    from osbuild_pika.service_managers.s6 import SCAN_VARIABLE

    is_s6 = given.get("scan_directory") or os.environ.get(SCAN_VARIABLE)
    kind = "s6" if is_s6 else base.detect_service_manager()
    found = {option: given[option] for option in _FIELDS if given.get(option)}
    if kind != "none":
        for option in found:
            if kind not in _FIELDS[option][1]:
                flag = f"--{option.replace('_', '-')}"
                raise InputError(f"{flag} is for {_whose(option)}; this machine has {kind}")
    if "transient" in found and "unit_directory" in found:
        raise InputError("--transient writes no file: leave --unit-directory out, or --transient")
    for option in set(_PATHS) & set(found):
        found[option] = os.path.abspath(found[option])
    if "operators" in found:
        found["operators"] = _gid(found["operators"])
    return base.get_service_manager(kind, **{_FIELDS[key][0]: found[key] for key in found})


def participant_command(directory: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The participant of a directory, as a service's command. words: more options of it.

    Raises click's UsageError for options that it has not, HostError if its program is not found.
    """
    from osbuild_pika.cli.participant import spool

    place = os.path.abspath(directory)
    spool.make_context("osbuild-pika participant spool", [*words, place])
    beside = os.path.dirname(sys.executable)
    path = os.pathsep.join((beside, os.environ.get("PATH", os.defpath)))
    program = shutil.which("osbuild-pika", path=path)
    if program is None:
        raise HostError(f"--participant: osbuild-pika is neither in {beside} nor on PATH")
    return (program, "participant", "spool", *words, place)


def _whose(option: str) -> str:
    return " and ".join(_FIELDS[option][1])


def _gid(group: str) -> int:
    """The number of a group."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"--operators {ascii(group)[:60]}: there is no such group") from None
