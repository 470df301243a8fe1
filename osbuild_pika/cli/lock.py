"""`osbuild-pika lock`: say which packages exactly a definition means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from osbuild_pika.cli import images, tables
from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line


@click.command()
@click.argument(
    "definition", metavar="[FILE]", type=click.Path(), required=False, callback=images.default
)
@click.option("--update", is_flag=True, help="Take what the mirrors have now.")
@images.kickstart_options
def lock(definition: str, update: bool, **given: Any) -> None:
    """Write the lock of FILE, a definition or a kickstart (.ks), beside it. FILE is image.yaml if
    it is left out.

    The lock names each package with its version, its checksum and where to get it. It is made with
    this machine's apt-get, which is given a state of its own: neither root nor this machine's
    packages are touched. Whatever signs the distribution must have signed the indexes.

    A lock that answers the definition stays as it is, without a look at any mirror, unless
    --update is given. stdout has a line for each package that changed.

    Exits 0, 2 for a bad definition or an unknown package, 3 if a mirror cannot be had or trusted.
    """
    from osbuild_pika import pipeline

    found = images.load(definition, given)
    name = Path(pipeline.lock_path(definition)).name
    try:
        before = pipeline.lock_of(definition, found)
    except InputError as error:
        images.say(str(error).partition(": osbuild-pika lock")[0])
        before = None
    if before is not None and not update:
        images.say(f"{name} answers the definition; newer packages: osbuild-pika lock --update")
        return
    made = pipeline.new_lock(definition, found, images.say)
    for line in made.changes:
        click.echo(one_line(line))
    size = tables.size(sum(each.size for each in made.lock.packages))
    state = "written" if made.is_new else "unchanged"
    images.say(f"{name}: {state}, {len(made.lock.packages)} packages, {size} to download")
