"""Whole builds with the stages, sources, inputs, devices and mounts that we ship."""

import base64
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import Place, manifest, named

CONTENT = b"hello\n"
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
UUID = "156f0420-627b-4151-ae6f-fda298097515"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    builds.needs_root()
    return Place(tmp_path)


def tree_of(pipeline: str) -> dict[str, Any]:
    given = {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline"}
    return {"tree": {**given, "references": [f"name:{pipeline}"]}}


def stage(name: str, more: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"type": f"org.osbuild.{name}", "options": options, **(more or {})}


def loop(name: str, filename: str) -> dict[str, Any]:
    device = {"type": "org.osbuild.loopback", "options": {"filename": filename}}
    return {"devices": {name: device}}


FILES = {
    "type": "org.osbuild.files",
    "origin": "org.osbuild.source",
    "references": [CHECKSUM],
}
OS = [
    stage("mkdir", paths=[{"path": "/etc", "mode": 0o755}, {"path": "/home"}]),
    stage("hostname", hostname="web"),
    stage(
        "copy",
        {"inputs": {"f": FILES}},
        paths=[{"from": f"input://f/{CHECKSUM}", "to": "tree:///etc/hello"}],
    ),
    stage("chmod", items={"/home": {"mode": "0700"}}),
    stage("ln", paths=[{"target": "etc/hello", "link_name": "tree:///hello", "symbolic": True}]),
]


def images(*stages: dict[str, Any], **pipelines: list[dict[str, Any]]) -> dict[str, Any]:
    """A manifest in which `tree` is made of the tree `os`."""
    data = base64.b64encode(CONTENT).decode()
    items = {CHECKSUM: {"encoding": "base64", "data": data}}
    made = manifest(*stages, os=OS, **pipelines)
    for pipeline in made["pipelines"]:
        pipeline["source-epoch"] = 1_700_000_000
    return {**made, "sources": {"org.osbuild.inline": {"items": items}}}


def test_a_tar_holds_the_tree_as_its_stages_saw_it(place: Place) -> None:
    code, records = place.build(images(stage("tar", {"inputs": tree_of("os")}, filename="a.tar")))
    assert code == 0, records
    with tarfile.open(place.output / "a.tar") as tar:
        facts = {each.name: (each.uid, each.gid, each.mode) for each in tar.getmembers()}
        assert facts["./etc/hello"] == (0, 0, 0o644)
        assert facts["./home"] == (0, 0, 0o700)
        assert tar.extractfile("./etc/hello").read() == CONTENT  # type: ignore[union-attr]
        assert tar.getmember("./hello").linkname == "etc/hello"


@pytest.mark.parametrize("is_copied", [False, True], ids=["overlay", "copies"])
def test_two_builds_make_the_same_bytes(is_copied: bool, tmp_path: Path) -> None:
    builds.needs_root()
    what = images(
        stage("tar", {"inputs": tree_of("os")}, filename="a.tar"),
        stage("squashfs", {"inputs": tree_of("os")}, filename="a.squashfs"),
    )
    found = []
    for number, copied in enumerate((False, is_copied)):
        (tmp_path / str(number)).mkdir()
        other = Place(tmp_path / str(number))
        code, records = other.build(what, is_copied=copied)
        assert code == 0, records
        names = ("a.tar", "a.squashfs")
        found.append([hashlib.sha256((other.output / n).read_bytes()).digest() for n in names])
    assert found[0] == found[1]


def test_an_ext4_image_is_made_and_filled_through_a_loop_device(place: Place) -> None:
    copy = {"inputs": tree_of("os"), **loop("root", "disk.img")}
    mounts = [{"name": "root", "type": "org.osbuild.ext4", "source": "root", "target": "/"}]
    code, records = place.build(
        images(
            stage("truncate", filename="disk.img", size="16M"),
            stage("mkfs.ext4", loop("device", "disk.img"), uuid=UUID, label="root"),
            stage(
                "copy",
                {**copy, "mounts": mounts},
                paths=[{"from": "input://tree/", "to": "mount://root/"}],
            ),
        )
    )
    assert code == 0, records
    image = place.output / "disk.img"
    assert (
        subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False).returncode == 0
    )
    listed = subprocess.run(
        ["debugfs", "-R", "ls -l /etc", image], capture_output=True, text=True, check=True
    ).stdout
    owners = {line.split()[-1]: line.split()[3:5] for line in listed.splitlines() if line.split()}
    assert owners["hello"] == ["0", "0"]
    assert owners["hostname"] == ["0", "0"]
    used = subprocess.run(["losetup", "--list", "--json"], capture_output=True, check=True).stdout
    assert str(place.path) not in used.decode()


def test_a_source_of_wrong_content_stops_before_any_stage(place: Place) -> None:
    what = images(stage("noop", {"inputs": tree_of("os")}))
    item = what["sources"]["org.osbuild.inline"]["items"]
    item[CHECKSUM]["data"] = base64.b64encode(b"other").decode()
    code, records = place.build(what)
    assert code == 3
    assert CHECKSUM in records[-1]["message"]
    assert not named(records, "stage.started")
    names = {path.name for path in place.path.glob("store/sources/*/*")}
    assert CHECKSUM not in names
    assert json.loads((place.path / "runs/test/result.json").read_text())["exit_code"] == 3
