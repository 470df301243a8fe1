"""Manifests are read, printed and refused as upstream's records say; differences are named."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from manifests import DATA, IDS, faults, write_modules

from osbuild_pika.engine.load import load
from osbuild_pika.engine.manifest import Source, describe
from osbuild_pika.engine.modules import Modules, load_module
from osbuild_pika.engine.schema import Entry, EntryCheck
from osbuild_pika.errors import ManifestFault

HOST_RUNNER = "org.osbuild.debian"  # of the machine that the records were made on
INVALID: dict[str, dict[str, Any]] = json.loads((DATA / "invalid.json").read_text())
SCHEMAS: dict[str, dict[str, Any]] = json.loads((DATA / "schemas.json").read_text())
# Of the command line: test_cli_osbuild.py.
OF_ARGUMENTS = {name for name in INVALID if name.startswith("cli-")} | {"missing-file"}
MANIFESTS = sorted(INVALID.keys() - OF_ARGUMENTS)
FIRST = ".pipelines[0]"
STAGE = f"{FIRST}.stages[0]"

# Upstream dies with a traceback, or says no more than "Unsupported manifest format": ours tells
# where it is.
WITHOUT_PATHS = {
    "bad-utf8": ["."],
    "bom": ["."],
    "build-dangling": [f"{FIRST}.build"],
    "build-forward": [f"{FIRST}.build"],
    "build-self": [f"{FIRST}.build"],
    "build-unknown-id": [f"{FIRST}.build"],
    "device-cycle": [f"{STAGE}.devices.a.parent", f"{STAGE}.devices.b.parent"],
    "device-own-parent": [f"{STAGE}.devices.a.parent"],
    "device-unknown-parent": [f"{STAGE}.devices.d.parent"],
    "duplicate-pipelines": [".pipelines[1].name"],
    "empty-file": ["."],
    "input-dangling": [f"{STAGE}.inputs.tree.references[0]"],
    "input-empty-pipeline-mixed": [".pipelines[2].stages[0].inputs.x.references"],
    "input-forward": [f"{STAGE}.inputs.tree.references[0]"],
    "input-unknown-source-ref": [f"{STAGE}.inputs.x.references[0]"],
    "mount-duplicate": [f"{STAGE}.mounts[1].name"],
    "mount-no-name": [f"{STAGE}.mounts[0]"],
    "mount-unknown-source": [f"{STAGE}.mounts[0].source"],
    "not-json": ["."],
    "pipeline-name-list": [f"{FIRST}.name"],
    "pipeline-no-name": [FIRST],
    "pipelines-null": [".pipelines"],
    "pipelines-object": [".pipelines"],
    "runner-too-old": [f"{FIRST}.runner"],
    "runner-unknown": [f"{FIRST}.runner"],
    "stage-empty-type": [STAGE],
    "stage-no-type": [STAGE],
    "stage-type-int": [f"{STAGE}.type"],
    "top-level-array": ["."],
    "top-level-null": ["."],
    "trailing-garbage": ["."],
    "version-int": [".version"],
    "version-unknown": [".version"],
    # Upstream takes format 1, which this is; ours has never read it.
    "accepted-empty-object": ["."],
}
# Upstream and `--inspect` accept it; it is not built.
STRICTER = {
    "accepted-input-name-tail": [f"{STAGE}.inputs"],
    "accepted-input-self": [f"{STAGE}.inputs.tree.references[0]"],
    "accepted-inputs-missing": [f"{STAGE}.inputs"],
    "accepted-options-missing": [f"{STAGE}.options"],
    "accepted-pipeline-name-empty": [f"{FIRST}.name"],
    "accepted-pipeline-name-int": [f"{FIRST}.name"],
    "accepted-pipeline-name-path": [f"{FIRST}.name"],
    "accepted-source-checksum-anywhere": [".sources.org.osbuild.inline.items"],
    "input-self-export": [f"{STAGE}.inputs.tree.references[0]"],
}
# Of the manifests with recorded ids, what of them is not built.
NOT_BUILT = {
    # loopback devices without a file name
    "12-devices": [
        ".pipelines[4].stages[0].devices.disk.options",
        ".pipelines[4].stages[0].devices.empty.options",
    ],
    "13-mounts": [".pipelines[8].stages[0].mounts[0].partition"],  # 2.0
    "15-source-epoch": [".pipelines[3].source-epoch"],  # below 0
    # numbers that are none in JSON, a key that is there twice
    "17-numbers-and-json-corners": [
        ".pipelines[1].stages[0].options.inf",
        ".pipelines[1].stages[0].options.ninf",
        ".pipelines[2].stages[0].options.a",
        ".pipelines[2].stages[0].options.b",
        ".pipelines[2].stages[0].options.c",
        ".pipelines[4].stages[0].options",
    ],
    # references without name:
    "21-dropped-references": [
        ".pipelines[2].stages[0].inputs.tree.references[0]",
        ".pipelines[3].stages[0].inputs.tree.references[0]",
        ".pipelines[5].stages[0].inputs.t.references[1]",
    ],
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return Modules([write_modules(tmp_path_factory.mktemp("modules") / "m")])


def bytes_of(name: str) -> bytes:
    record = INVALID[name]
    if "manifest_base64" in record:
        return base64.b64decode(record["manifest_base64"])
    text: str = record.get("manifest_text") or json.dumps(record.get("manifest", ""))
    return b"" if record.get("manifest_text") == "" else text.encode()


def inspect(data: bytes, modules: Modules) -> str:
    return json.dumps(describe(load(data, modules, is_strict=False), HOST_RUNNER)) + "\n"


def test_every_record_is_here() -> None:
    assert (len(IDS), len(INVALID), len(MANIFESTS)) == (24, 96, 87)
    with_paths = {name for name in MANIFESTS if "paths" in INVALID[name]}
    accepted = {name for name in MANIFESTS if "inspect" in INVALID[name]}
    assert with_paths | WITHOUT_PATHS.keys() | STRICTER.keys() == set(MANIFESTS)
    assert accepted == STRICTER.keys() | {"accepted-empty-object"}


def test_ids_and_what_is_printed_are_upstreams_byte_for_byte(modules: Modules) -> None:
    folders = {name: DATA / "ids" / name for name in IDS}
    printed = {
        name: inspect((folder / "manifest.json").read_bytes(), modules)
        for name, folder in folders.items()
    }
    assert printed == {name: (at / "inspect.json").read_text() for name, at in folders.items()}


def test_what_has_recorded_ids_can_be_built_save_for_what_is_named(modules: Modules) -> None:
    data = {name: (DATA / "ids" / name / "manifest.json").read_bytes() for name in IDS}
    found = {name: faults(each, modules) for name, each in data.items()}
    assert found == {name: NOT_BUILT.get(name, []) for name in IDS}


@pytest.mark.parametrize("is_strict", [False, True])
def test_what_upstream_refuses_is_refused_at_the_same_paths(
    is_strict: bool, modules: Modules
) -> None:
    names = [name for name in MANIFESTS if "paths" in INVALID[name]]
    found = {name: faults(bytes_of(name), modules, is_strict) for name in names}
    places = {
        name: {ManifestFault(tuple(path), "").place for path in INVALID[name]["paths"]}
        for name in names
    }
    assert found == {name: sorted(paths) for name, paths in places.items()}


@pytest.mark.parametrize("is_strict", [False, True])
def test_what_upstream_refuses_without_a_path_has_one(is_strict: bool, modules: Modules) -> None:
    assert [name for name in WITHOUT_PATHS if "paths" in INVALID[name]] == []
    found = {name: faults(bytes_of(name), modules, is_strict) for name in WITHOUT_PATHS}
    assert found == WITHOUT_PATHS


def test_what_upstream_accepts_is_printed_but_not_built(modules: Modules) -> None:
    printed = {name: inspect(bytes_of(name), modules) for name in STRICTER}
    assert printed == {name: INVALID[name]["inspect"] for name in STRICTER}
    assert {name: faults(bytes_of(name), modules) for name in STRICTER} == STRICTER


def test_a_source_has_the_recorded_id() -> None:
    items = INVALID["accepted-source-checksum-anywhere"]["manifest"]["sources"][
        "org.osbuild.inline"
    ]["items"]
    recorded = "d143009bc4d543d7724c9c183352f9ee07934888c9650c72e5ce3d594c584eb4"
    assert Source("org.osbuild.inline", items, {}).id == recorded


@pytest.mark.parametrize("name", [name for name in SCHEMAS if "entry" in SCHEMAS[name]])
def test_an_entry_is_checked_as_recorded(name: str, tmp_path: Path) -> None:
    record = SCHEMAS[name]
    for file, text in record["files"].items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    kind, module_name = record["kind"], record["module"]
    module = load_module(tmp_path, kind, module_name) if record["files"] else None
    found = EntryCheck(is_strict=False)(module, Entry(kind, module_name, record["entry"], ()))
    # Upstream gives the place in the schema as if it were one in the manifest.
    places = [] if name == "own-stage-invalid-schema" else record["error_paths"]
    if name == "own-stage-invalid-schema":
        assert re.match("the schema of .* cannot be used: SchemaError", found.pop().message)
    assert sorted((list(fault.path) for fault in found), key=str) == places
