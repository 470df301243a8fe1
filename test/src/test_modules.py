"""Every module executable is one: it runs, it is described, and the linters look at it."""

import ast
import configparser
import stat
import sys
from pathlib import Path

import pytest
from jsonschema import Draft4Validator
from modules import FOLDERS, executables, meta

ROOT = Path(__file__).parents[2]
MODULES = [path for folder in FOLDERS for path in executables(folder)]
# Without upstream's package and without ours installed, a module of the host starts all the same.
NAMESAKES = ("inputs/org.osbuild.noop", "mounts/org.osbuild.noop")  # of a stage
ALLOWED = sys.stdlib_module_names | {"osbuild_pika"}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_it_can_be_run(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
    first = path.read_bytes().split(b"\n")[0]
    # -S: who starts it says where the package is, and site costs 5 ms.
    assert first in (b"#!/usr/bin/python3", b"#!/usr/bin/python3 -S")
    assert path.parent.name != "stages" or first.endswith(b" -S")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_it_is_thin_and_needs_the_standard_library_only(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 90
    names = {
        str(alias.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= ALLOWED


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_it_is_described_in_upstreams_form(path: Path) -> None:
    found = meta(path)
    assert set(found) - {"capabilities"} <= {"summary", "description", "schema", "schema_2"}
    assert all(isinstance(line, str) for line in found["description"])
    for key in {"schema", "schema_2"} & set(found):
        Draft4Validator.check_schema(found[key])


def test_mypy_looks_at_all_of_them() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["mypy"]["files"].replace("\n", "").split(",")
    seen = {path for pattern in patterns for path in ROOT.glob(pattern.strip())}
    assert set(MODULES) - seen == {path for path in MODULES if name_of(path) in NAMESAKES}
    assert not [path for path in seen if path.name.endswith(".meta.json")]
