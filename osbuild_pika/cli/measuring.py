"""What a build's exports are as images: their files, sizes and fingerprints.

A stage that packed an image in this build has told its fingerprint, made while it wrote the file.
What is exported from the store is read for it, while the build still comes to its end.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from osbuild_pika.engine.layers import is_key
from osbuild_pika.monitor import Record, Sink, text

if TYPE_CHECKING:
    from osbuild_pika.engine.order import Order
    from osbuild_pika.products.published import Output


class Measuring(Sink):
    """Begins with each export when it is told of."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._packed: dict[str, str | None] = {}  # fingerprints, by the names of pipelines
        self._readers: list[_Reader] = []

    def on_stage_finished(self, record: Record) -> None:
        left = record.get("metadata")
        told = left.get("fingerprint") if isinstance(left, dict) else None
        is_told = record.get("success") and is_key(told)  # 64 hex digits, too
        # Of the last stage that ran: what it left is exported.
        self._packed[text(record, "pipeline")] = told if is_told else None

    def on_export_finished(self, record: Record) -> None:
        name, path = str(record.get("pipeline")), str(record.get("path"))
        pipelines = json.loads(self._order.manifest)["pipelines"]
        pipeline = next(each for each in pipelines if each["name"] == name)
        reader = _Reader(pipeline, path, self._order.output or ".", self._packed.get(name))
        reader.start()
        self._readers.append(reader)

    def results(self) -> Iterator[tuple[str, Output | None]]:
        """The path of each export, and what it is if it is an image; trees last. Raises
        InputError."""
        found = [(each.path, each.result()) for each in self._readers]
        return iter(sorted(found, key=lambda each: each[1] is None))


class _Reader(threading.Thread):
    """Measures one export. It ends with the process: nobody waits for what is not asked for."""

    def __init__(self, pipeline: Any, path: str, directory: str, fingerprint: str | None) -> None:
        super().__init__(daemon=True)
        self.path = path
        self._pipeline = pipeline
        self._directory = directory
        self._fingerprint = fingerprint
        self._found: Output | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread's
        try:
            from osbuild_pika.products import published

            self._found = published.measured(self._pipeline, self._directory, self._fingerprint)
        except Exception as error:
            self._error = error

    def result(self) -> Output | None:
        """Waits for it. Raises InputError."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._found
