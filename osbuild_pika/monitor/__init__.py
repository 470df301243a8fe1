"""What a build says while it runs, and who listens: one module per listener.

A record is one JSON object. The engine's process writes one a line to its pipe; who started it
reads them and hands each to its sinks. All have `record` (its name) and `time` (Unix seconds).

| record | fields |
| --- | --- |
| build.started | run, directory, manifest (its name), sources (how many), pipelines: those that are needed, in build order: [{name, id, [build], [runner], [source_epoch], stages: [{type, id, is_cached}]}] |
| source.started | source (its type), id, items (how many) |
| source.progress | source, done, [total], [unit] |
| source.finished | source, id, success, output, results: [{checksum, is_cached, error}], duration_s |
| pipeline.started | pipeline, id |
| stage.cached | pipeline, stage (its type), id, index, [metadata] |
| stage.started | pipeline, stage, id, index, options, [log] |
| stage.output | text, as it comes; [id], else it is the running stage's |
| service.output | service (its id), module, line |
| stage.finished | pipeline, stage, id, index, success, output (4 MiB at most), error ({type, value, traceback} or null), reason (text or null), metadata (or null), duration_s, [log] |
| pipeline.finished | pipeline, id |
| export.started, export.finished | pipeline, path |
| build.finished | success, exit_code, message, reason |
| refused | message, faults: [{text, ...}]: nothing was begun; no sink shows it, but who started the build |
| stage.progress | done, [total], [unit], message, [pipeline], [stage], [id], [seq]: not the engine's, but made by `LiveProgress` from what the stage said to the lifecycle service |

Brackets: may be absent. `log` is the path, from the run's directory, of the file that has all of a
stage's output. Everything
that a stage, a service or a download can have a word in is untrusted text.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]

RECORDS = frozenset(
    (
        "build.started",
        "source.started",
        "source.progress",
        "source.finished",
        "pipeline.started",
        "stage.cached",
        "stage.started",
        "stage.progress",
        "stage.output",
        "stage.finished",
        "service.output",
        "pipeline.finished",
        "export.started",
        "export.finished",
        "build.finished",
    )
)


class Sink:
    """Takes the records of one build, in any order: what makes no sense is passed over.

    A sink has a method `on_<name>` for each record that it wants, with _ for the dot. Raises
    nothing but the OSError of what it writes to.
    """

    def take(self, record: Record) -> None:
        name = record.get("record")
        if isinstance(name, str) and name in RECORDS:
            method = getattr(self, f"on_{name.replace('.', '_')}", None)
            if method is not None:
                method(record)

    def tick(self) -> None:
        """To be called some times a second, whether or not a record came."""

    def close(self) -> None:
        """Write what is left. Does not close what the sink writes to."""


class Tee(Sink):
    """Hands every record to several sinks."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = tuple(sinks)

    def take(self, record: Record) -> None:
        for sink in self._sinks:
            sink.take(record)

    def tick(self) -> None:
        for sink in self._sinks:
            sink.tick()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def text(record: Record, name: str) -> str:
    """A field that is text; "" if it is not there, or something else."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def number(record: Record, name: str) -> float:
    """A field that is a finite number of a sane size; 0 if it is not there, or something else."""
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0.0
    return value if abs(value) < 1e15 else 0.0


def objects(record: Record, name: str) -> list[Record]:
    """The objects in a field that is a list."""
    value = record.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def is_cached(pipeline: Record) -> bool:
    """Whether nothing of a pipeline in build.started has to be built."""
    stages = objects(pipeline, "stages")
    return bool(stages) and all(stage.get("is_cached") for stage in stages)


def explain(record: Record) -> Record | None:
    """Why a stage.finished failed, in upstream's form of an error; None if nobody knows.

    Upstream knows only what the stage itself said over its socket; the rest has a type of ours.
    """
    error = record.get("error")
    if isinstance(error, dict):
        return {"type": "exception", "data": error}
    reason = text(record, "reason")
    if record.get("success") or not reason:
        return None
    data = {"type": "StageFailed", "value": reason, "traceback": ""}
    return {"type": "org.osbuild-pika.reason", "data": data}


def service_line(record: Record) -> str:
    """A service.output in upstream's words, without its end."""
    service, module, line = (text(record, name) for name in ("service", "module", "line"))
    return f"{service} ({module}): {line}" if module else f"{service}: {line}"
