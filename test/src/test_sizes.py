"""Modules, functions and parameter lists stay small; exceptions stand in decisions.md by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from modules import FOLDERS, executables
from syntax import statements

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
    return [node for node in statements(path) if isinstance(node, Function)]


def parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_can_be_read_in_one_sitting() -> None:
    lines = {name_of(path): len(path.read_text().split("\n")) - 1 for path in SOURCES}
    assert not [
        f"{name}: {count} lines"
        for name, count in lines.items()
        if count > LARGER_MODULES.get(name, MODULE_LINES)
    ]


def faults(path: Path, function: Function) -> Iterator[str]:
    """What is wrong with a function, with its place."""
    place = f"{name_of(path)}:{function.lineno}: {function.name}"
    if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES:
        yield f"{place} is longer than {FUNCTION_LINES} lines"
    if parameters(function) > PARAMETERS and not name_of(path).startswith("test/"):
        yield f"{place} has more than {PARAMETERS} parameters"


def test_a_function_holds_one_idea() -> None:
    found = ((path, function) for path in SOURCES for function in functions(path))
    assert not [fault for path, function in found for fault in faults(path, function)]


@pytest.mark.parametrize("name", LARGER_MODULES)
def test_an_exception_is_argued(name: str) -> None:
    assert name in DECISIONS.read_text()
