"""`osbuild-pika init`: write a definition that builds as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from osbuild_pika.cli.images import DEFAULT, say
from osbuild_pika.errors import InputError

TEXT = """\
# yaml-language-server: $schema={schema}
# All keys: docs/reference/image-definition.md. What is wrong with this file: osbuild-pika check
name: {name}
from: {suite}
packages: [ca-certificates]      # by name; what they need comes along
files:
  - {{path: /etc/motd, content: "{name}, built by osbuild-pika\\n"}}
# users: [{{name: ops, ssh_keys: ["ssh-ed25519 AAAA..."]}}]   # with the package openssh-server
# hooks:                         # scripts, run in the image's tree, without network
#   post-packages: systemctl enable NAME.service
ready: {{unit: multi-user.target, within: 60s}}
outputs: [incus-unified]         # also incus-split, rootfs-tar, squashfs
properties: {{variant: default}}
"""
_SUITE = re.compile(r"(debian|ubuntu)/[a-z][a-z0-9.-]{0,40}(@[0-9]{8}T[0-9]{6}Z)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_FALLBACK = "debian/bookworm"


@click.command()
@click.argument("name", required=False)
@click.option(
    "--suite",
    metavar="DISTRIBUTION/SUITE",
    help=f"What it is made from. Default: this machine's Debian or Ubuntu, else {_FALLBACK}.",
)
def init(name: str | None, suite: str | None) -> None:
    """Write image.yaml here: a definition of an image called NAME, which builds as it is.

    NAME is the directory's if it is left out. What is there already is never replaced.
    """
    chosen = name if name is not None else _name_of(Path.cwd().name)
    if not _NAME.fullmatch(chosen):
        raise InputError(f"{ascii(chosen)[:80]} is no name: lower-case letters, digits, . and -")
    origin = suite if suite is not None else _host_suite()
    if not _SUITE.fullmatch(origin):
        raise InputError(f"{ascii(origin)[:80]} is no suite such as {_FALLBACK}")
    text = TEXT.format(name=chosen, suite=origin, schema=_schema())
    try:
        with open(DEFAULT, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{DEFAULT} is there already: edit it, or remove it first") from None
    except OSError as error:
        raise InputError(f"{DEFAULT}: {error.strerror}") from None
    say(f"wrote {DEFAULT}; next: osbuild-pika build")


def _name_of(directory: str) -> str:
    """A name made of a directory's."""
    return re.sub(r"[^a-z0-9]+", "-", directory.lower()).strip("-")[:63].strip("-") or "image"


def _host_suite() -> str:
    """This machine's own distribution and suite, if images can be made from it."""
    import platform

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    found = f"{release.get('ID')}/{release.get('VERSION_CODENAME')}"
    return found if _SUITE.fullmatch(found) else _FALLBACK


def _schema() -> str:
    """Where editors find the schema."""
    from osbuild_pika.datadir import data_folder

    return os.path.join(data_folder("schemas"), "image.schema.json")
