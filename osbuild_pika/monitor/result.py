"""Upstream's result object: what `--json` prints when a build has ended."""

from typing import Any

from osbuild_pika.monitor import Record, Sink, explain, objects, text


class ResultCollector(Sink):
    """Collects the records of a build; `result()` is upstream's object of them.

    A build that failed without a failed stage or source (a device, an interruption) has an error
    of the type org.osbuild-pika.error, where upstream prints no object at all.
    """

    def __init__(self) -> None:
        self._pipelines: dict[str, str] = {}  # name -> id, in build order
        self._log: dict[str, list[Record]] = {}
        self._metadata: dict[str, Record] = {}
        self._sources: dict[str, Record] = {}
        self._failed: Record | None = None
        self._end: Record = {}

    def on_build_started(self, record: Record) -> None:
        for pipeline in objects(record, "pipelines"):
            self._pipelines[text(pipeline, "name")] = text(pipeline, "id")

    def on_source_finished(self, record: Record) -> None:
        self._sources[text(record, "source")] = record

    def on_stage_cached(self, record: Record) -> None:
        self._keep_metadata(record)

    def on_stage_finished(self, record: Record) -> None:
        entry: Record = {
            "id": text(record, "id"),
            "type": text(record, "stage"),
            "output": text(record, "output"),
        }
        if not record.get("success"):
            self._failed = record
            entry["success"] = False
            if error := explain(record):
                entry["error"] = error
        self._log.setdefault(text(record, "pipeline"), []).append(entry)
        self._keep_metadata(record)

    def on_build_finished(self, record: Record) -> None:
        self._end = record

    def _keep_metadata(self, record: Record) -> None:
        metadata = record.get("metadata")
        if isinstance(metadata, dict) and metadata:
            types = self._metadata.setdefault(text(record, "pipeline"), {})
            types.setdefault(text(record, "stage"), {}).update(metadata)

    def result(self) -> Record:
        """The object, of what came so far; a build that has not ended has failed."""
        result: Record
        if self._end.get("success"):
            result = {"type": "result", "success": True, "metadata": self._shared(self._metadata)}
        else:
            result = {"type": "error", "success": False, "error": self._error()}
        return result | {"sources": self._source_results(), "log": self._shared(self._log)}

    def _shared(self, found: dict[str, Any]) -> dict[str, Any]:
        """By pipeline, in build order; what several of one id have was found once."""
        by_id = {key: found[name] for name, key in self._pipelines.items() if key and name in found}
        names = {name: by_id[key] for name, key in self._pipelines.items() if key in by_id}
        return {**names, **found}

    def _source_results(self) -> Record:
        results: Record = {"success": all(each.get("success") for each in self._sources.values())}
        for source, record in self._sources.items():
            results[source] = [_item(each) for each in objects(record, "results")]
        return results

    def _error(self) -> Record:
        for source, record in self._sources.items():
            if not record.get("success"):
                errors = [text(each, "error") for each in objects(record, "results")]
                first = next(filter(None, errors), text(record, "output"))
                return _error("source", {"type": source, "output": first})
        if self._failed is None:
            details = {name: text(self._end, name) for name in ("message", "reason")}
            return {"type": "org.osbuild-pika.error", "details": details}
        stage = {
            "id": text(self._failed, "id"),
            "type": text(self._failed, "stage"),
            "output": text(self._failed, "output"),
            "error": explain(self._failed),
        }
        return _error("stage", stage)


def _error(kind: str, details: Record) -> Record:
    return {"type": f"org.osbuild.error.{kind}", "details": {kind: details}}


def _item(item: Record) -> Record:
    pairs = (
        ("cached", item.get("is_cached")),
        ("checksum", item.get("checksum")),
        ("error", item.get("error") or None),
    )
    return {name: value for name, value in pairs if value is not None}
