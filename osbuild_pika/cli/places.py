"""What the verbs that look at runs have in common: which run is meant, and how long to wait."""

import os
import re
from collections.abc import Callable
from typing import Any

import click

from osbuild_pika import runs
from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

RUN_FILES = ("status.json", "events.jsonl", "result.json", "run.json")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def resolve(text: str) -> str:
    """The directory that RUN means: the id of a run below the runs' root, or a path.

    A directory that holds a run is taken before an id of the same name; what is neither is
    returned as it is.
    """
    if not runs.is_id(text) or any(os.path.lexists(os.path.join(text, name)) for name in RUN_FILES):
        return text
    directory = os.path.join(runs.root(), text)
    return directory if os.path.isdir(directory) else text


def find(text: str | None) -> str:
    """The directory of the run that is meant; the newest one's if none is named.

    Raises InputError if there is none.
    """
    if text is None:
        return _newest()
    directory = resolve(text)
    if not os.path.isdir(directory):
        hint = f"no run of that id in {runs.root()}, and no directory; see `osbuild-pika runs`"
        raise InputError(one_line(f"{ascii(text)[1:-1]}: {hint}"))
    return directory


def _newest() -> str:
    root = runs.root()
    found = [os.path.join(root, each) for each in runs.all_ids(root)]
    if not found:
        raise InputError(one_line(f"{root}: there is no run yet"))
    return max(found, key=_age)


def _age(directory: str) -> tuple[int, str]:
    """What sorts runs by when they were begun: run.json is written once."""
    for name in ("run.json", "."):
        try:
            return os.stat(os.path.join(directory, name)).st_mtime_ns, directory
        except OSError:
            continue
    return 0, directory


def parse_duration(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """A time such as 90, 90s, 10m or 1.5h, in seconds."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{ascii(text)[:40]} is not a time such as 90s, 10m or 1.5h")
    return float(match[1]) * _UNITS_S[match[2]]


wait: Callable[[Any], Any] = click.option(
    "--wait",
    "wait_s",
    metavar="TIME",
    callback=parse_duration,
    help="Wait so long for the run's end: 90s, 10m.",
)
