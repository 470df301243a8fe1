"""Imports point down only: the rungs of docs/explanation/architecture.md."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"
RUNGS = (
    {"cli", "web", "fleet"},
    {"participant"},
    {"products"},
    {"pipeline", "tasks"},
    {"engine", "upstream", "image", "incus", "service_managers"},
    {"monitor", "results", "imagefile"},
    {"lifecycle_service"},
    {"devices", "inputs", "mounts", "sources"},
    {"downloads", "loopback"},
    {"host", "buildprocess"},
    {"inside"},
    {"wire", "follow", "text", "verify", "runs"},
    {"lifecycle", "errors", "datadir", "libc"},
)
# They run in guests, in sandboxes, or start often: the standard library only.
STANDARD_LIBRARY_ONLY = {
    "buildprocess",
    "lifecycle",
    "errors",
    "wire",
    "host",
    "devices",
    "downloads",
    "inputs",
    "libc",
    "loopback",
    "mounts",
    "sources",
    "lifecycle_service",
    "runs",
} | {"inside"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The name on the ladder: a module of the package, or one of its packages."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units_imported(path: Path) -> set[str]:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("osbuild_pika.")}
    return ours - {unit(path)}


def rung(name: str) -> int:
    places = [index for index, names in enumerate(RUNGS) if name in names]
    assert places, f"{name} is on no rung: put it on one, here and in the architecture"
    return places[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if unit(path) == "__init__":
        assert not units_imported(path)
        return
    wrong = {name for name in units_imported(path) if rung(name) <= rung(unit(path))}
    assert not wrong, f"{unit(path)} may not import {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_runs_in_guests_needs_the_standard_library_only(path: Path) -> None:
    foreign = {
        name.split(".")[0]
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"osbuild_pika"}
    }
    assert not (foreign and unit(path) in STANDARD_LIBRARY_ONLY), f"{path}: imports {foreign}"


def test_the_upstream_name_on_the_index_is_never_imported() -> None:
    assert not [path for path in MODULES if {"osbuild"} & {n.split(".")[0] for n in imports(path)}]


def test_a_template_engine_is_imported_by_one_file_only() -> None:
    found = [path for path in MODULES if "mako" in {n.split(".")[0] for n in imports(path)}]
    assert found == [PACKAGE / "tasks/mako_tasks.py"]


def test_what_is_under_the_gpl_is_imported_by_one_file_only() -> None:
    found = [path for path in MODULES if "pykickstart" in {n.split(".")[0] for n in imports(path)}]
    assert found == [PACKAGE / "image/kickstart.py"]
