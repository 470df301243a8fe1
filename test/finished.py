"""Runs that have ended, made by hand."""

import json
from pathlib import Path
from typing import Any

from osbuild_pika.lifecycle import Journal

STAGE = {
    "pipeline": "image",
    "type": "org.osbuild.tar",
    "id": "1",
    "key": "k",
    "is_cached": False,
    "success": True,
    "duration_s": 0.25,
    "log": "log/01-org.osbuild.tar.log",
}


def write_run(directory: Path, exports: list[Path], facts: dict[str, Any] | None = None) -> Path:
    """A run that completed, with what the engine writes about it."""
    directory.mkdir()
    build = {
        "schema_version": 1,
        "run_id": directory.name,
        "manifest": "hello.json",
        "exports": [{"pipeline": "image", "id": "1", "path": str(path)} for path in exports],
        "stages": [STAGE],
        "sources": [{"type": "org.osbuild.inline", "success": True, "items": 2}],
        **(facts or {}),
    }
    (directory / "build.json").write_text(json.dumps(build))
    created = {"run_id": directory.name, "created_at": "2026-01-01T00:00:00Z"}
    (directory / "run.json").write_text(json.dumps(created))
    with Journal(directory) as journal:
        journal.append("provisioning", "building")
        journal.finish("completed", 0, "built")
    return directory
