"""`osbuild-pika check IMAGE|TREE`: what the linter finds, a line or an object for each."""

import json
import os
import platform
import sys
import time
from collections.abc import Collection, Sequence

import click

from osbuild_pika import imagefile
from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.inside import lint
from osbuild_pika.text import one_line


def tell(kind: str, path: str, rootfs: str | None, is_json: bool, allow: Collection[str]) -> None:
    """Look and tell; exits 2 if there is an error. Raises InputError, HostError."""
    if kind == "tree":
        view = imagefile.view_of(path)
        findings, what = lint.tree(view, allow=allow), f"tree of {len(view.entries)} files"
    else:
        image = _image(kind, path, rootfs)
        host = lint.Host(time.time(), platform.machine())
        findings, what = lint.image(image, host, allow), _summary(image)
    is_wrong = lint.has_errors(findings)
    if is_json:
        found = {"ok": not is_wrong, "summary": what, "findings": [_object(f) for f in findings]}
        click.echo(json.dumps(found))
    else:
        _show(findings, what, is_wrong)
    if is_wrong:
        sys.exit(ExitCode.BAD_INPUT)


def _image(kind: str, path: str, rootfs: str | None) -> lint.Image:
    if rootfs is not None:
        return imagefile.look_split(path, rootfs)
    if kind == "unpacked":
        return imagefile.look_directory(path)
    if not os.path.isdir(path):
        return imagefile.look(path)
    files = sorted(os.path.join(path, name) for name in os.listdir(path))
    if len(files) == 1:
        return imagefile.look(files[0])
    try:
        first, second = sorted(files, key=imagefile.likeness_to_root)
    except OSError as problem:
        raise InputError(f"{one_line(path)}: {problem.strerror}") from None
    return imagefile.look_split(first, second)


def _summary(image: lint.Image) -> str:
    kind = "virtual machine" if image.has_disk else "container"
    metadata = image.metadata if isinstance(image.metadata, dict) else {}
    machine = metadata.get("architecture")
    of = f" of {one_line(machine, 20)}" if isinstance(machine, str) else ""
    count = f", {len(image.root.entries)} files" if image.root is not None else ""
    return f"{kind} image{of}{count}, {len(image.templates)} templates"


def _show(findings: Sequence[lint.Finding], what: str, is_wrong: bool) -> None:
    for finding in findings:
        click.echo(one_line(str(finding)))
    if not is_wrong:
        more = f" ({len(findings)} warnings)" if findings else ""
        click.echo(f"ok: {what}{more}")


def _object(finding: lint.Finding) -> dict[str, str]:
    fields = ("severity", "code", "path", "key", "message")
    return {name: one_line(getattr(finding, name)) for name in fields}
