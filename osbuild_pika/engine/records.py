"""Gives records to whoever asked for the build, who may be slow, or gone."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from osbuild_pika.engine.interrupts import Interrupts
from osbuild_pika.engine.order import encode_record

PIECE = 600  # characters of output in a record: encoded it is written at once, or not at all
STALLED_S = 2.0  # for a reader that does not read while the build is to be ended


class Records:
    """The writing end of a pipe. A reader that is gone ends the build."""

    def __init__(self, fd: int, interrupts: Interrupts) -> None:
        self._fd = fd
        self._interrupts = interrupts
        self._is_gone = False

    def emit(self, record: Mapping[str, Any]) -> None:
        """Write a record, or for output that there is no room for, leave it to the log: a stage
        that prints without end must not stop the build's clocks."""
        for piece in _pieces(record):
            if record["record"] == "stage.output" and not self._has_room(0):
                return
            self._write(encode_record(piece))

    def _write(self, data: bytes) -> None:
        begin = time.monotonic()
        while data and not self._is_gone:
            if not self._has_room(0.2):
                is_late = time.monotonic() - begin > STALLED_S
                self._is_gone = bool(self._interrupts.number) and is_late
                continue
            try:
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                self._is_gone = True
                self._interrupts.ask(signal.SIGTERM)

    def _has_room(self, timeout_s: float) -> bool:
        """Whether PIPE_BUF bytes can be written at once, or the reader is gone."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout_s * 1000))


def _pieces(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    text = record.get("text")
    if record["record"] != "stage.output" or not isinstance(text, str):
        yield record
        return
    for start in range(0, len(text), PIECE):
        yield {**record, "text": text[start : start + PIECE]}
