"""`osbuild-pika check`: what is wrong with a run, a manifest, a definition, an image or a tree?"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from osbuild_pika.cli import images, manifests, places, tables
from osbuild_pika.errors import ExitCode, InputError, ManifestError
from osbuild_pika.text import one_line

TREES = ("etc", "usr", "bin", "sbin")  # a directory with one of them is a guest's tree


@click.command()
@click.argument(
    "path", metavar="RUN|DIR|MANIFEST|DEFINITION|KICKSTART|IMAGE|TREE", type=click.Path()
)
@click.argument("rootfs", required=False, type=click.Path(exists=True, dir_okay=False))
@tables.form("plain")
@click.option("--allow", metavar="CODE", multiple=True, help="Of an image or a tree: not a fault.")
@manifests.libdir
@images.kickstart_options
def check(path: str, rootfs: str | None, form: str, allow: tuple[str, ...], **given: Any) -> None:
    """Say what is wrong with a run, a manifest, a definition, a kickstart, an image or a tree.

    RUN (its id) or DIR: one line for each fault: FILE[:LINE]: what is wrong, and what to do about
    it. A file that is not there is no fault by itself. Nothing is changed; a writer at work waits
    meanwhile, and what it is in the middle of is no fault.

    MANIFEST: one line for each fault: FILE: where in it: what is wrong. Nothing is built.

    DEFINITION, such as image.yaml: one line for each fault: FILE:LINE:COLUMN: what is wrong. Its
    packages are only compared with its lock: nothing is downloaded.

    KICKSTART, a file *.ks: a table of what becomes of each command, then a line for each fault.

    IMAGE: a unified Incus image, both files of a split one (METADATA ROOTFS), or the directory of
    either. TREE: the root of a guest. One line for each finding: FILE: KEY: what is wrong [CODE].

    Exits 0 without a fault, 1 with one in a run, 2 with one in anything else, or for a bad
    argument. Warnings are no faults.
    """
    kind = kind_of(path, rootfs)
    if kind in ("manifest", "definition"):
        look = _definition(path) if kind == "definition" else _manifest(path, given["libdirs"])
        _tell(form, *look, ExitCode.BAD_INPUT)
    elif kind == "kickstart":
        _tell_kickstart(form, path, given)
    elif kind == "run":
        from osbuild_pika.verify import verify

        found = verify(places.resolve(path))
        _tell(form, found.summary(), [str(each) for each in found.faults], ExitCode.FAILED)
    else:
        from osbuild_pika.cli import check_images

        check_images.tell(kind, path, rootfs, form == "json", allow)


def kind_of(path: str, rootfs: str | None = None) -> str:
    """What is to be checked: "run", "manifest", "definition", "kickstart", "image", "unpacked" or
    "tree"."""
    if rootfs is not None:
        return "image"
    if images.is_definition(path) and not os.path.isdir(path):
        return images.form_of(path)
    from osbuild_pika.imagefile import magic  # with all that reads images

    if not path or not os.path.exists(path):
        return "run"
    if not os.path.isdir(path):
        try:
            return "image" if os.path.isfile(path) and magic.is_image(path) else "manifest"
        except OSError:
            return "manifest"  # says why it cannot be read
    names = set(os.listdir(path)) if os.access(path, os.R_OK) else set()
    if names & set(places.RUN_FILES):
        return "run"
    if "metadata.yaml" in names:
        return "unpacked"
    if names & set(TREES):
        return "tree"
    whole = [os.path.join(path, name) for name in names]
    is_image = 1 <= len(names) <= 2 and all(os.path.isfile(each) for each in whole)
    return "image" if is_image and all(map(magic.is_image, whole)) else "run"


def _definition(path: str) -> tuple[str, Sequence[str]]:
    """What a definition says, and what is wrong with it."""
    try:
        return images.check(path), []
    except InputError as error:
        return "", getattr(error, "lines", [str(error)])


def _manifest(path: str, libdirs: tuple[Path, ...]) -> tuple[str, Sequence[str]]:
    """What is in a manifest, and what is wrong with it."""
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.modules import standard

    try:
        return load(manifests.read(path), standard(libdirs)).summary(), []
    except ManifestError as error:
        return "", [f"{path}: {fault}" for fault in error.faults]


def _tell_kickstart(form: str, path: str, given: Mapping[str, Any]) -> None:
    """Its report, and whether it will do."""
    summary, faults, report = images.check_kickstart(path, given)
    if form == "json":
        click.echo(
            json.dumps(
                {
                    "ok": not faults,
                    "summary": summary,
                    "faults": faults,
                    "report": report.as_document(),
                }
            )
        )
    else:
        heads = ("LINE", "COMMAND", "VERDICT", "NOTE")
        rows = [(f"{e.file}:{e.line}", e.command, e.verdict, e.note) for e in report.entries]
        click.echo(tables.render(heads, rows))
        click.echo(f"\n{one_line(report.summary)}")
        click.echo("\n".join(map(one_line, faults)) if faults else f"ok: {one_line(summary)}")
    if faults:
        sys.exit(ExitCode.BAD_INPUT)


def _tell(form: str, summary: str, faults: Sequence[str], code: ExitCode) -> None:
    if form == "json":
        found = {
            "ok": not faults,
            "summary": summary,
            "faults": [one_line(each) for each in faults],
        }
        click.echo(json.dumps(found))
    elif faults:
        click.echo("\n".join(one_line(each) for each in faults))
    else:
        click.echo(f"ok: {summary}")
    if faults:
        sys.exit(code)
