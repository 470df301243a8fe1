"""A manifest that was found valid is not checked against its schemas again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.engine import known, schema
from osbuild_pika.engine.known import Known
from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import Modules
from osbuild_pika.errors import ManifestError


def manifest(stage: str = "org.test.a", **options: Any) -> bytes:
    stages = [{"type": stage, "options": options}]
    return json.dumps({"version": "2", "pipelines": [{"name": "x", "stages": stages}]}).encode()


def module(directory: Path, name: str = "org.test.a", **properties: Any) -> None:
    (directory / "stages").mkdir(exist_ok=True)
    (directory / "stages" / name).write_text("")
    options = {"type": "object", "properties": properties, "additionalProperties": False}
    meta = {"summary": "", "description": [], "schema_2": {"options": options}}
    (directory / "stages" / f"{name}.meta.json").write_text(json.dumps(meta))


@pytest.fixture(name="checks")
def fixture_checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each check."""
    found: list[int] = []
    check = schema.check_structure

    def counting(document: Any) -> schema.Structure:
        found.append(1)
        return check(document)

    monkeypatch.setattr(schema, "check_structure", counting)
    return found


def read(tmp_path: Path, data: bytes, is_strict: bool = True) -> Known:
    """Load a manifest as a build does."""
    found = Known(str(tmp_path / "store"))
    load(data, Modules([tmp_path]), is_strict, found)
    return found


def test_a_valid_manifest_is_checked_once(tmp_path: Path, checks: list[int]) -> None:
    module(tmp_path)
    first = read(tmp_path, manifest())
    assert not (tmp_path / "store").exists()
    first.keep()
    read(tmp_path, manifest()).keep()
    assert len(checks) == 1
    assert len(list((tmp_path / "store/valid").iterdir())) == 1


def test_another_manifest_schema_or_strictness_is_checked(
    tmp_path: Path, checks: list[int]
) -> None:
    module(tmp_path, a={"type": "integer"}, b={"type": "integer"})
    read(tmp_path, manifest(a=1)).keep()
    read(tmp_path, manifest(b=1)).keep()
    read(tmp_path, manifest(a=1), is_strict=False).keep()
    assert len(checks) == 3
    module(tmp_path, a={"type": "string"})
    with pytest.raises(ManifestError):
        read(tmp_path, manifest(a=1))
    (tmp_path / "stages/org.test.a").unlink()
    (tmp_path / "stages/org.test.a.meta.json").unlink()
    with pytest.raises(ManifestError):
        read(tmp_path, manifest(a=1))


def test_a_bad_manifest_is_not_kept(tmp_path: Path) -> None:
    module(tmp_path)
    found = Known(str(tmp_path / "store"))
    with pytest.raises(ManifestError):
        load(manifest(a=1), Modules([tmp_path]), known=found)
    found.keep()
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    module(tmp_path)
    (tmp_path / "store").write_text("a file")
    read(tmp_path, manifest()).keep()
    assert (tmp_path / "store").read_text() == "a file"


def test_not_more_than_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MANY", 3)
    module(tmp_path, a={})
    for number in range(5):
        read(tmp_path, manifest(a=number)).keep()
    assert len(list((tmp_path / "store/valid").iterdir())) == 2


def test_a_torn_note_does_not_count(tmp_path: Path, checks: list[int]) -> None:
    module(tmp_path)
    read(tmp_path, manifest()).keep()
    (note,) = (tmp_path / "store/valid").iterdir()
    for content in (b"", note.read_bytes()[:-1], note.read_bytes() + b"x", b"0" * 65):
        note.write_bytes(content)
        read(tmp_path, manifest())
    assert len(checks) == 5


def test_notes_of_other_manifests_do_not_count(tmp_path: Path) -> None:
    module(tmp_path, a={"type": "integer"})
    read(tmp_path, manifest(a=1)).keep()
    with pytest.raises(ManifestError):
        read(tmp_path, manifest(a="one"))
    assert len(list((tmp_path / "store/valid").iterdir())) == 1


def test_code_that_checks_otherwise_checks_again(
    tmp_path: Path, checks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path)
    read(tmp_path, manifest()).keep()
    monkeypatch.setattr(known, "_CHECKING", ("rules.py", "load.py"))
    known._code.cache_clear()  # as in another process
    read(tmp_path, manifest())
    known._code.cache_clear()
    assert len(checks) == 2


@pytest.fixture(name="entries")
def fixture_entries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the value of `a` of each entry that is checked, cut."""
    found: list[str] = []
    check = schema.EntryCheck.__call__

    def noting(self: schema.EntryCheck, module: Any, entry: schema.Entry) -> Any:
        found.append(str(entry.value.get("options", {}).get("a"))[:5])
        return check(self, module, entry)

    monkeypatch.setattr(schema.EntryCheck, "__call__", noting)
    return found


def with_large(large: object, small: object) -> bytes:
    """A manifest of two stages."""
    stages = [{"type": "org.test.a", "options": {"a": each}} for each in (large, small)]
    return json.dumps({"version": "2", "pipelines": [{"name": "x", "stages": stages}]}).encode()


def test_a_large_entry_is_checked_once_whatever_stands_beside_it(
    tmp_path: Path, entries: list[str]
) -> None:
    module(tmp_path, a={"type": "string"})
    for small in ("one", "two", "three"):
        read(tmp_path, with_large("large" * 1000, small)).keep()
    assert entries == ["large", "one", "two", "three"]


def test_a_large_entry_of_another_schema_is_checked_again(tmp_path: Path) -> None:
    module(tmp_path, a={"type": "string"})
    read(tmp_path, with_large("large" * 1000, "one")).keep()
    module(tmp_path, a={"type": "string", "maxLength": 10})
    with pytest.raises(ManifestError, match="too long"):
        read(tmp_path, with_large("large" * 1000, "two"))


def test_a_large_entry_of_a_bad_manifest_is_not_noted(tmp_path: Path) -> None:
    module(tmp_path, a={"type": "string"})
    for _ in range(2):
        with pytest.raises(ManifestError) as caught:
            read(tmp_path, with_large("large" * 1000, 1)).keep()
        assert len(caught.value.faults) == 1
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, with_large(["large" * 1000], "one")).keep()
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "store").exists()


def test_what_no_schema_says_is_refused_of_known_manifests_too(tmp_path: Path) -> None:
    """Rules and names are looked at each time: only schemas are expensive."""
    module(tmp_path)
    data = manifest()
    read(tmp_path, data, is_strict=True).keep()
    twice = data.replace(b'"version"', b'"version": "2", "version"', 1)
    with pytest.raises(ManifestError, match="more than once"):
        read(tmp_path, twice)
