"""An Incus image as directories: one with metadata.yaml and templates/, and the guest's tree."""

from __future__ import annotations

import json

from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint import Image
from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import Finding, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from osbuild_pika.inside.lint.view import View

LINKED = "is a link, which Incus would follow on the host; write a file"
TOO_LARGE = "is larger than 1 MiB"


class ParseError(Exception):
    """metadata.yaml is not what its format wants; str() is one line."""


def json_parser(text: bytes) -> Any:
    """What our own metadata.yaml says. Raises ParseError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ParseError(f"is no JSON: {problem}") from None


def look(
    files: View, root: View | None, parse: Callable[[bytes], Any], has_disk: bool = False
) -> Image:
    """files: what holds metadata.yaml and templates/; root: the guest's tree, if it has one."""
    entry = files.entries.get(form.FILE)
    if entry is None:
        return Image(False, root=root, has_disk=has_disk)
    found, fault = None, None
    if entry.kind != tree.FILE:
        fault = error("metadata", form.FILE, "is no file; Incus refuses it")
    elif entry.size > form.MAX_METADATA:
        fault = error("metadata", form.FILE, TOO_LARGE)
    else:
        found, fault = _parsed(files.read(form.FILE), parse)
    templates = _templates(files)
    if fault is not None:
        return Image(False, None, templates, root, has_disk, (fault,))
    return Image(True, found, templates, root, has_disk)


def _parsed(content: bytes | None, parse: Callable[[bytes], Any]) -> tuple[Any, Finding | None]:
    if content is None:
        return None, error("metadata", form.FILE, "cannot be read")
    try:
        return parse(content), None
    except ParseError as problem:
        return None, error("metadata", form.FILE, str(problem))


def _templates(files: View) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    prefix = f"{form.TEMPLATES}/"
    place = files.entries.get(form.TEMPLATES)
    if place is not None and place.kind != tree.DIRECTORY:
        return found
    for name, entry in files.entries.items():
        if not name.startswith(prefix) or entry.kind == tree.DIRECTORY:
            continue
        if entry.kind != tree.FILE:
            content: bytes | str = LINKED if entry.kind == tree.LINK else "is no file"
        elif entry.size > tree.MAX_BYTES:
            content = TOO_LARGE
        else:
            read = files.read(name)
            content = "cannot be read" if read is None else read
        found[name[len(prefix) :]] = content
    return found
