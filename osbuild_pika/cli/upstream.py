"""`osbuild-pika upstream`: our modules for an unmodified upstream osbuild."""

import sys
from pathlib import Path

import click

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line


@click.group()
def upstream() -> None:
    """Use our modules with an upstream osbuild."""


@upstream.command()
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option(
    "--osbuild",
    metavar="PATH",
    type=click.Path(),
    help="A checkout of upstream, or its installed modules [default: /usr/lib/osbuild].",
)
def libdir(directory: str, osbuild: str | None) -> None:
    """Make DIR of upstream's modules and ours, for osbuild --libdir DIR.

    With it an unmodified upstream runs our modules, too. It holds copies; where both have a module
    of one name, it is upstream's. Make it anew when one of the two was updated: a DIR that was
    made by this is replaced in one step, anything else that is there is left alone.

    Our devices run on the host, by the Python that runs this. It must have osbuild-pika installed,
    and stay where it is.

    Exits 0 when DIR is made, 2 for a wrong DIR, PATH or Python, 1 if copying failed. Then, and
    when interrupted, DIR is as it was before.
    """
    from osbuild_pika.upstream import make_libdir  # 20 ms, for who asks only

    if not directory or osbuild == "":
        raise InputError(f"{'PATH' if directory else 'DIR'} is empty; name a directory")
    path = None if osbuild is None else Path(osbuild)
    made = make_libdir(Path(directory), path, sys.executable)
    shown = f"{made.directory}: {made.theirs} files of {made.osbuild} and {made.ours} of ours"
    click.echo(one_line(f"made {shown}; use it with: {made.command}"))
