"""The manifests in a checkout of upstream have the same ids in both engines.

OSBUILD_SOURCE names the checkout; in one of v191 there are 201 of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osbuild_pika.engine.load import load
from osbuild_pika.engine.manifest import describe
from osbuild_pika.engine.modules import Modules, read_host_distribution
from osbuild_pika.errors import ManifestError

SOURCE = os.environ.get("OSBUILD_SOURCE", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SOURCE, reason="OSBUILD_SOURCE names no checkout of upstream"),
]


def is_manifest(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("version") == "2"


def ours(data: bytes, modules: Modules) -> tuple[int, str]:
    host = read_host_distribution()
    try:
        loaded = load(data, modules, is_strict=False)
    except ManifestError:
        return 2, ""
    return 0, json.dumps(describe(loaded, modules.runner(host) or host)) + "\n"


def theirs(path: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "osbuild", "--libdir", SOURCE, "--inspect", str(path)]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout if done.returncode == 0 else ""


def test_inspect_prints_the_same_for_every_manifest() -> None:
    modules = Modules([Path(SOURCE)])
    manifests = [path for path in sorted(Path(SOURCE, "test").rglob("*.json")) if is_manifest(path)]
    assert len(manifests) > 100
    for path in manifests:
        assert ours(path.read_bytes(), modules) == theirs(path), path


def test_every_manifest_that_upstream_takes_can_be_built() -> None:
    modules = Modules([Path(SOURCE)])
    texts = [
        path.read_bytes() for path in Path(SOURCE, "test").rglob("*.json") if is_manifest(path)
    ]
    taken = [text for text in texts if ours(text, modules)[0] == 0]
    assert len(taken) > 100
    assert all(load(text, modules).pipelines for text in taken)
