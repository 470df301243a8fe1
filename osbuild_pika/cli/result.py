"""`osbuild-pika result`: what came out of a run."""

import json
import time

import click

from osbuild_pika import runs
from osbuild_pika.cli import places, tables
from osbuild_pika.errors import ExitCode
from osbuild_pika.monitor.board import spell
from osbuild_pika.results import Artifact, Overview, collect, overview
from osbuild_pika.text import one_line

POLL_S = 0.25


@click.command()
@click.argument("run", metavar="[RUN|DIR]", required=False, type=click.Path())
@click.option("--json", "is_json", is_flag=True, help="One JSON object (artifacts.schema.json).")
@places.wait
def result(run: str | None, is_json: bool, wait_s: float | None) -> None:
    """Show how a run ended, and what it made: name, size, sha256 and path.

    RUN: the id of a run, or its directory; the newest run if none is given.

    Exits 0 if the run completed, 1 if it failed, 75 if it has not ended, 124 if it had not when
    the wait was over.
    """
    directory = places.find(run)
    seen = wait(directory, wait_s or 0.0)
    if seen.success is None:
        tell_unended(seen, is_json, wait_s)
        code = ExitCode.BUSY if wait_s is None else ExitCode.TIMED_OUT
        click.get_current_context().exit(code)
    found = collect(directory)
    if is_json:
        click.echo(json.dumps(found.as_document()))
    else:
        click.echo(headline(found.overview))
        if found.artifacts:
            click.echo(artifact_table(found.artifacts))
    if not found.overview.success:
        click.get_current_context().exit(ExitCode.FAILED)


def wait(directory: str, wait_s: float) -> Overview:
    """Look at a run until it has ended, or the time is over. A dead run is ended first."""
    until = time.monotonic() + wait_s
    while True:
        runs.seal(directory)
        seen = overview(directory)
        left_s = until - time.monotonic()
        if seen.success is not None or left_s <= 0:
            return seen
        time.sleep(min(POLL_S, left_s))


def tell_unended(seen: Overview, is_json: bool, wait_s: float | None) -> None:
    """Say that there is no result: as an error line, or as an error object."""
    message = f"the run has not ended: it is {seen.state}"
    hint = f"wait for it: osbuild-pika result {seen.run_id} --wait 10m"
    code = "busy" if wait_s is None else "timed_out"
    if is_json:
        error = {"code": code, "message": message, "path": seen.directory, "hint": hint}
        click.echo(json.dumps({"error": error}))
    else:
        click.echo(one_line(f"osbuild-pika: error: {seen.run_id}: {message}; {hint}"), err=True)


def about(seconds: float) -> str:
    """How long a run took: the documents tell it to the second."""
    if seconds < 1:
        return "<1s"
    return f"{seconds:.0f}s" if seconds < 60 else spell(seconds)


def headline(seen: Overview) -> str:
    """How a run is, in one safe line."""
    took = "" if seen.duration_s is None else f" in {about(seen.duration_s)}"
    code = "" if seen.exit_code in (None, 0) else f" (exit code {seen.exit_code})"
    return one_line(f"{seen.run_id}: {seen.state}{took}{code}: {seen.message}")


def artifact_table(artifacts: tuple[Artifact, ...]) -> str:
    rows = [
        (
            each.pipeline,
            each.name,
            tables.size(each.size_bytes) if each.kind == "file" else each.kind,
            each.fingerprint or each.sha256 or "-",
            each.path,
        )
        for each in artifacts
    ]
    return tables.render(("PIPELINE", "NAME", "SIZE", "SHA256", "PATH"), rows)
