"""What the guards of test/src read in our sources; a file is parsed as seldom as possible."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def statements(path: Path, version: tuple[int, int] | None = None) -> Iterator[ast.AST]:
    """All statements of a file, however deep, parsed as a Python of this version."""
    tree = ast.parse(path.read_text(), filename=str(path), feature_version=version)
    todo: list[ast.AST] = [tree]
    for node in todo:
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            below = getattr(node, field, ())
            todo += below if isinstance(below, list) else ()
    yield from todo


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names that a file imports, wherever in it."""
    names: list[str] = []
    for node in statements(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def calls(path: Path, *functions: str) -> list[str]:
    """Where a file calls one of these functions, named as it would name them: `path:line`."""
    text = path.read_text()
    if not any(name.rpartition(".")[2] in text for name in functions):
        return []
    return [
        f"{path}:{node.lineno}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in functions
    ]
