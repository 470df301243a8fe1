"""What the verbs that take an image's definition have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.image.definition import Definition

DEFAULT = "image.yaml"


class Read(NamedTuple):
    """A definition as far as it could be read: its manifest's text, and what it is called."""

    manifest: str
    name: str


def is_definition(path: str) -> bool:
    return path.lower().endswith((".yaml", ".yml"))


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


def manifest_of(path: str, is_locked: bool, is_new_allowed: bool) -> Read:
    """The manifest of a definition and its lock.

    A missing lock is made and written if it may be. is_locked: it may not, by the user's wish.
    Raises DefinitionError, InputError, HostError.
    """
    from osbuild_pika import pipeline
    from osbuild_pika.image import definition

    found = definition.load(path)
    lock = pipeline.lock_of(path, found)
    if lock is None:
        name = Path(pipeline.lock_path(path)).name
        if is_locked or not is_new_allowed:
            raise InputError(f"there is no {name}: make it with osbuild-pika lock")
        say(f"there is no {name} yet: making it, as `osbuild-pika lock` does")
        lock = pipeline.new_lock(path, found, say).lock
    return Read(pipeline.image_manifest(path, found, lock), found.name)


class Image(NamedTuple):
    """What came of an output. files: in the order in which Incus wants them."""

    output: str
    files: tuple[str, ...]
    size_bytes: int
    fingerprint: str

    @property
    def is_for_incus(self) -> bool:
        return self.output.startswith("incus-")


def exported(manifest: Any, directory: str) -> Iterator[Image]:
    """The outputs of a definition's manifest that lie below a directory now.

    A tree is the sandbox's work: links in it are not followed. Raises InputError.
    """
    from osbuild_pika.incus import local

    for pipeline in manifest["pipelines"]:
        options = pipeline["stages"][-1]["options"]
        names = [options[key] for key in ("filename", "metadata", "rootfs") if key in options]
        place = os.path.join(directory, pipeline["name"])
        if names and os.path.isdir(place):
            files = [os.path.join(place, name) for name in names]
            found = local.measure(*files, flags=os.O_NOFOLLOW)
            yield Image(pipeline["name"], tuple(files), found.size_bytes, found.fingerprint)


def check(path: str) -> str:
    """Check a definition without network: what it is, in a line. Raises InputError."""
    from osbuild_pika import pipeline
    from osbuild_pika.image import definition, local

    found = definition.load(path)
    local.read_sources(found, path)
    local.read_keyring(found, path)
    lock = pipeline.lock_of(path, found)
    return f"{_said(found)}, {f'{len(lock.packages)} packages' if lock else 'not locked yet'}"


def _said(found: Definition) -> str:
    return f"{found.name} from {found.distribution}/{found.suite}"
