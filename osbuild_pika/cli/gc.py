"""`osbuild-pika gc`: make room in the store."""

import os

import click

from osbuild_pika import runs
from osbuild_pika.cli import building, tables
from osbuild_pika.cli.sizes import parse_size
from osbuild_pika.text import one_line


@click.command()
@click.option(
    "--max-size",
    metavar="SIZE",
    default="20GiB",
    show_default=True,
    callback=parse_size,
    help="What finished stages and downloads may take: 500MB, 20GiB, 0, unlimited.",
)
@building.store
def gc(max_size: int, store: str) -> None:
    """Delete what nobody needs from the store, and say what.

    First the runs whose processes are all dead get their end: failed, engine.lost. Then what such
    runs left in the store goes, and finished stages and downloads, those that were used longest
    ago first, until the rest takes no more than SIZE. What a running build uses stays: until it
    has read them, no download goes.

    Exits 0, 3 if the store cannot be used.
    """
    from osbuild_pika import pipeline

    sealed = runs.seal_dead(runs.root())
    click.echo(f"runs: {_named(sealed)} ended that had died")
    if not os.path.isdir(store):
        click.echo(one_line(f"store: {store} is not there"))
        return
    done = pipeline.chore("gc", store, max_bytes=max_size)
    for note in done["notes"]:
        click.echo(one_line(f"osbuild-pika: {note}"), err=True)
    click.echo(f"left over: {_named(done['swept'])} deleted")
    for what, is_fetched in (("stages", False), ("downloads", True)):
        gone = [each for each in done["evicted"] if each["is_fetched"] is is_fetched]
        freed = sum(each["size_bytes"] or 0 for each in gone)
        click.echo(f"{what}: {len(gone)} deleted, {tables.size(freed)}")
    click.echo(one_line(f"store: {store} keeps {tables.size(done['kept_bytes'])}"))


def _named(names: list[str]) -> str:
    return one_line(f"{len(names)} ({', '.join(names)})" if names else "0")
