"""Why a stage must run: a plan as a document, compared with the plans of earlier runs.

<run>/plan.json is that document. It holds what each key was made of, in digests, so that a later
plan can say what is different. It is a hint for people: nothing is decided by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from osbuild_pika import lifecycle, runs
from osbuild_pika.engine.manifest import digest
from osbuild_pika.engine.plan import Plan, PlannedPipeline, Step

MAX_BYTES = 64 * 1024 * 1024  # of a plan.json that is ever read
MAX_EARLIER = 20  # runs that are looked at
NAME = "plan.json"
Document = dict[str, Any]


def describe(plan: Plan, manifest: str, earlier: Sequence[Document] = ()) -> Document:
    """A plan as JSON values.

    manifest: what it is called. earlier: documents of earlier plans of it, the newest first.
    """
    return {
        "schema_version": lifecycle.SCHEMA_VERSION,
        "manifest": manifest,
        "exports": list(plan.exports),
        "sources": {name: list(items) for name, items in plan.sources.items()},
        "pipelines": [_describe_pipeline(each, earlier) for each in plan.pipelines],
    }


def _describe_pipeline(planned: PlannedPipeline, earlier: Sequence[Document]) -> Document:
    name = planned.pipeline.name
    before = next((found for each in earlier if (found := _stages(each, name))), [])
    stages = []
    for index, step in enumerate(planned.steps):
        told = _describe_step(step)
        told["why"] = "" if step.is_cached else _why(told, step, index, before)
        stages.append(told)
    after = list(planned.after)
    return {"name": name, "id": planned.pipeline.id, "after": after, "stages": stages}


def _describe_step(step: Step) -> Document:
    stage, parts = step.stage, step.parts
    return {
        "type": stage.type,
        "id": stage.id,
        "key": step.key,
        "is_cached": step.is_cached,
        "is_kept": step.is_kept,
        "parts": {
            "option": {name: digest(value) for name, value in stage.options.items()},
            "source-epoch": stage.source_epoch,
            "input": {
                each.name: digest(each.id, [parts.read.get(str(ref)) for ref in each.references])
                for each in stage.inputs
            },
            "mount": {each.name: each.id for each in stage.mounts},
            "device": dict(parts.devices),
            "code": {f"{kind}/{name}": code for (kind, name), code in parts.code.items()},
            "build root": {"pipeline" if stage.build else "packages of the host": parts.build},
            "below": parts.below,
        },
    }


def _why(told: Document, step: Step, index: int, before: Sequence[Document]) -> str:
    """What is different from the stage that stood here, or of the same type in its pipeline."""
    same = [each for each in before if each.get("type") == step.stage.type]
    if not same:
        return "not built before"
    here = [each for each in before[index : index + 1] if each in same]
    changes = list(_changes((here or same)[0].get("parts"), told["parts"]))
    if not changes:
        return f"the same as before, but {step.why}"
    return f"{', '.join(changes)} changed"


def _changes(before: Any, now: Document) -> Iterator[str]:
    before = before if isinstance(before, dict) else {}
    for name in ("option", "input", "mount", "device"):
        different = _different(before.get(name), now[name])
        if different:
            yield f"the {name}{'s' if different[1:] else ''} {' and '.join(different)}"
    if before.get("source-epoch") != now["source-epoch"]:
        yield "the source-epoch"
    different = [each.partition("/")[2] for each in _different(before.get("code"), now["code"])]
    if different:
        yield f"the code of {' and '.join(different)}"
    root = now["build root"]
    if before.get("build root") != root:
        yield f"the build root ({next(iter(root))})"
    if before.get("below") != now["below"]:
        yield "the stage below"


def _different(before: Any, now: Mapping[str, Any]) -> list[str]:
    before = before if isinstance(before, dict) else {}
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _stages(document: Document, pipeline: str) -> list[Document]:
    """The stages of a pipeline in an earlier plan, of whatever shape that is."""
    found = document.get("pipelines")
    for each in found if isinstance(found, list) else []:
        if isinstance(each, dict) and each.get("name") == pipeline:
            stages = each.get("stages")
            return [one for one in stages if isinstance(one, dict)] if stages else []
    return []


def earlier(root: str, manifest: str, but: str = "") -> list[Document]:
    """The plans of earlier runs of a manifest of this name, the newest first.

    root: the runs'. but: a run that does not count. What cannot be read is passed over.
    """
    ages = [(_begun(root, each), each) for each in runs.all_ids(root) if each != but]
    found = []
    for _, run in sorted(ages, reverse=True)[:MAX_EARLIER]:
        document = _read(os.path.join(root, run, NAME))
        if document.get("manifest") == manifest:
            found.append(document)
    return found


def _begun(root: str, run: str) -> int:
    try:
        return os.stat(os.path.join(root, run, "run.json")).st_mtime_ns
    except OSError:
        return 0


def _read(path: str) -> Document:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(directory: str, document: Document) -> None:
    """Leave a plan in its run's directory."""
    path = Path(directory, NAME)
    new = path.with_name(f".{NAME}.tmp")
    new.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)
