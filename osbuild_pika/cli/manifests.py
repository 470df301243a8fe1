"""What the verbs that read a manifest have in common."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from osbuild_pika.errors import InputError
from osbuild_pika.text import one_line

libdir: Callable[[Any], Any] = click.option(
    "-l",
    "--libdir",
    "libdirs",
    metavar="DIRECTORY",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look for modules here first; can be given several times.",
)


def read(path: str) -> bytes:
    """The bytes of a manifest; `-` is the standard input. Raises InputError."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{one_line(path)}: {error.strerror}") from None
    except ValueError as error:  # a null byte in the path
        raise InputError(f"{one_line(path)}: {error}") from None


def error_object_of(faults: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Upstream's form of what is wrong with a manifest. faults: with message and path."""
    return {
        "type": "https://osbuild.org/validation-error",
        "title": "JSON Schema validation failed",
        "success": False,
        "errors": [{"message": each["message"], "path": each["path"]} for each in faults],
    }
