"""Incus images by whole builds: metadata, a guest's tree, the linter, and both formats."""

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import Place, sh
from click.testing import CliRunner

from osbuild_pika.cli.verbs import osbuild_pika

EPOCH = 1_700_000_000
GUEST = """
mkdir -p etc usr/sbin root var/empty
ln -s usr/sbin sbin
printf '#!/bin/sh\\n' > usr/sbin/init
chmod 4755 usr/sbin/init
chown 1000:1000 var/empty
echo 'root:*:19000:0:99999:7:::' > etc/shadow
chmod 640 etc/shadow
setfacl -m u:1000:r etc/shadow
"""
METADATA = {
    "architecture": "amd64",
    "creation_date": EPOCH,
    "properties": {"os": "Debian", "variant": "web"},
}
UNIFIED = {"filename": "web.tar.zst", "compression": {"method": "zstd", "level": 3}}
SPLIT = {"format": "split", "metadata": "web-metadata.tar.zst", "rootfs": "web.squashfs"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    builds.needs_root()
    return Place(tmp_path)


def tree_of(pipeline: str) -> dict[str, Any]:
    given = {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline"}
    return {**given, "references": [f"name:{pipeline}"]}


def stage(name: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": f"org.osbuild-pika.{name}", "options": options, **more}


def manifest(
    options: dict[str, Any], guest: str = GUEST, metadata: dict[str, Any] = METADATA, **lint: Any
) -> dict[str, Any]:
    inputs = {"metadata": tree_of("metadata"), "rootfs": tree_of("rootfs")}
    made = builds.manifest(
        stage("incus.pack", options, inputs=inputs),
        rootfs=[sh(guest), stage("lint", lint)],
        metadata=[stage("incus.metadata", metadata)],
    )
    for pipeline in made["pipelines"]:
        pipeline["source-epoch"] = EPOCH
    return made


def told(place: Place, name: str) -> list[dict[str, Any]]:
    """The events of the run of a kind."""
    lines = (place.path / "runs/test/events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if name in json.dumps(event)]


def check(*paths: Path) -> tuple[int, str]:
    done = CliRunner().invoke(osbuild_pika, ["check", *map(str, paths)])
    return done.exit_code, done.stdout


def test_a_unified_image_is_built_and_has_no_fault(place: Place) -> None:
    code, records = place.build(manifest(UNIFIED))
    assert code == 0, records
    output = place.output / "web.tar.zst"
    fingerprint = hashlib.sha256(output.read_bytes()).hexdigest()
    assert told(place, fingerprint)
    assert check(output) == check(place.output)
    assert check(output)[0] == 0, check(output)[1]
    plain = subprocess.run(["zstd", "-dcq", output], capture_output=True, check=True).stdout
    (place.path / "plain.tar").write_bytes(plain)
    with tarfile.open(place.path / "plain.tar") as archive:
        found = {each.name: (each.mode, each.uid, each.gid) for each in archive}
        times = {each.mtime for each in archive}
        content = archive.extractfile("metadata.yaml")
        assert content is not None
        metadata = json.load(content)
    assert next(iter(found)) == "metadata.yaml"
    assert {name for name in found if name.startswith("templates/")} == {
        "templates/hostname.tpl",
        "templates/hosts.tpl",
    }
    assert found["metadata.yaml"] == (0o644, 0, 0)
    assert found["rootfs/usr/sbin/init"] == (0o4755, 0, 0)
    assert found["rootfs/var/empty"][1:] == (1000, 1000)
    assert max(times) == EPOCH
    assert (metadata["architecture"], metadata["creation_date"]) == ("x86_64", EPOCH)


def test_a_split_image_is_built_and_has_no_fault(place: Place) -> None:
    code, records = place.build(manifest(SPLIT))
    assert code == 0, records
    parts = [place.output / "web-metadata.tar.zst", place.output / "web.squashfs"]
    fingerprint = hashlib.sha256(b"".join(each.read_bytes() for each in parts)).hexdigest()
    assert len(told(place, fingerprint)) >= 2
    assert told(place, "those of etc/shadow are left out")
    assert check(*parts)[0] == 0, check(*parts)[1]
    assert check(place.output)[0] == 0


@pytest.mark.parametrize("options", [UNIFIED, SPLIT], ids=["unified", "split"])
def test_two_stores_make_the_same_image(options: dict[str, Any], tmp_path: Path) -> None:
    builds.needs_root()
    found = []
    for number, is_copied in enumerate((False, True)):
        (tmp_path / str(number)).mkdir()
        other = Place(tmp_path / str(number))
        code, records = other.build(manifest(options), is_copied=is_copied)
        assert code == 0, records
        found.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in other.output.iterdir()
            }
        )
    assert found[0] == found[1]


def test_a_faulty_tree_fails_the_build_with_its_findings(place: Place) -> None:
    what = manifest(
        UNIFIED, f"{GUEST}\necho '/dev/sda / ext4' > etc/fstab; mkdir proc; touch proc/x"
    )
    code, records = place.build(what)
    assert code == 1
    text = json.dumps(records)
    assert "[fstab] (and 1 more errors)" in text
    assert len(told(place, '"code": "volatile"')) == 1


def test_what_is_allowed_does_not_fail_the_build(place: Place) -> None:
    what = manifest(UNIFIED, f"{GUEST}\necho '/dev/sda / ext4' > etc/fstab", allow=["fstab"])
    code, records = place.build(what)
    assert code == 0, records


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "sparc99"}, "metadata.yaml: architecture: 'sparc99' is unknown"),
        (
            {"templates": {"/etc/x": {"when": ["start"], "template": "no.tpl"}}},
            "templates./etc/x.template: templates/no.tpl is not in the image",
        ),
        (
            {"templates": {"/etc/x": {"when": ["start"], "content": "{{ x"}}},
            "templates/etc-x.tpl: line 1: '{{' is not closed",
        ),
    ],
)
def test_faulty_metadata_fails_the_build(change: dict[str, Any], said: str, place: Place) -> None:
    code, records = place.build(manifest(UNIFIED, metadata={**METADATA, **change}))
    assert code == 1
    assert said in json.dumps(records, ensure_ascii=False)


@pytest.mark.parametrize(
    "options",
    [
        {"filename": "x.tar", "compression": {"method": "xz", "level": 19}},
        {"filename": "x.tar", "rootfs": "y"},
        {"format": "split", "metadata": "x"},
        {"format": "split", "filename": "x"},
        {},
    ],
)
def test_options_that_contradict_each_other_are_no_manifest(
    options: dict[str, Any], place: Place
) -> None:
    code, _ = place.build(manifest(options))
    assert code == 2
