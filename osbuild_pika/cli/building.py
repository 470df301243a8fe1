"""What the verbs that build have in common: where the store is, and how a build is watched."""

import json
import os
from collections.abc import Callable
from typing import Any

import click

from osbuild_pika.cli.manifests import error_object_of
from osbuild_pika.monitor import Record, Sink
from osbuild_pika.monitor.live import LiveProgress
from osbuild_pika.text import one_line

MAX_SHOWN = 500  # characters of a message


def default_store() -> str:
    """root's or the user's cache directory."""
    if os.geteuid() == 0:
        return "/var/cache/osbuild-pika/store"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "osbuild-pika/store")


exports: Callable[[Any], Any] = click.option(
    "-x",
    "--export",
    "exports",
    metavar="PIPELINE",
    multiple=True,
    help="Export this pipeline's tree. Default: those that the manifest names, else its last.",
)


def output(what: str) -> Callable[[Any], Any]:
    """The option for a directory that is filled. what: says with what."""
    return click.option(
        "-o",
        "--output",
        metavar="DIR",
        type=click.Path(file_okay=False),
        default="output",
        show_default=True,
        help=what,
    )


store: Callable[[Any], Any] = click.option(
    "--store",
    metavar="DIR",
    envvar="OSBUILD_PIKA_STORE",
    type=click.Path(file_okay=False),
    default=default_store,
    help="Where finished stages and sources are kept. Default: root's or the user's cache.",
)


class Watch:
    """Gives a build's records to sinks.

    refusal: the record of a build that was not begun. exported: paths. message: of its end.
    """

    def __init__(self, *sinks: Sink) -> None:
        self.refusal: Record | None = None
        self.exported: list[str] = []
        self.message = ""
        self._sinks = sinks
        self._live: LiveProgress | None = None

    def take(self, record: Record) -> None:
        if record.get("record") == "refused":
            self.refusal = record
        elif record.get("record") == "export.finished":
            self.exported.append(str(record.get("path")))
        elif record.get("record") == "build.started":
            self._live = LiveProgress(str(record.get("directory")))
        elif record.get("record") == "build.finished":
            self.message = str(record.get("message"))
        for sink in self._sinks:
            sink.take(record)

    @property
    def has_begun(self) -> bool:
        """Whether it came so far that something was planned."""
        return self._live is not None

    def tick(self) -> None:
        for record in self._live.poll() if self._live else ():
            for sink in self._sinks:
                sink.take(record)
        for sink in self._sinks:
            sink.tick()

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
        for sink in self._sinks:
            sink.close()

    def tell_refusal(self, is_json: bool) -> None:
        """Say why the build was not begun: a line for each thing that is wrong."""
        record = self.refusal or {}
        if is_json and record.get("faults"):
            click.echo(json.dumps(error_object_of(record["faults"])))
            return
        for message in [each["text"] for each in record.get("faults", ())] or [record["message"]]:
            click.echo(f"osbuild-pika: error: {one_line(str(message), MAX_SHOWN)}", err=True)
