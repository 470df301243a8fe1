"""What a build says of its images at its end."""

from __future__ import annotations

import hashlib
import json
import types
from pathlib import Path
from typing import Any, cast

import pytest

from osbuild_pika.cli.measuring import Measuring
from osbuild_pika.errors import InputError
from osbuild_pika.products.published import Output

CONTENT = b"an image"
READ = hashlib.sha256(CONTENT).hexdigest()
TOLD = "5" * 64


def measuring(directory: Path) -> Measuring:
    """Of a build that exported one image and one tree."""
    folder = directory / "incus-unified"
    folder.mkdir()
    (folder / "web.tar.zst").write_bytes(CONTENT)
    (directory / "rootfs").mkdir()
    stages = {
        "rootfs": {"type": "org.osbuild.noop", "options": {}},
        "incus-unified": {
            "type": "org.osbuild-pika.incus.pack",
            "options": {"format": "unified", "filename": "web.tar.zst"},
        },
    }
    pipelines = [{"name": name, "stages": [stage]} for name, stage in stages.items()]
    manifest = json.dumps({"version": "2", "pipelines": pipelines})
    order: Any = types.SimpleNamespace(manifest=manifest, output=str(directory))
    return Measuring(order)


def packed(metadata: object, is_success: bool = True) -> dict[str, Any]:
    return {
        "record": "stage.finished",
        "pipeline": "incus-unified",
        "success": is_success,
        "metadata": metadata,
    }


def exported(directory: Path, name: str) -> dict[str, Any]:
    return {"record": "export.finished", "pipeline": name, "path": str(directory / name)}


def results(directory: Path, *records: dict[str, Any]) -> list[Output | None]:
    sink = measuring(directory)
    for record in (*records, exported(directory, "rootfs"), exported(directory, "incus-unified")):
        sink.take(record)
    found = list(sink.results())
    assert [Path(path).name for path, _ in found] == ["incus-unified", "rootfs"]
    return [image for _, image in found]


def test_what_was_packed_just_now_is_told_as_its_stage_did(tmp_path: Path) -> None:
    image, tree = results(tmp_path, packed({"fingerprint": TOLD}))
    path = str(tmp_path / "incus-unified/web.tar.zst")
    assert image == Output("incus-unified", (path,), len(CONTENT), TOLD)
    assert tree is None


@pytest.mark.parametrize(
    "record",
    [
        {"record": "stage.cached", "pipeline": "incus-unified", "metadata": {"fingerprint": TOLD}},
        packed({"fingerprint": TOLD}, is_success=False),
        packed({"fingerprint": TOLD.upper() + "x"}),
        packed({"fingerprint": 5}),
        packed([TOLD]),
        packed(None),
    ],
)
def test_what_comes_from_the_store_is_read(tmp_path: Path, record: dict[str, Any]) -> None:
    image, _ = results(tmp_path, record)
    assert cast("Output", image).fingerprint == READ


def test_a_stage_behind_the_one_that_told_leaves_another_image(tmp_path: Path) -> None:
    image, _ = results(tmp_path, packed({"fingerprint": TOLD}), packed(None))
    assert cast("Output", image).fingerprint == READ


def test_a_link_in_the_place_of_an_image_is_refused(tmp_path: Path) -> None:
    sink = measuring(tmp_path)
    path = tmp_path / "incus-unified/web.tar.zst"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    sink.take(packed({"fingerprint": TOLD}))
    sink.take(exported(tmp_path, "incus-unified"))
    with pytest.raises(InputError, match=r"web\.tar\.zst"):
        list(sink.results())
