"""`osbuild-pika cancel`: ask the engine of a run to end it."""

import os

import click

from osbuild_pika import runs
from osbuild_pika.cli import places
from osbuild_pika.cli.result import headline, wait
from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.text import one_line


@click.command()
@click.argument("run", metavar="[RUN|DIR]", required=False, type=click.Path())
@places.wait
def cancel(run: str | None, wait_s: float | None) -> None:
    """End a run: its stage is stopped, what is finished stays in the store.

    RUN: the id of a run, or its directory; the newest run if none is given. Its engine is sent
    SIGTERM, but only if it is still the process that the run names.

    Exits 0 if it was asked to end (with --wait: when it has ended), 1 if it had ended before, 124
    if it had not when the wait was over.
    """
    directory = places.find(run)
    if not _ask(directory):
        runs.seal(directory)
        name = os.path.basename(directory)
        click.echo(one_line(f"osbuild-pika: {name} had ended before"), err=True)
        click.get_current_context().exit(ExitCode.FAILED)
    if wait_s is None:
        return
    seen = wait(directory, wait_s)
    click.echo(headline(seen))
    if seen.success is None:
        click.get_current_context().exit(ExitCode.TIMED_OUT)


def _ask(directory: str) -> bool:
    """Send the signal; False if there is nobody to send it to."""
    try:
        return runs.terminate(directory)
    except PermissionError:
        raise InputError(f"{one_line(directory)}: the run is another user's") from None
