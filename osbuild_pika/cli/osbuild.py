"""`osbuild-pika osbuild`: the command line of upstream osbuild."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from osbuild_pika.cli import manifests
from osbuild_pika.errors import ExitCode, ManifestError

UPSTREAM_VERSION = 191  # of the manifests, modules and protocols that we speak


def _tell_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        click.echo(f"osbuild {UPSTREAM_VERSION}")
        ctx.exit()


@click.command()
@click.argument("manifest", metavar="MANIFEST", type=click.Path())
@click.option("--inspect", is_flag=True, help="Print the manifest with the ids of its stages.")
@click.option("--json", "is_json", is_flag=True, help="Results and errors as JSON.")
@manifests.libdir
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Show the version of osbuild that this follows, and exit.",
)
def osbuild(manifest: str, inspect: bool, is_json: bool, libdirs: tuple[Path, ...]) -> None:
    """Take upstream osbuild's arguments, and answer as it does; so far --inspect only.

    MANIFEST: a file, or - for the standard input. Exits 2 for a manifest that is refused.
    """
    if not inspect:
        raise click.UsageError("only --inspect works so far", click.get_current_context())
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.manifest import describe
    from osbuild_pika.engine.modules import read_host_distribution, standard

    modules = standard(libdirs)
    try:
        loaded = load(manifests.read(manifest), modules, is_strict=False)
    except ManifestError as error:
        faults = [{"message": fault.message, "path": fault.path} for fault in error.faults]
        click.echo(json.dumps(error_object_of(faults)))
        click.get_current_context().exit(ExitCode.BAD_INPUT)
    host = read_host_distribution()
    click.echo(json.dumps(describe(loaded, modules.runner(host) or host)))


def error_object_of(faults: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Upstream's form of what is wrong with a manifest. faults: with message and path."""
    return {
        "type": "https://osbuild.org/validation-error",
        "title": "JSON Schema validation failed",
        "success": False,
        "errors": [{"message": each["message"], "path": each["path"]} for each in faults],
    }
