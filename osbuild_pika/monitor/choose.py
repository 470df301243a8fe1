"""Which sink shows a build: by the names that users give, and by what the output can show."""

import os
from collections.abc import Callable, Mapping
from typing import TextIO

from osbuild_pika.errors import InputError
from osbuild_pika.monitor import Sink
from osbuild_pika.monitor.jsonseq import JsonSeqSink
from osbuild_pika.monitor.log import LogSink
from osbuild_pika.monitor.plain import PlainSink
from osbuild_pika.text import one_line

MODES = ("auto", "term", "plain", "jsonseq", "quiet")  # of --progress
MONITORS = ("NullMonitor", "LogMonitor", "JSONSeqMonitor")  # upstream's names


def progress_sink(
    mode: str, out: TextIO, estimates: Callable[[], Mapping[str, float]] | None = None
) -> Sink:
    """The sink of a --progress mode. auto: term on a terminal that can be drawn on, else plain.

    estimates: asked for how long stages took, by who shows it.
    """
    can_draw = out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    if mode == "term" or (mode == "auto" and can_draw):
        if not can_draw:
            return PlainSink(out)
        from osbuild_pika.monitor.term import TermSink  # 0.1 s, for who looks only

        return TermSink(out, estimates() if estimates else None)
    sinks = {"jsonseq": JsonSeqSink, "quiet": _quiet}
    return sinks.get(mode, PlainSink)(out)


def upstream_sink(name: str, out: TextIO) -> Sink:
    """The sink of one of upstream's monitor names. Raises InputError for another."""
    sinks = {"NullMonitor": _quiet, "LogMonitor": LogSink, "JSONSeqMonitor": JsonSeqSink}
    if name not in sinks:
        known = ", ".join(MONITORS)
        raise InputError(f"unknown monitor {one_line(name, 60)}; there are {known}")
    return sinks[name](out)


def _quiet(_: TextIO) -> Sink:
    return Sink()
