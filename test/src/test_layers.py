"""Imports point down only: the rungs of docs/explanation/architecture.md."""

import sys
from pathlib import Path

from syntax import imports

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


def units_imported(path: Path) -> set[str]:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("osbuild_pika.")}
    return ours - {unit(path)}


def rung(name: str) -> int:
    places = [index for index, names in enumerate(RUNGS) if name in names]
    assert places, f"{name} is on no rung: put it on one, here and in the architecture"
    return places[0]


def test_imports_point_down() -> None:
    package = PACKAGE / "__init__.py"
    assert not units_imported(package)
    wrong = [
        f"{path}: may not import {name}"
        for path in MODULES
        if path != package
        for name in sorted(units_imported(path))
        if rung(name) <= rung(unit(path))
    ]
    assert not wrong


def test_what_runs_in_guests_needs_the_standard_library_only() -> None:
    known = sys.stdlib_module_names | {"osbuild_pika"}
    wrong = [
        f"{path}: imports {name}"
        for path in MODULES
        if unit(path) in STANDARD_LIBRARY_ONLY
        for name in imports(path)
        if name.split(".")[0] not in known
    ]
    assert not wrong


def test_the_upstream_name_on_the_index_is_never_imported() -> None:
    assert not [path for path in MODULES if {"osbuild"} & {n.split(".")[0] for n in imports(path)}]


def test_a_template_engine_is_imported_by_one_file_only() -> None:
    found = [path for path in MODULES if "mako" in {n.split(".")[0] for n in imports(path)}]
    assert found == [PACKAGE / "tasks/mako_tasks.py"]


def test_what_is_under_the_gpl_is_imported_by_one_file_only() -> None:
    found = [path for path in MODULES if "pykickstart" in {n.split(".")[0] for n in imports(path)}]
    assert found == [PACKAGE / "image/kickstart.py"]
