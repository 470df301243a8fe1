"""`osbuild-pika tasks`: images from their definitions to guests that were seen to boot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from osbuild_pika.cli import building, images, launch, places, tables
from osbuild_pika.errors import InputError
from osbuild_pika.monitor.choose import MODES, progress_sink
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.products.image import ImagePipeline, Site
    from osbuild_pika.tasks import Inspection

T = TypeVar("T")
TASKS = ("resolve", "build", "lint", "publish", "import_image", "smoke")
_PUBLISH = TASKS.index("publish")
HEADS = ("IMAGE", "TASK", "STATE", "WHY", "LAST")
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("definitions", metavar="FILE...", nargs=-1, type=click.Path()),
    click.option("--expensive", is_flag=True, help="Also ask what takes long: read all files."),
    click.option(
        "--through",
        type=click.Choice(TASKS),
        default=TASKS[-1],
        show_default=True,
        help="The last task.",
    ),
    building.output("Where to publish: DIR/NAME/OUTPUT, and DIR/NAME/image.json."),
    building.store,
    click.option(
        "--timeout",
        "ready_s",
        metavar="TIME",
        callback=places.parse_duration,
        default="3m",
        show_default=True,
        help="How long a guest may take to be ready.",
    ),
    click.option("--project", metavar="P", default="default", show_default=True, help="Incus's."),
    click.option("--socket", metavar="PATH", type=click.Path(), help="Of Incus; or INCUS_SOCKET."),
)


class _Product(NamedTuple):
    """through: the last of its tasks that is wanted."""

    image: ImagePipeline
    through: str


class _Row(NamedTuple):
    name: str
    path: str
    found: Inspection


def _options(verb: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


@click.group()
def tasks() -> None:
    """Bring images from their definitions to guests that were seen to boot.

    For each FILE, a definition such as image.yaml: resolve (its lock), build, lint, publish,
    import_image (into Incus, under an alias that is its name), and smoke (boot it until it is
    ready, then delete the guest). What is done is remembered; what has changed is done again, with
    all that comes behind it. An image that is made `from:` another definition follows that one.
    """


@tasks.command()
@_options
@tables.form("table", "a list of objects.")
def inspect(definitions: tuple[str, ...], form: str, **given: Any) -> None:
    """Show what `run` would do, and why. Nothing is changed.

    Exits 0, 2 for a bad FILE, 3 without Incus.
    """
    rows = _inspect(_products(definitions, given), given["expensive"])
    if form == "json":
        click.echo(json.dumps([_document(row) for row in rows]))
    else:
        click.echo(tables.render(HEADS, map(_cells, rows)))


@tasks.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@click.option(
    "--progress",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="How to show builds, on stderr.",
)
def run(definitions: tuple[str, ...], dry_run: bool, progress: str, **given: Any) -> None:
    """Do what is not done: show what will run and why, then run it.

    What fails is tried again by the next `run`, which goes on there. What tasks print is kept in
    logs; `osbuild-pika runs show tasks` tells what happened.

    Exits 0, 1 if a build or the linter failed, 2 for a bad FILE, 3 if this host, a source or Incus
    does not do, 4 if nothing could be published, 5 if a guest was not ready.
    """
    from osbuild_pika.products.record import Record
    from osbuild_pika.tasks.locks import is_held

    products = _products(definitions, given, progress)
    rows = [row for row in _inspect(products, given["expensive"]) if row.found.should_run]
    if rows:
        click.echo(tables.render(HEADS, map(_cells, rows)), err=True)
    if dry_run:
        images.say(f"dry run: nothing was run, {len(rows)} tasks would be" if rows else "all done")
        return
    ran = 0
    with Record():
        for image, through in products if rows else ():
            if is_held(image.stamp_path):
                images.say(f"{image.inputs.name}: waiting for another process that runs its tasks")
            names = _drive(image.run_setup_tasks(expensive=given["expensive"], through=through))
            ran += len([name for name in names if name in TASKS])
    images.say(f"{ran} tasks ran" if ran else "nothing to do: all is done")
    for image, _ in products:
        click.echo(one_line(f"{image.inputs.name}  {image.outcome}", 4096))


def _products(
    paths: Iterable[str], given: dict[str, Any], progress: str = "quiet"
) -> list[_Product]:
    """The images that are meant, and those that they are made from before them."""
    from osbuild_pika.products.image import ImagePipeline

    site = _site(given, progress)
    found: dict[str, _Product] = {}

    def add(image: ImagePipeline, through: str) -> None:
        through = min(through, image.last_task, key=TASKS.index)
        if (parent := image.parent()) is not None:
            add(parent, "build")
        before = found.get(image.stamp_subdir)
        if before is None or TASKS.index(before.through) < TASKS.index(through):
            found[image.stamp_subdir] = _Product(image, through)

    for path in paths or (images.DEFAULT,):
        if images.form_of(path) != "definition":
            raise InputError(f"{one_line(path)}: is no definition such as image.yaml")
        add(ImagePipeline(path, site), given["through"])
    _refuse_twins(each for each in found.values() if TASKS.index(each.through) >= _PUBLISH)
    if any(TASKS.index(each.through) > _PUBLISH for each in found.values()):
        launch.need_httpx()
        with site.connect() as client:
            client.server()  # before an hour of builds
    return list(found.values())


def _refuse_twins(products: Iterable[_Product]) -> None:
    """Two images of one name would take each other's place. Raises InputError."""
    seen: dict[str, str] = {}
    for image, _ in products:
        other = seen.setdefault(image.inputs.name, image.path)
        if other != image.path:
            what = f"{one_line(other)} and {one_line(image.path)} are both named"
            raise InputError(f"{what} {image.inputs.name}: give one another name")


def _site(given: dict[str, Any], progress: str) -> Site:
    from osbuild_pika.products.image import Site

    def connect() -> Any:
        from osbuild_pika.incus.client import Client

        return Client(given["socket"], given["project"])

    return Site(
        store=given["store"],
        output=given["output"],
        connect=connect,
        ready_s=given["ready_s"],
        tell=images.say,
        watch=lambda: building.Watch(progress_sink(progress, sys.stderr)),
    )


def _drive(doing: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine. Not by asyncio.run: it would keep a Ctrl-C from what waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    loop = asyncio.new_event_loop()  # a half made one would end with a traceback
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return loop.run_until_complete(doing)
    finally:
        for each in asyncio.all_tasks(loop):  # of a Ctrl-C
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(each)
        doing.close()  # if it was not begun
        loop.close()


def _inspect(products: Iterable[_Product], expensive: bool) -> list[_Row]:
    return [
        _Row(image.inputs.name, image.path, found)
        for image, through in products
        for found in _drive(image.inspect_setup_tasks(expensive=expensive, through=through))
        if found.name in TASKS
    ]


def _cells(row: _Row) -> list[str]:
    found = row.found
    state = ("to run" if found.is_certain else "may run") if found.should_run else "done"
    at = found.last_run_s
    last = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"
    return [row.name, found.name, state, found.reason, last]


def _document(row: _Row) -> dict[str, Any]:
    return {"image": row.name, "file": os.path.abspath(row.path), **row.found._asdict()}
