"""Upstream's JSONSeqMonitor: a stream of JSON texts (RFC 7464) that other programs read.

Each text has a context: whole the first time, only its id later. The id is the SHA-256 of the
whole context's JSON with sorted keys and nulls. What is null or "" is left out of what is written.
A context keeps the last stage until the next one begins, over pipelines, as upstream's does.
"""

import json
from typing import Any, TextIO

from osbuild_pika.monitor import (
    Record,
    Sink,
    explain,
    is_cached,
    number,
    objects,
    service_line,
    text,
)

MAX_OUTPUT = 31_000  # characters of a stage's output, or of a source's results, in one text
CLI, MONITOR, PRODUCT = "osbuild.main_cli", "osbuild.monitor", "org.osbuild"


class JsonSeqSink(Sink):
    """Writes upstream's stream. Pipelines that are cached do not appear in it, as upstream's.

    Limit: upstream ends each stage's output with a text without a message; this does not.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._manifest = ""
        self._known: set[str] = set()  # ids of the contexts that were written whole
        self._pipeline: tuple[str | None, str | None] = (None, None)  # name, id
        self._stage: tuple[str | None, str | None] = (None, None)
        self._total = self._done = 0
        self._stages: dict[str, list[int]] = {}  # per pipeline at work: done, total
        self._needed: dict[str, Record] = {}
        self._time = 0.0
        self._silent: set[str] = set()  # names of pipelines that upstream would not build
        self._options: dict[str, Any] = {}

    def on_build_started(self, record: Record) -> None:
        self._manifest = text(record, "manifest")
        seen: set[str] = set()
        for pipeline in objects(record, "pipelines"):
            name, key = text(pipeline, "name"), text(pipeline, "id")
            self._needed[name] = pipeline
            if is_cached(pipeline) or (key and key in seen):
                self._silent.add(name)
            seen.add(key)
        self._total = int(number(record, "sources")) + len(self._needed) - len(self._silent)
        self._write({"message": f"starting {self._manifest}"}, CLI)

    def on_source_started(self, record: Record) -> None:
        self._enter_source(record)
        self._write({"message": f"Starting pipeline source {text(record, 'source')}"})

    def on_source_finished(self, record: Record) -> None:
        self._enter_source(record)
        result = _source_result(record)
        self._write({"message": f"Finished module {result['name']}", "result": result})
        self._done += 1
        self._write({"message": f"Finished pipeline {text(record, 'source')}"})

    def _enter_source(self, record: Record) -> None:
        self._pipeline = (f"source {text(record, 'source')}", text(record, "id") or None)

    def on_pipeline_started(self, record: Record) -> None:
        name = self._enter(record)
        if name in self._silent:
            return
        total = len(objects(self._needed.get(name, {}), "stages"))
        if total:
            self._stages[name] = [0, total]
        self._write({"message": f"Starting pipeline {name}"})

    def on_pipeline_finished(self, record: Record) -> None:
        name = self._enter(record)
        if name in self._silent:
            return
        self._stages.pop(name, None)
        self._done += 1
        self._write({"message": f"Finished pipeline {name}"})

    def on_stage_started(self, record: Record) -> None:
        self._enter(record)
        options = record.get("options")
        self._options[text(record, "id")] = options if isinstance(options, dict) else {}
        self._write({"message": f"Starting module {text(record, 'stage')}"})

    def on_stage_output(self, record: Record) -> None:
        if text(record, "text"):
            self._write({"message": text(record, "text")}, f"stages/{self._stage[0] or ''}")

    def on_service_output(self, record: Record) -> None:
        self._write({"message": f"{service_line(record)}\n"}, PRODUCT)

    def on_stage_finished(self, record: Record) -> None:
        name = self._enter(record)
        if name in self._stages:
            self._stages[name][0] += 1
        entry = {
            "message": f"Finished module {text(record, 'stage')}",
            "result": _stage_result(record),
            "options": self._options.pop(text(record, "id"), None) or None,
            "duration": number(record, "duration_s"),
            "metadata": record.get("metadata") or None,
        }
        self._write(entry)

    def on_build_finished(self, record: Record) -> None:
        how = "finished successfully" if record.get("success") else "failed"
        self._write({"message": f"manifest {self._manifest} {how}\n"}, CLI)

    def _enter(self, record: Record) -> str:
        """Make a record's pipeline, and its stage if it has one, the context's."""
        name = text(record, "pipeline")
        if name in self._silent:
            return name
        if "stage" in record:
            self._stage = (text(record, "stage"), text(record, "id") or None)
            key = self._needed.get(name, {}).get("id")
        else:
            key = record.get("id")
        if name != self._pipeline[0] or key:
            self._pipeline = (name, key if isinstance(key, str) else None)
        return name

    def _write(self, entry: Record, origin: str = MONITOR) -> None:
        entry |= {"context": self._context(origin), "progress": self._progress()}
        entry["timestamp"] = self._time
        self._out.write(f"\x1e{json.dumps(_without_empty(entry))}\n")
        self._out.flush()

    def take(self, record: Record) -> None:
        self._time = number(record, "time")
        super().take(record)

    def _context(self, origin: str) -> Record:
        (name, key), (stage, stage_key) = self._pipeline, self._stage
        pipeline = {"name": name, "id": key, "stage": {"name": stage, "id": stage_key}}
        context: Record = {"origin": origin, "pipeline": pipeline}
        import hashlib  # 5 ms, for who asks for this stream only

        found = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()
        if found in self._known:
            return {"id": found}
        self._known.add(found)
        return {**context, "id": found}

    def _progress(self) -> Record:
        progress: Record = {
            "name": "pipelines/sources",
            "total": self._total,
            "done": self._done,
        }
        name = self._pipeline[0] or ""
        if name in self._stages:
            done, total = self._stages[name]
            progress["progress"] = {"name": f"pipeline: {name}", "total": total, "done": done}
        return progress


def _without_empty(value: Record) -> Record:
    pairs = ((key, _without_empty(v) if isinstance(v, dict) else v) for key, v in value.items())
    return {key: each for key, each in pairs if each is not None and each != ""}


def _stage_result(record: Record) -> Record:
    output = text(record, "output")
    hidden = len(output) - MAX_OUTPUT
    if hidden > 0:
        output = f"[...{hidden} bytes hidden...]\n{output[hidden:]}"
    return {
        "name": text(record, "stage"),
        "id": text(record, "id"),
        "success": bool(record.get("success")),
        "output": output,
        "error": explain(record),
    }


def _source_result(record: Record) -> Record:
    source, is_good = text(record, "source"), bool(record.get("success"))
    results = [_item_result(each) for each in objects(record, "results")]
    errors = [each["error"] for each in results if each["error"]] or [text(record, "output")]
    how = "successfully" if is_good else f"unsuccessfully: {errors[-1]}"
    result = {
        "name": f"source {source}",
        "source_type": source,
        "success": is_good,
        "output": f"source {source} finished {how}",
        "results": results,
    }
    return {**result, "results": []} if len(json.dumps(result)) > MAX_OUTPUT else result


def _item_result(item: Record) -> Record:
    error = text(item, "error")
    metadata = {"checksum": text(item, "checksum"), "cached": bool(item.get("is_cached"))}
    return {"success": not error, "metadata": metadata, "error": error}
