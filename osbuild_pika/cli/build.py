"""`osbuild-pika build`: build an image or a manifest, show how it goes, say what came of it."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from osbuild_pika.cli import building, images, manifests, tables
from osbuild_pika.cli.measuring import Measuring
from osbuild_pika.cli.places import parse_duration
from osbuild_pika.errors import ExitCode
from osbuild_pika.monitor.choose import MODES, progress_sink
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.engine.order import Order


@click.command()
@click.argument(
    "manifest", metavar="[FILE]", type=click.Path(), required=False, callback=images.default
)
@building.exports
@building.output("Where to export to: DIR/PIPELINE.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace what was exported there before; a definition's outputs always are.",
)
@click.option("--locked", is_flag=True, help="Do not make the lock of a definition: refuse.")
@images.kickstart_options
@building.store
@manifests.libdir
@click.option(
    "--run", metavar="NAME", help="Name of the run. Default: the definition's or the file's."
)
@click.option(
    "--stage-timeout",
    metavar="TIME",
    callback=parse_duration,
    help="End a stage that takes longer, such as 90s or 10m.",
)
@click.option(
    "--idle-timeout", metavar="TIME", callback=parse_duration, help="... that prints nothing."
)
@click.option("--copy-trees", is_flag=True, help="Copy trees instead of mounting overlays.")
@click.option(
    "--progress",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="How to show the build, on stderr.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the result as upstream osbuild does.")
def build(manifest: str, progress: str, is_json: bool, **given: Any) -> None:
    """Build FILE: a definition such as image.yaml, a kickstart (.ks), a manifest, or - for the
    standard input.

    Without FILE it is ./image.yaml. A definition that has no lock yet gets one: this downloads
    the indexes of its distribution. If the lock is of another definition, `lock` makes it anew.

    Each stage runs in a sandbox without network, as nobody on the host. Finished stages are kept:
    a build that failed or was interrupted goes on where it stopped. stdout names what was exported:
    of a definition each output with its fingerprint, size and time; `osbuild-pika result` tells
    more.

    Exits 0, 1 if the build failed, 2 for a bad FILE, 3 if this host or a source does not do,
    124 after a time-out, 130 or 143 when interrupted.
    """
    from osbuild_pika import buildprocess, pipeline
    from osbuild_pika.monitor.result import ResultCollector

    began = time.monotonic()
    order = _order(manifest, given)
    collector = ResultCollector()
    sink = progress_sink(progress, sys.stderr, _estimates)
    measuring = Measuring(order)
    told = [measuring] if images.is_definition(manifest) and not is_json else []
    watch = building.Watch(sink, collector, *told)
    waiting = click.get_current_context().find_object(buildprocess.Waiting)
    code = pipeline.build(order, watch.take, watch.tick, waiting)
    watch.close()
    if watch.refusal is not None:
        watch.tell_refusal(is_json)
    elif is_json:
        click.echo(json.dumps(collector.result()))
    elif code == ExitCode.OK and images.is_definition(manifest):
        _tell_images(order, measuring, time.monotonic() - began)
    elif code == ExitCode.OK:
        for path in watch.exported:
            click.echo(one_line(path, 4096))
    sys.stdout.flush()
    click.get_current_context().exit(code)


def _estimates() -> Mapping[str, float]:
    """How long stages took. What it needs is for who draws on a terminal only."""
    from osbuild_pika import runs
    from osbuild_pika.results import past_durations

    return past_durations(runs.root())


def _order(manifest: str, given: Mapping[str, Any]) -> "Order":
    from osbuild_pika.engine.order import Order, name_of, run_name

    is_definition = images.is_definition(manifest)
    if is_definition:
        text, name = images.manifest_of(manifest, given, is_new_allowed=not given["locked"])
    else:
        text = manifests.read(manifest).decode("utf-8", "surrogateescape")
        name = name_of(manifest)
    return Order(
        manifest=text,
        name=name,
        run=given["run"] or run_name(name),
        store=given["store"],
        exports=given["exports"] or None,
        output=given["output"],
        libdirs=tuple(os.path.abspath(each) for each in given["libdirs"]),
        total_s=given["stage_timeout"],
        idle_s=given["idle_timeout"],
        is_forced=given["force"] or is_definition,
        is_copied=given["copy_trees"],
        term=os.environ.get("TERM", "dumb"),
    )


def _tell_images(order: "Order", measuring: Measuring, took_s: float) -> None:
    """A line for each output on stdout, and how to take it into Incus on stderr."""
    for path, image in measuring.results():
        if image is None:  # what -x asked for: a tree
            click.echo(one_line(path, 4096))
            continue
        where = " ".join(image.files)
        size = tables.size(image.size_bytes)
        click.echo(
            one_line(f"{order.name}  {image.fingerprint}  {size}  {took_s:.1f}s  {where}", 4096)
        )
        if image.is_for_incus:
            sys.stdout.flush()
            text = f"incus image import {where} --alias {order.name}"
            click.echo(one_line(text, 4096), err=True)
