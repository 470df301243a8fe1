"""What the verbs that take an image's definition have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.image.kickstart import Converted
    from osbuild_pika.image.kickstart_report import Report
    from osbuild_pika.image.values import Definition

DEFAULT = "image.yaml"
_SUFFIXES = {".yaml": "definition", ".yml": "definition", ".ks": "kickstart"}
_KICKSTART = (
    click.option(
        "--allow-unsupported",
        "allowed",
        metavar="CMD",
        multiple=True,
        help="Of a kickstart: leave this command out instead of refusing it, as `check` calls it.",
    ),
    click.option(
        "--include-root",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        help="Of a kickstart: where the files lie that it may include. Default: none.",
    ),
    click.option(
        "--from",
        "origin",
        metavar="DISTRIBUTION/SUITE",
        default="debian/bookworm",
        show_default=True,
        help="Of a kickstart that names no suite in `url` or `repo`.",
    ),
)


class Read(NamedTuple):
    """A definition as far as it could be read: its manifest's text, and what it is called."""

    manifest: str
    name: str


def form_of(path: str) -> str:
    """What a file is, by its name: "definition", "kickstart" or "manifest"."""
    return _SUFFIXES.get(Path(path).suffix.lower(), "manifest")


def is_definition(path: str) -> bool:
    """Whether a manifest has to be made of it first: of a definition or a kickstart."""
    return form_of(path) != "manifest"


def kickstart_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the verbs that take a kickstart; `load` takes their values."""
    for option in reversed(_KICKSTART):
        verb = option(verb)
    return verb


def load(path: str, given: Mapping[str, Any]) -> Definition:
    """The definition that a file holds or, being a kickstart, means. given: with the values of
    kickstart_options. Raises DefinitionError, KickstartError, InputError, HostError."""
    if form_of(path) != "kickstart":
        from osbuild_pika.image import definition

        return definition.load(path)
    found = converted(path, given)
    name = Path(path).name
    say(f"{name}: {found.report.summary}; all: osbuild-pika check {name}")
    for each in found.report.of("warning"):
        say(each.told)
    return found.definition


def converted(path: str, given: Mapping[str, Any]) -> Converted:
    """A kickstart as a definition. Raises KickstartError, InputError, HostError."""
    from osbuild_pika.image import kickstart

    return kickstart.load(path, frozenset(given["allowed"]), given["include_root"], given["origin"])


def default(ctx: click.Context, _: click.Parameter, path: str | None) -> str:
    """The file that is meant: the given one, else ./image.yaml if there is one."""
    if path is not None:
        return path
    if os.path.lexists(DEFAULT):
        return DEFAULT
    hint = f"no FILE is given, and there is no {DEFAULT} here: `osbuild-pika init` writes one"
    raise click.UsageError(hint, ctx)


def say(line: str) -> None:
    """Tell how it goes, on stderr."""
    click.echo(one_line(f"osbuild-pika: {line}"), err=True)


def manifest_of(path: str, given: Mapping[str, Any], is_new_allowed: bool) -> Read:
    """The manifest of a definition or a kickstart and its lock.

    A missing lock is made and written if it may be. given: as for `load`.
    Raises DefinitionError, KickstartError, InputError, HostError.
    """
    from osbuild_pika import pipeline

    found = load(path, given)
    if pipeline.lock_of(path, found) is None:
        name = Path(pipeline.lock_path(path)).name
        if not is_new_allowed:
            raise InputError(f"there is no {name}: make it with osbuild-pika lock")
        say(f"there is no {name} yet: making it, as `osbuild-pika lock` does")
        pipeline.new_lock(path, found, say)
    return Read(pipeline.image_manifest(path, found), found.name)


def check(path: str) -> str:
    """Check a definition without network: what it is, in a line. Raises InputError."""
    from osbuild_pika.image import definition

    return _checked(path, definition.load(path))


def check_kickstart(path: str, given: Mapping[str, Any]) -> tuple[str, list[str], Report]:
    """Check a kickstart without network: what it is, in a line, all faults, and its report.
    Raises InputError, HostError if it does not come to a report."""
    from osbuild_pika.image.kickstart_report import KickstartError

    try:
        found = converted(path, given)
    except KickstartError as error:
        return "", list(error.lines), error.report
    try:
        return _checked(path, found.definition), [], found.report
    except InputError as error:
        return "", [str(error)], found.report


def _checked(path: str, found: Definition) -> str:
    """Raises InputError."""
    from osbuild_pika import pipeline
    from osbuild_pika.image import local

    local.read_sources(found, path)
    local.read_keyring(found, path)
    lock = pipeline.lock_of(path, found)
    return f"{_said(found)}, {f'{len(lock.packages)} packages' if lock else 'not locked yet'}"


def _said(found: Definition) -> str:
    return f"{found.name} from {found.distribution}/{found.suite}"
