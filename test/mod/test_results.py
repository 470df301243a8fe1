"""What a run made is told as it lies there now; what is in an exported tree is not trusted."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from finished import STAGE, write_run
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from osbuild_pika import lifecycle
from osbuild_pika.datadir import data_folder
from osbuild_pika.lifecycle import Journal, LifecycleError
from osbuild_pika.results import (
    MAX_FILES,
    Artifact,
    ResultError,
    collect,
    media_type,
    overview,
    past_durations,
    seconds_between,
)

SCHEMA = json.loads((data_folder("schemas") / "artifacts.schema.json").read_text())


def artifacts(tmp_path: Path, path: Path) -> list[Artifact]:
    found = collect(str(write_run(tmp_path / "run", [path])))
    document = found.as_document()
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(document)))
    return list(found.artifacts)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def test_files_of_an_export_are_artifacts(tmp_path: Path, out: Path) -> None:
    (out / "b.tar").write_bytes(b"tar")
    (out / "a.squashfs").write_bytes(b"")
    first, second = artifacts(tmp_path, out)
    assert (first.name, first.size_bytes, first.media_type) == (
        "a.squashfs",
        0,
        "application/vnd.squashfs",
    )
    assert (second.path, second.kind) == (str(out / "b.tar"), "file")
    assert second.sha256 == hashlib.sha256(b"tar").hexdigest()


def test_an_exported_file_is_an_artifact(tmp_path: Path, out: Path) -> None:
    (out / "disk.qcow2").write_bytes(b"disk")
    (only,) = artifacts(tmp_path, out / "disk.qcow2")
    assert (only.name, only.size_bytes, only.kind) == ("disk.qcow2", 4, "file")


@pytest.mark.parametrize("odd", ["link", "pipe", "directory", "new\nline", b"\xff", "many", "none"])
def test_a_tree_is_one_artifact(odd: Any, tmp_path: Path, out: Path) -> None:
    makers: dict[Any, Any] = {
        "link": lambda: (out / "link").symlink_to("/etc/passwd"),
        "pipe": lambda: os.mkfifo(out / "pipe"),
        "directory": lambda: (out / "usr").mkdir(),
        "many": lambda: [Path(out, str(n)).write_text("") for n in range(MAX_FILES)],
        "none": lambda: (out / "file").unlink(),
    }
    (out / "file").touch()
    make = makers.get(odd, lambda: Path(out, os.fsdecode(odd)).touch())
    make()
    (only,) = artifacts(tmp_path, out)
    assert (only.kind, only.path) == ("directory", str(out))
    assert (only.size_bytes, only.sha256) == (None, None)


def test_64_files_are_64_artifacts(tmp_path: Path, out: Path) -> None:
    for number in range(MAX_FILES):
        (out / str(number)).touch()
    assert len(artifacts(tmp_path, out)) == MAX_FILES


@pytest.mark.parametrize(("kind", "target"), [("missing", None), ("other", "/etc"), ("other", "x")])
def test_what_is_no_export_any_more_is_said(kind: str, target: Any, tmp_path: Path) -> None:
    place = tmp_path / "image"
    if target:
        place.symlink_to(target)
    (only,) = artifacts(tmp_path, place)
    assert (only.kind, only.sha256) == (kind, None)


def test_all_that_the_engine_wrote_is_told(tmp_path: Path) -> None:
    found = collect(str(write_run(tmp_path / "run", [])))
    assert found.manifest == "hello.json"
    assert vars(found.stages[0]) == STAGE
    assert found.sources[0].items == 2
    seen = found.overview
    assert (seen.run_id, seen.state, seen.success, seen.exit_code) == ("run", "completed", True, 0)
    assert seen.duration_s is not None


def test_a_run_without_an_engine_has_its_overview(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write_status("ready", "up")
    found = collect(str(tmp_path))
    assert (found.overview.state, found.overview.success, found.manifest) == ("ready", None, None)
    Draft202012Validator(SCHEMA).validate(found.as_document())


def test_an_empty_directory_is_a_run_that_was_requested(tmp_path: Path) -> None:
    assert overview(str(tmp_path)).state == "requested"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"stages": [{}]}', '{"exports": 3}', '{"exports": [null]}'],
)
def test_a_damaged_build_json_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text(text)
    with pytest.raises(ResultError, match=r"build\.json: (is no|has not the engine's form)"):
        collect(str(tmp_path))


def test_a_build_json_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    path.symlink_to("/etc/passwd")
    with pytest.raises(ResultError):
        collect(str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ResultError, match="not a regular file"):
        collect(str(tmp_path))


@pytest.mark.parametrize("name", ["run.json", "status.json", "result.json"])
def test_a_pipe_in_a_documents_place_does_not_block(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with contextlib.suppress(LifecycleError):
        assert overview(str(tmp_path)).started_at is None


def test_a_fingerprint_is_passed_on(tmp_path: Path, out: Path) -> None:
    (out / "incus.tar.xz").write_bytes(b"x")
    export = {"pipeline": "image", "id": None, "path": str(out), "fingerprint": "f" * 64}
    run = write_run(tmp_path / "run", [], {"exports": [export]})
    document = collect(str(run)).as_document()
    assert document["artifacts"][0]["fingerprint"] == "f" * 64
    Draft202012Validator(SCHEMA).validate(document)


def test_the_schema_is_one_and_knows_the_states() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["state"]["enum"] == list(lifecycle.STATES)


def test_the_schema_names_what_is_written(tmp_path: Path, out: Path) -> None:
    (out / "file").touch()
    document = collect(str(write_run(tmp_path / "run", [out]))).as_document()
    assert set(document) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    for name in ("artifacts", "stages", "sources"):
        item = SCHEMA["properties"][name]["items"]
        assert set(document[name][0]) == set(item["required"])
        assert set(item["properties"]) - set(item["required"]) <= {"fingerprint"}


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T01:01:01+01:00", 61.0),
        ("2026-01-01T00:00:01Z", "2026-01-01T00:00:00.5Z", 0.0),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", None),
        ("2026-01-01T00:00:00Z", "soon", None),
        (None, "2026-01-01T00:00:00Z", None),
    ],
)
def test_durations_need_two_times(start: Any, end: Any, seconds: float | None) -> None:
    assert seconds_between(start, end) == seconds


@given(st.text())
def test_every_name_has_a_media_type(name: str) -> None:
    assert "/" in media_type(name)


def test_past_durations_are_those_of_the_newest_run(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new", "cached", "torn")):
        stage = {**STAGE, "duration_s": float(number), "is_cached": name == "cached"}
        run = write_run(tmp_path / name, [], {"stages": [stage]})
        os.utime(run / "build.json", (number, number))
    (tmp_path / "torn/build.json").write_text("{")
    assert past_durations(str(tmp_path)) == {"1": 1.0, "org.osbuild.tar": 1.0}
    assert past_durations(str(tmp_path / "none")) == {}
