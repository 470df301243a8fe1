"""What runs in a sandbox fits into every build root: Python 3.9 and a handful of our files."""

import ast
from pathlib import Path

import pytest
from modules import executables

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"
INSIDE = [*sorted((PACKAGE / "inside").rglob("*.py")), *executables("stages")]
# Only these of our files are in the sandbox.
CARRIED = {"osbuild_pika.inside", "osbuild_pika.wire", "osbuild_pika.lifecycle"}
OLDEST_PYTHON = (3, 9)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), feature_version=OLDEST_PYTHON)


@pytest.mark.parametrize("path", [*INSIDE, PACKAGE / "wire.py"], ids=lambda path: path.name)
def test_it_parses_as_the_oldest_python(path: Path) -> None:
    # What only fails when it runs is seen by test/mod/test_report_shell.py and test_stage.py.
    imported = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imported for alias in node.names}
    is_plain = path.parent.name == "stages" and " | " not in path.read_text()
    assert "annotations" in names or is_plain or not imported


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.name)
def test_it_imports_only_what_is_carried_along(path: Path) -> None:
    names = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    ours = {name for name in names if name.startswith("osbuild_pika")}
    assert {".".join(name.split(".")[:2]) for name in ours} <= CARRIED
