"""Modules are found, read and described as upstream does."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.engine.modules import Modules, host_distribution, load_module

DATA = Path(__file__).parents[1] / "data/osbuild"
RECORDS: dict[str, dict[str, Any]] = json.loads((DATA / "schemas.json").read_text())
OWN = sorted(name for name in RECORDS if name.startswith("own-"))
UPSTREAM = sorted(RECORDS.keys() - set(OWN))
# Upstream prints a warning, or dies with a traceback; ours is a module with a fault.
FAULTY = {
    "own-meta-bad-json": "JSONDecodeError: Expecting property name",
    "own-meta-capabilities-string": "missing, wrong or unknown: capabilities",
    "own-meta-description-string": "missing, wrong or unknown: description",
    "own-meta-extra": "missing, wrong or unknown: author",
    "own-meta-no-schema": "neither schema nor schema_2",
    "own-meta-no-summary": "missing, wrong or unknown: summary",
    "own-mount-no-properties": "its schema has no properties",
    "own-mount-schema-only": "it has no schema_2",
    "own-source-none": "it has no schema",
    "own-stage-not-python": "SyntaxError: ",
    "own-stage-python-bad-json": "JSONDecodeError: Expecting value",
}
META = {"summary": "s", "description": ["d"], "schema": {}}


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def without_texts(schema: Any) -> Any:
    """A schema without its descriptions, which mean nothing to a validator."""
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if isinstance(schema, dict):
        return {
            key: without_texts(value)
            for key, value in schema.items()
            if key != "description" or not isinstance(value, str)
        }
    return schema


def test_every_record_is_met() -> None:
    assert (len(OWN), len(UPSTREAM)) == (37, 6)
    assert set(OWN) > FAULTY.keys()


@pytest.mark.parametrize("name", [name for name in OWN if RECORDS[name].get("effective_schema")])
def test_a_recorded_module_has_the_recorded_schema(name: str, tmp_path: Path) -> None:
    record = RECORDS[name]
    module = Modules([write(tmp_path, record["files"])]).find(record["kind"], record["module"])
    assert module is not None
    assert (module.fault, module.schema) == ("", record["effective_schema"])
    assert sorted(module.capabilities) == record["capabilities"]


@pytest.mark.parametrize("name", FAULTY)
def test_a_recorded_bad_module_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    record = RECORDS[name]
    assert record.get("effective_schema") is None
    module = Modules([write(tmp_path, record["files"])]).find(record["kind"], record["module"])
    assert module is not None
    assert module.schema is None
    assert FAULTY[name] in module.fault


def test_a_module_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert RECORDS["own-stage-absent"]["effective_schema"] is None
    assert Modules([tmp_path, tmp_path / "gone"]).find("stages", "org.example.absent") is None


@pytest.mark.parametrize("name", UPSTREAM)
def test_upstreams_modules_have_the_recorded_schema(name: str) -> None:
    source = os.environ.get("OSBUILD_SOURCE")
    if not source:
        pytest.skip("OSBUILD_SOURCE names no checkout of upstream")
    module = Modules([Path(source)]).find(RECORDS[name]["kind"], RECORDS[name]["module"])
    assert module is not None
    assert without_texts(module.schema) == RECORDS[name]["effective_schema"]


@pytest.mark.parametrize("name", UPSTREAM)
def test_schemas_like_upstreams_are_put_together_as_recorded(name: str, tmp_path: Path) -> None:
    kind, module_name = RECORDS[name]["kind"], RECORDS[name]["module"]
    wanted = RECORDS[name]["effective_schema"]
    parts: dict[str, Any] = {
        "stages": {"schema_2": _without(wanted.get("properties"), "type")},
        "devices": {"schema": (wanted.get("properties") or {}).get("options")},
    }
    told = parts.get(kind, {"schema_2": _without(wanted, "title")})
    text = json.dumps({"summary": "s", "description": ["d"], **told})
    write(tmp_path, {f"{kind}/{module_name}.meta.json": text})
    module = Modules([tmp_path]).find(kind, module_name)
    assert module is not None
    assert module.schema == wanted


def _without(mapping: dict[str, Any] | None, key: str) -> dict[str, Any]:
    return {name: value for name, value in (mapping or {}).items() if name != key}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../stages/x", "a/b", "/x", "x\0", "x\n", ".x", "ü", "x" * 300]
)
def test_a_name_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"stages/x.meta.json": json.dumps(META), "a/b": ""})
    assert Modules([tmp_path]).find("stages", name) is None


def test_the_first_directory_that_has_a_module_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "1", {"stages/both": "CAPABILITIES = ['CAP_A']"})
    write(first, {"stages/broken.meta.json": "{"})
    last = write(tmp_path / "2", {f"stages/{name}": "" for name in ("both", "broken", "last")})
    modules = Modules([first, last])
    found = {name: modules.find("stages", name) for name in ("both", "broken", "last")}
    assert [module.directory for module in found.values() if module] == [first, first, last]
    assert found["broken"]
    assert found["broken"].schema is None
    assert found["both"]
    assert found["both"].capabilities == {"CAP_A"}
    assert found["both"].executable == first / "stages/both"


def test_a_digest_changes_with_the_executable_and_with_the_meta_json(tmp_path: Path) -> None:
    versions = [
        {"stages/x": "1", "stages/x.meta.json": json.dumps(META)},
        {"stages/x": "2", "stages/x.meta.json": json.dumps(META)},
        {"stages/x": "2", "stages/x.meta.json": json.dumps({**META, "schema": {"a": 1}})},
    ]
    module = load_module(tmp_path, "stages", "x")
    digests = []
    for files in versions:
        write(tmp_path, files)
        digests.append(module.digest())
    (tmp_path / "stages/x.meta.json").unlink()
    digests.append(module.digest())
    assert len(set(digests)) == 4
    assert {len(digest) for digest in digests} == {64}
    shutil.rmtree(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        module.digest()


@pytest.mark.parametrize(
    "source", ["CAPABILITIES = 5", "CAPABILITIES = [f()]", "CAPABILITIES = [1]", "SCHEMA = 5", "\0"]
)
def test_odd_python_is_a_fault(source: str, tmp_path: Path) -> None:
    module = Modules([write(tmp_path, {"stages/x": source})]).find("stages", "x")
    assert module is not None
    assert module.fault


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("org.osbuild.fedora39", "org.osbuild.fedora38"),
        ("org.osbuild.fedora38", "org.osbuild.fedora38"),
        ("org.osbuild.fedora37", "org.osbuild.fedora30"),
        ("org.osbuild.fedora12", None),
        ("org.osbuild.debian12", "org.osbuild.debian"),
        ("org.osbuild.plan9", None),
        ("", None),
    ],
)
def test_a_runner_is_the_newest_that_is_not_too_new(
    wanted: str, found: str | None, tmp_path: Path
) -> None:
    names = ("fedora30", "fedora38", "debian", "fedora-asahi-remix")
    write(tmp_path, {f"runners/org.osbuild.{name}": "" for name in names})
    assert Modules([tmp_path, tmp_path / "gone"]).runner(wanted) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "org.osbuild.debian12"),
        ("# ID=x\nVERSION_ID='22.04'\nID=\"ubuntu\"\nNAME='open\n", "org.osbuild.ubuntu2204"),
        ("", "org.osbuild.linux"),
    ],
)
def test_the_hosts_distribution_is_told_by_os_release(text: str, name: str) -> None:
    assert host_distribution(text) == name
