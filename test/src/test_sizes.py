"""Modules, functions and parameter lists stay small; exceptions stand in decisions.md by name."""

import ast
from pathlib import Path

import pytest
from modules import FOLDERS, executables

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/explanation/decisions.md"
MODULE_LINES = 350
FUNCTION_LINES = 40
PARAMETERS = 5
LARGER_MODULES = {"osbuild_pika/lifecycle.py": 1440}
SOURCES = sorted(
    path
    for folder in ("osbuild_pika", "bench", "test", "examples")
    for path in (ROOT / folder).rglob("*.py")
) + [path for folder in FOLDERS for path in executables(folder)]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    limit = LARGER_MODULES.get(name_of(path), MODULE_LINES)
    assert len(path.read_text().split("\n")) - 1 <= limit


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_function_holds_one_idea(path: Path) -> None:
    long = [
        function.name
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES
    ]
    assert not long
    if not name_of(path).startswith("test/"):
        assert not [f.name for f in functions(path) if parameters(f) > PARAMETERS]


@pytest.mark.parametrize("name", LARGER_MODULES)
def test_an_exception_is_argued(name: str) -> None:
    assert name in DECISIONS.read_text()
