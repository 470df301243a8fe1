"""`osbuild-pika build`: build a manifest, show how it goes, and say what came of it."""

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from osbuild_pika.cli import building, manifests
from osbuild_pika.cli.places import parse_duration
from osbuild_pika.errors import ExitCode
from osbuild_pika.monitor.choose import MODES, progress_sink
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.engine.order import Order


@click.command()
@click.argument("manifest", metavar="MANIFEST", type=click.Path())
@building.exports
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False),
    default="output",
    show_default=True,
    help="Where to export to: DIR/PIPELINE.",
)
@click.option("--force", is_flag=True, help="Replace what was exported there before.")
@building.store
@manifests.libdir
@click.option("--run", metavar="NAME", help="Name of the run. Default: of the manifest's file.")
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
    """Build MANIFEST, a file or - for the standard input.

    Each stage runs in a sandbox without network, as nobody on the host. Finished stages are kept:
    a build that failed or was interrupted goes on where it stopped. The last line of stdout names
    what was exported; `osbuild-pika result` tells more.

    Exits 0, 1 if the build failed, 2 for a bad manifest, 3 if this host or a source does not do,
    124 after a time-out, 130 or 143 when interrupted.
    """
    from osbuild_pika import pipeline
    from osbuild_pika.monitor.result import ResultCollector

    collector = ResultCollector()
    sink = progress_sink(progress, sys.stderr, _estimates)
    watch = building.Watch(sink, collector)
    code = pipeline.build(_order(manifest, given), watch.take, watch.tick)
    watch.close()
    if watch.refusal is not None:
        watch.tell_refusal(is_json)
    elif is_json:
        click.echo(json.dumps(collector.result()))
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

    return Order(
        manifest=manifests.read(manifest).decode("utf-8", "surrogateescape"),
        name=name_of(manifest),
        run=given["run"] or run_name(name_of(manifest)),
        store=given["store"],
        exports=given["exports"] or None,
        output=given["output"],
        libdirs=tuple(os.path.abspath(each) for each in given["libdirs"]),
        total_s=given["stage_timeout"],
        idle_s=given["idle_timeout"],
        is_forced=given["force"],
        is_copied=given["copy_trees"],
        term=os.environ.get("TERM", "dumb"),
    )
