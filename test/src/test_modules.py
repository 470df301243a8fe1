"""Every module executable is one: it runs, it is described, and the linters look at it."""

import configparser
import stat
import sys
from pathlib import Path

from jsonschema import Draft4Validator
from jsonschema.exceptions import best_match
from modules import FOLDERS, executables, meta
from syntax import imports

ROOT = Path(__file__).parents[2]
MODULES = [path for folder in FOLDERS for path in executables(folder)]
# Without upstream's package and without ours installed, a module of the host starts all the same.
NAMESAKES = ("inputs/org.osbuild.noop", "mounts/org.osbuild.noop")  # of a stage
ALLOWED = sys.stdlib_module_names | {"osbuild_pika"}
SCHEMAS = {"schema", "schema_2"}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_each_can_be_run() -> None:
    first = b"#!/usr/bin/python3"
    # -S: who starts it says where the package is, and site costs 5 ms.
    allowed = {folder: {first, first + b" -S"} for folder in FOLDERS}
    allowed["stages"] = {first + b" -S"}
    assert not [
        path
        for path in MODULES
        if stat.S_IMODE(path.stat().st_mode) & 0o111 != 0o111
        or path.read_bytes().split(b"\n")[0] not in allowed[path.parent.name]
    ]


def test_each_is_thin_and_needs_the_standard_library_only() -> None:
    assert not [path for path in MODULES if len(path.read_text().splitlines()) > 90]
    assert not [
        f"{path}: imports {name}"
        for path in MODULES
        for name in imports(path)
        if name.split(".")[0] not in ALLOWED
    ]


def test_each_is_described_in_upstreams_form() -> None:
    known = SCHEMAS | {"summary", "description", "capabilities"}
    found = {path: meta(path) for path in MODULES}
    assert {path: {*each} - known for path, each in found.items() if not {*each} <= known} == {}
    lines = [(path, line) for path, each in found.items() for line in each["description"]]
    assert [(path, line) for path, line in lines if not isinstance(line, str)] == []


def fault(schema: object) -> str:
    """What makes this no schema, or nothing."""
    found = best_match(Draft4Validator(Draft4Validator.META_SCHEMA).iter_errors(schema))
    return found.message if found else ""


def test_each_schema_is_one() -> None:
    found = {path: meta(path) for path in MODULES}
    schemas = [(path, each[key]) for path, each in found.items() for key in SCHEMAS & {*each}]
    assert len(schemas) >= len(MODULES)
    assert [(path, fault(schema)) for path, schema in schemas if fault(schema)] == []


def test_mypy_looks_at_all_of_them() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["mypy"]["files"].replace("\n", "").split(",")
    seen = {path for pattern in patterns for path in ROOT.glob(pattern.strip())}
    assert set(MODULES) - seen == {path for path in MODULES if name_of(path) in NAMESAKES}
    assert not [path for path in seen if path.name.endswith(".meta.json")]
