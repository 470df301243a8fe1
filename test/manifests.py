"""Modules and manifests that tests of the engine share."""

import json
from pathlib import Path
from typing import Any

from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import Modules
from osbuild_pika.errors import ManifestError

DATA = Path(__file__).parent / "data/osbuild"
IDS = sorted(path.name for path in (DATA / "ids").iterdir())


def write_modules(directory: Path) -> Path:
    """Make a module directory with upstream's names and schemas of our own."""
    told = json.loads((DATA / "modules.json").read_text())
    (directory / "runners").mkdir(parents=True)
    for name in told["runners"]:
        (directory / "runners" / name).write_text("#!/bin/sh\n")
    for name, schemas in told["modules"].items():
        meta = {"summary": name, "description": ["For tests."], **schemas}
        path = directory / f"{name}.meta.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(meta))
        (directory / name).write_text("#!/bin/sh\n")
    return directory


def faults(data: bytes | dict[str, Any], modules: Modules, is_strict: bool = True) -> list[str]:
    """The places of what is wrong with a manifest, sorted, each once; [] if it is fine."""
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    try:
        load(text, modules, is_strict)
    except ManifestError as error:
        return sorted({fault.place for fault in error.faults})
    return []
