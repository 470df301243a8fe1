"""`osbuild-pika check`: what is wrong with a run's artifacts, or with a manifest?"""

import os
import sys
from pathlib import Path

import click

from osbuild_pika.cli import manifests, places
from osbuild_pika.errors import ExitCode, ManifestError
from osbuild_pika.text import one_line
from osbuild_pika.verify import verify


@click.command()
@click.argument("path", metavar="RUN|DIR|MANIFEST", type=click.Path())
@manifests.libdir
def check(path: str, libdirs: tuple[Path, ...]) -> None:
    """Say what is wrong with the artifacts of a run, or with a manifest.

    RUN (its id) or DIR: one line for each fault: FILE[:LINE]: what is wrong, and what to do about
    it. A file that is not there is no fault by itself. Nothing is changed; a writer at work waits
    meanwhile, and what it is in the middle of is no fault.

    MANIFEST: one line for each fault: FILE: where in it: what is wrong. Nothing is built.

    Exits 0 without a fault, 1 with one in a run, 2 with one in a manifest or for a bad argument.
    """
    if path and os.path.exists(path) and not os.path.isdir(path):
        _check_manifest(path, libdirs)
        return
    found = verify(places.resolve(path))
    if not found.faults:
        click.echo(f"ok: {found.summary()}")
        return
    click.echo("\n".join(one_line(str(fault)) for fault in found.faults))
    sys.exit(ExitCode.FAILED)


def _check_manifest(path: str, libdirs: tuple[Path, ...]) -> None:
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.modules import standard

    try:
        manifest = load(manifests.read(path), standard(libdirs))
    except ManifestError as error:
        lines = (f"{path}: {fault}" for fault in error.faults)
        click.echo("\n".join(one_line(line) for line in lines))
        sys.exit(ExitCode.BAD_INPUT)
    click.echo(f"ok: {manifest.summary()}")
