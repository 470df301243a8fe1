"""`osbuild-pika runs`: the runs that there are, and what is known of each."""

import json
import os
from dataclasses import asdict

import click

from osbuild_pika import runs as all_runs
from osbuild_pika.cli import places, tables
from osbuild_pika.cli.result import about, artifact_table, headline
from osbuild_pika.incus.boots import Boot, boots_of
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.monitor.board import spell
from osbuild_pika.results import Artifacts, Overview, collect, overview

form = tables.form("table")


@click.group(invoke_without_command=True)
@form
@click.pass_context
def runs(ctx: click.Context, form: str) -> None:
    """List the runs, the newest first: id, state, when it began, how long it took, its message.

    Runs whose processes are all dead get their end first: failed, engine.lost.
    """
    if ctx.invoked_subcommand is not None:
        return
    root = all_runs.root()
    all_runs.seal_dead(root)
    seen = [_look(os.path.join(root, each)) for each in all_runs.all_ids(root)]
    seen.sort(key=lambda each: (each.started_at or "", each.run_id), reverse=True)
    if form == "json":
        click.echo(json.dumps({"runs": [each.as_document() for each in seen]}))
    else:
        heads = ("RUN", "STATE", "STARTED", "TOOK", "EXIT", "MESSAGE")
        click.echo(tables.render(heads, map(_row, seen)))


def _look(directory: str) -> Overview:
    """A run, also one whose documents cannot be read: the message says so."""
    try:
        return overview(directory)
    except LifecycleError as error:
        name = os.path.basename(directory)
        return Overview(name, directory, "unreadable", None, None, str(error), None, None, None)


def _row(seen: Overview) -> tuple[str, ...]:
    took = "-" if seen.duration_s is None else about(seen.duration_s)
    code = "-" if seen.exit_code is None else str(seen.exit_code)
    return seen.run_id, seen.state, seen.started_at or "-", took, code, seen.message


@runs.command()
@click.argument("run", metavar="[RUN|DIR]", required=False, type=click.Path())
@form
def show(run: str | None, form: str) -> None:
    """Show a run from its manifest over its sources and stages to what it made, and to the
    instances that were launched of it, with each boot.

    RUN: the id of a run, or its directory; the newest run if none is given. Exits 0 whatever
    became of the run.
    """
    directory = places.find(run)
    all_runs.seal(directory)
    found, booted = collect(directory), boots_of(directory)
    if form == "json":
        click.echo(json.dumps({**found.as_document(), "boots": list(map(asdict, booted))}))
        return
    click.echo(headline(found.overview))
    click.echo("\n\n".join([*_facts(found), *([_boots(booted)] if booted else [])]))


def _facts(found: Artifacts) -> list[str]:
    """The parts of what is known, each a safe block of lines."""
    rows = [
        ("manifest", found.manifest or "-"),
        ("directory", found.overview.directory),
        ("started", found.overview.started_at or "-"),
        ("ended", found.overview.finished_at or "-"),
    ]
    parts = [tables.render(("", ""), rows).lstrip("\n")]
    if found.sources:
        lines = [(each.type, _word(each.success), str(each.items)) for each in found.sources]
        parts.append(tables.render(("SOURCE", "STATE", "ITEMS"), lines))
    if found.stages:
        parts.append(_stages(found))
    if found.artifacts:
        parts.append(artifact_table(found.artifacts))
    return parts


def _stages(found: Artifacts) -> str:
    rows = [
        (
            each.pipeline,
            each.type,
            "cached" if each.is_cached else _word(each.success),
            spell(each.duration_s),
            each.id,
            each.log or "-",
        )
        for each in found.stages
    ]
    return tables.render(("PIPELINE", "STAGE", "STATE", "TOOK", "ID", "LOG"), rows)


def _boots(booted: list[Boot]) -> str:
    """The boots, the first first. A message is the guest's word."""
    rows = [
        (
            each.instance if each.project == "default" else f"{each.project}/{each.instance}",
            each.fingerprint[:12],
            each.boot_id,
            each.state or each.outcome,
            spell(each.seconds) if each.seconds is not None else "-",
            each.started_at,
            each.message or "-",
        )
        for each in booted
    ]
    heads = ("INSTANCE", "IMAGE", "BOOT", "CAME TO", "TOOK", "STARTED", "MESSAGE")
    return tables.render(heads, rows)


def _word(is_success: bool) -> str:
    return "done" if is_success else "failed"
