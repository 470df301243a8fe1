"""`osbuild-pika plan`: what a build would do, and why."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from osbuild_pika import runs
from osbuild_pika.cli import building, images, manifests, tables
from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

Document = dict[str, Any]


@click.command()
@click.argument(
    "manifest", metavar="[FILE]", type=click.Path(), required=False, callback=images.default
)
@building.exports
@building.store
@manifests.libdir
@images.kickstart_options
@tables.form("table", "one object, as the plan.json of a run.")
@click.option("--why", metavar="STAGE", help="Only this stage, and all that its key is made of.")
@click.option("--manifest", "is_manifest", is_flag=True, help="Print the manifest itself.")
def plan(manifest: str, form: str, why: str | None, is_manifest: bool, **given: Any) -> None:
    """Show what `build` would do with FILE: image.yaml, a kickstart (.ks), a manifest, or - for
    the standard input.

    Each stage that is needed: whether it is in the store, or why it must run, compared with the
    newest run of a manifest of this name. STAGE: its type, PIPELINE/TYPE, or how its id begins.
    Nothing is built, fetched or written, and no root is needed: a definition must be locked.

    Exits 0, 2 for a bad FILE or a STAGE that is not in it.
    """
    from osbuild_pika.engine.load import load, parse
    from osbuild_pika.engine.modules import standard
    from osbuild_pika.engine.order import name_of
    from osbuild_pika.pipeline import Wanted, plan_of

    if images.is_definition(manifest):
        text, name = images.manifest_of(manifest, given, is_new_allowed=False)
        data = text.encode()
    else:
        data, name = manifests.read(manifest), name_of(manifest)
    loaded = load(data, standard(given["libdirs"]))
    if is_manifest:
        click.echo(json.dumps(parse(data).value, indent=2))
        return
    if not os.access(given["store"], os.R_OK | os.X_OK):
        state = "is not there" if not os.path.lexists(given["store"]) else "cannot be read"
        text = f"the store {given['store']} {state}: nothing counts as cached"
        click.echo(one_line(f"osbuild-pika: {text}"), err=True)
    wanted = Wanted(name, tuple(given["exports"]), given["store"], runs.root())
    document = plan_of(loaded, wanted, tuple(map(Path, given["libdirs"])))
    if why is not None:
        document["pipelines"] = _chosen(document, why)
    if form == "json":
        click.echo(json.dumps(document))
    elif why is not None:
        click.echo("\n\n".join(_explained(document)))
    else:
        click.echo(_table(document, given["store"]))


def _state(stage: Document) -> str:
    return "cached" if stage["is_cached"] else "to run"


def _table(document: Document, store: str) -> str:
    rows = [
        (pipeline["name"], stage["type"], _state(stage), stage["id"][:12], stage["why"])
        for pipeline in document["pipelines"]
        for stage in pipeline["stages"]
    ]
    lines = [tables.render(("PIPELINE", "STAGE", "STATE", "ID", "WHY"), rows)] if rows else []
    for name, items in document["sources"].items():
        there = [each for each in items if os.path.lexists(_content(store, each))]
        text = f"{len(items)} needed, {len(there)} of them in the store"
        lines.append(f"source {one_line(name)}: {text}")
    run = sum(row[2] == "to run" for row in rows)
    lines.append(f"{run} of {len(rows)} stages to run")
    return "\n".join(lines)


def _content(store: str, checksum: str) -> str:
    return os.path.join(store, "sources/org.osbuild.files", checksum)


def _chosen(document: Document, wanted: str) -> list[Document]:
    """The pipelines with only the stages that are meant. Raises InputError if none is."""
    chosen = []
    for pipeline in document["pipelines"]:
        stages = [
            stage
            for stage in pipeline["stages"]
            if wanted in (stage["type"], f"{pipeline['name']}/{stage['type']}")
            or (len(wanted) >= 6 and stage["id"].startswith(wanted))
        ]
        if stages:
            chosen.append({**pipeline, "stages": stages})
    if not chosen:
        known = {stage["type"] for each in document["pipelines"] for stage in each["stages"]}
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"no stage that is needed is {ascii(wanted)[1:-1]}; there are: {names}")
    return chosen


def _explained(document: Document) -> Iterator[str]:
    for pipeline in document["pipelines"]:
        for stage in pipeline["stages"]:
            head = f"{pipeline['name']}/{stage['type']}: {_state(stage)}"
            why = f": {stage['why']}" if stage["why"] else ""
            rows = [("id", stage["id"]), ("key", stage["key"]), *_parts(stage["parts"])]
            yield one_line(head + why) + tables.render(("", ""), rows)


def _parts(parts: Document) -> Iterator[tuple[str, str]]:
    for name, value in parts.items():
        if isinstance(value, dict):
            for each, part in value.items():
                yield f"{name} {each}", str(part)
        elif value is not None:
            yield name, str(value)
