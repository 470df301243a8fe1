"""`osbuild-pika check`: what is wrong with a run's artifacts?"""

import sys

import click

from osbuild_pika.errors import ExitCode
from osbuild_pika.text import one_line
from osbuild_pika.verify import verify


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path())
def check(directory: str) -> None:
    """Say what is wrong with the artifacts of the run in DIR.

    One line for each fault: FILE[:LINE]: what is wrong, and what to do about it. A file that is
    not there is no fault by itself. Nothing is changed; a writer at work waits meanwhile, and
    what it is in the middle of is no fault.

    Exits 0 without a fault, 1 with one, 2 if DIR is no directory.
    """
    found = verify(directory)
    if not found.faults:
        click.echo(f"ok: {found.summary()}")
        return
    click.echo("\n".join(one_line(str(fault)) for fault in found.faults))
    sys.exit(ExitCode.FAILED)
