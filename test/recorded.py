"""The engine's records of builds that upstream made, and what upstream said about them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUILDS = Path(__file__).parent / "data/osbuild/monitor"
NAMES = sorted(path.name for path in BUILDS.iterdir())
RUNNER = "org.osbuild.debian12"  # of the machine that the records were made on

Document = dict[str, Any]


def read(name: str, file: str) -> Any:
    return json.loads((BUILDS / name / file).read_bytes())


def entries(stream: str) -> list[Document]:
    """The JSON texts of a stream, each with its whole context."""
    found = [json.loads(each) for each in stream.split("\x1e")[1:]]
    contexts: dict[str, Document] = {}
    for entry in found:
        context = entry["context"]
        entry["whole"] = contexts.setdefault(context["id"], context)
    return found


def said(name: str) -> list[Document]:
    return entries((BUILDS / name / "monitor.seq").read_text())


def records(name: str) -> list[Document]:
    """What the engine would say of this build."""
    return list(_Build(name).records())


class _Build:
    def __init__(self, name: str) -> None:
        manifest = read(name, "manifest.json")
        self.sources = manifest.get("sources", {})
        self.manifest = {each["name"]: each for each in manifest["pipelines"]}
        self.result = read(name, "result.json")
        self.said = said(name)
        self.output: dict[str, list[str]] = {}
        self.ids = {
            at["name"]: at["id"] for e in self.said if "name" in (at := e["whole"]["pipeline"])
        }
        argv = read(name, "argv.json")
        exports = [argv[at + 1] for at, word in enumerate(argv) if word == "--export"]
        started = {m[1]: None for e in self.said if (m := _match("Starting pipeline (.*)", e))}
        names = [each for each in {**started, **dict.fromkeys(exports)} if each in self.manifest]
        self.pipelines = [self.pipeline(each) for each in names]

    def pipeline(self, name: str) -> Document:
        """Of a build that succeeded the stages without a log were cached."""
        log = self.result["log"].get(name, [])
        types = [stage["type"] for stage in self.manifest[name]["stages"]]
        cached = len(types) - len(log) if self.result["success"] else 0
        ids = [""] * cached + [entry["id"] for entry in log]
        ids += [""] * (len(types) - len(ids))
        stages = [
            {"type": kind, "id": key, "is_cached": index < cached}
            for index, (kind, key) in enumerate(zip(types, ids, strict=True))
        ]
        epoch = self.manifest[name].get("source-epoch")
        facts = {
            "name": name,
            "id": self.ids.get(name, ids[-1]),
            "runner": RUNNER,
            "stages": stages,
        }
        return facts | ({} if epoch is None else {"source_epoch": epoch})

    def records(self) -> Iterator[Document]:
        yield {
            "record": "build.started",
            "manifest": "manifest.json",
            "run": "run",
            "directory": "/runs/run",
            "sources": len(self.sources),
            "pipelines": self.pipelines,
        }
        if not self.result["log"]:
            for pipeline in self.pipelines:
                yield from self.cached(pipeline)
        for entry in self.said[1:]:
            for record in self.translated(entry):
                yield {"time": entry["timestamp"], **record}

    def translated(self, entry: Document) -> Iterator[Document]:
        pipeline = entry["whole"]["pipeline"]
        at = {"pipeline": pipeline.get("name"), "id": pipeline.get("id")}
        stage = {**at, "stage": pipeline["stage"].get("name"), "id": pipeline["stage"].get("id")}
        origin = entry["whole"]["origin"]
        if origin == "osbuild.main_cli":
            yield {"record": "build.finished", "success": self.result["success"]}
        elif origin == "org.osbuild":
            service, module, line = re.findall(r"(\S+) \((\S+)\): (.*)\n", entry["message"])[0]
            yield _record("service.output", service=service, module=module, line=line)
        elif origin.startswith("stages/"):
            piece = entry.get("message", "")
            self.output.setdefault(stage["id"], []).append(piece)
            yield _record("stage.output", text=piece)
        elif match := _match("Starting pipeline source (.*)", entry):
            yield _record("source.started", source=match[1], id=at["id"])
        elif match := _match("Finished module source (.*)", entry):
            yield self.source(match[1], at["id"])
        elif _match("Starting pipeline", entry):
            yield {"record": "pipeline.started", **at}
            yield from self.cached(next(p for p in self.pipelines if p["name"] == at["pipeline"]))
        elif _match("Starting module", entry):
            yield {"record": "stage.started", **stage, "options": self.options(stage)}
        elif _match("Finished module", entry):
            yield self.stage(stage, entry)
        elif at["pipeline"] in self.manifest:
            yield {"record": "pipeline.finished", **at}

    def source(self, kind: str, key: str) -> Document:
        told = self.result["sources"][kind]
        results = [
            {
                "checksum": item["checksum"],
                "is_cached": item["cached"],
                "error": item.get("error"),
            }
            for item in told
        ]
        success = not any(item["error"] for item in results)
        return _record("source.finished", source=kind, id=key, success=success, results=results)

    def stage(self, at: Document, entry: Document) -> Document:
        told = next(e for e in self.log(at["pipeline"]) if e["id"] == at["id"])
        return {
            "record": "stage.finished",
            **at,
            "success": told.get("success", True),
            "output": "".join(self.output.pop(at["id"], [])),
            "error": told.get("error", {}).get("data"),
            "reason": None,
            "metadata": self.metadata(at["pipeline"], self.position(at)),
            "duration_s": entry["duration"],
        }

    def log(self, name: str) -> list[Document]:
        found: list[Document] = self.result["log"][name]
        return found

    def options(self, at: Document) -> Document:
        stages = self.manifest[at["pipeline"]]["stages"]
        found: Document = stages[self.position(at)].get("options", {})
        return found

    def position(self, at: Document) -> int:
        pipeline = next(p for p in self.pipelines if p["name"] == at["pipeline"])
        return [stage["id"] for stage in pipeline["stages"]].index(at["id"])

    def metadata(self, pipeline: str, index: int) -> Document | None:
        """What a stage left as metadata: the test module says so in its options."""
        steps = self.manifest[pipeline]["stages"][index].get("options", {}).get("do", [])
        found: Document = {}
        for step in steps:
            found |= step.get("metadata", {})
        return found or None

    def cached(self, pipeline: Document) -> Iterator[Document]:
        """The stages that the store had, with what they said then."""
        name = pipeline["name"]
        for index, stage in enumerate(pipeline["stages"]):
            if stage["is_cached"]:
                at = {"pipeline": name, "stage": stage["type"], "id": stage["id"]}
                yield {"record": "stage.cached", **at, "metadata": self.metadata(name, index)}


def _record(record: str, **fields: Any) -> Document:
    return {"record": record, **fields}


def _match(pattern: str, entry: Document) -> re.Match[str] | None:
    return re.match(pattern, entry.get("message", ""))
