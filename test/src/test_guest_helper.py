"""nix/incus/pika-cloud-lifecycle.py.in is lifecycle.py; what runs in a guest needs nothing else."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELPER = ROOT / "nix/incus/pika-cloud-lifecycle.py.in"
SOURCE = ROOT / "osbuild_pika/lifecycle.py"
REPORTER = ROOT / "osbuild_pika/inside/guestreport.py"
OLDEST_PYTHON = (3, 9)


def test_there_is_one_implementation() -> None:
    assert HELPER.read_bytes() == SOURCE.read_bytes()


def test_the_first_line_is_what_the_package_substitutes() -> None:
    lines = SOURCE.read_text().split("\n")
    assert lines[0] == "#!@python3@"
    assert not [line for line in lines[1:] if "@python3@" in line]


@pytest.mark.parametrize("source", [SOURCE, REPORTER], ids=lambda path: path.name)
def test_it_imports_the_standard_library_only(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=OLDEST_PYTHON)
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("python", ["python3.9", sys.executable])
def test_it_runs_alone_without_an_environment(python: str, tmp_path: Path) -> None:
    interpreter = shutil.which(python)
    runs = interpreter and subprocess.run([interpreter, "-c", ""], check=False).returncode == 0
    if not interpreter or not runs:
        pytest.skip(f"{python} is not installed")
    alone = tmp_path / "alone"
    alone.mkdir()
    helper = shutil.copy(HELPER, alone / "pika-cloud-lifecycle")
    events = tmp_path / "run/pika-cloud/events.jsonl"
    command = [helper, "event", "--events-path", events, "--kind", "ready", "--message", "up"]
    clean = ["env", "-i", interpreter, "-I", "-S", *command]
    subprocess.run(clean, check=True, cwd=alone)
    assert json.loads(events.read_text())["seq"] == 1
