"""Stages that make archives and disks: what they make holds what it should.

What is compared with upstream's own stages needs a checkout of it in OSBUILD_SOURCE.
"""

import os
import re
from pathlib import Path
from typing import Any

import modules
import pytest
from modules import needs, output_of, plant, run, run_upstreams, snapshot


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    return plant(tmp_path)


# --- archives ------------------------------------------------------------------------------------


def packed(tree: Path, name: str, options: Any) -> Path:
    """Pack a planted tree into a file of another one."""
    source = plant(tree.parent / "source")
    assert run(tree, name, options, inputs={"tree": {"path": str(source)}})[0] == 0
    return tree / str(options["filename"])


def names_in(archive: Path) -> list[str]:
    return output_of("tar", "--list", f"--file={archive}").splitlines()


NO_ATTRIBUTES = {"xattrs": False, "acls": False, "selinux": False}


@pytest.mark.parametrize(
    "options",
    [
        *({"format": name} for name in ("gnu", "oldgnu", "posix", "ustar", "v7")),
        NO_ATTRIBUTES,
        {**NO_ATTRIBUTES, "format": "posix"},
        {**NO_ATTRIBUTES, "acls": True},
        {**NO_ATTRIBUTES, "selinux": True, "sparse": True},
    ],
)
def test_a_tar_depends_on_the_tree_alone(options: Any, tree: Path) -> None:
    source = plant(tree.parent / "source")
    archives = []
    for name in ("a.tar", "b.tar"):
        given = {"inputs": {"tree": {"path": str(source)}}}
        assert run(tree, "tar", {"filename": name, **options}, **given)[0] == 0
        archives.append((tree / name).read_bytes())
        (source / "usr/one").read_bytes()
        os.utime(source / "usr/one", ns=(1, (source / "usr/one").stat().st_mtime_ns))
    assert archives[0] == archives[1]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, "./"),
        ({"root-node": "omit"}, "-strange"),
        ({"paths": ["usr/one", "rel"]}, "usr/one"),
        ({"transform": "s,^\\.,new,"}, "new/"),
    ],
)
def test_members_of_a_tar(options: dict[str, Any], first: str, tree: Path) -> None:
    assert names_in(packed(tree, "tar", {"filename": "x.tar", **options}))[0] == first


@pytest.mark.parametrize(
    ("filename", "compression", "magic"),
    [
        ("x.tar.xz", "auto", b"\xfd7zXZ"),
        ("x.tar", "gzip", b"\x1f\x8b"),
        ("x.tar", "zstd", b"\x28\xb5\x2f\xfd"),
        ("x.tar", "xz", b"\xfd7zXZ"),
    ],
)
def test_a_tar_is_compressed(filename: str, compression: str, magic: bytes, tree: Path) -> None:
    options = {"filename": filename, "compression": compression}
    assert packed(tree, "tar", options).read_bytes().startswith(magic)


def test_a_tar_of_an_empty_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    given = {"inputs": {"tree": {"path": str(tmp_path / "empty")}}}
    assert run(tree, "tar", {"filename": "x.tar", "root-node": "omit"}, **given)[0] == 0
    assert names_in(tree / "x.tar") == []


@pytest.mark.parametrize("do", [run, run_upstreams], ids=["ours", "upstreams"])
@pytest.mark.parametrize("options", [{}, {"format": "posix"}, NO_ATTRIBUTES])
def test_what_is_unpacked_is_what_was_packed(do: Any, options: Any, tree: Path) -> None:
    source = plant(tree.parent / "source")
    given = {"inputs": {"tree": {"path": str(source)}}}
    assert do(tree, "tar", {"filename": "x.tar", **options}, **given)[0] == 0
    unpacked = tree.parent / "unpacked"
    unpacked.mkdir()
    output_of("tar", "--xattrs", "--xattrs-include=*", "-xpf", tree / "x.tar", "-C", unpacked)
    wanted = snapshot(source)
    if not options.get("xattrs", True):
        wanted = {path: (*facts[:4], {}) for path, facts in wanted.items()}
    assert snapshot(unpacked) == wanted


def test_a_squashfs_holds_the_tree(tree: Path) -> None:
    needs("mksquashfs")
    image = packed(tree, "squashfs", {"filename": "x.sqfs", "compression": {"method": "zstd"}})
    listed = output_of("unsquashfs", "-ll", image)
    assert "squashfs-root/usr/private/key" in listed
    said = output_of("unsquashfs", "-s", image)
    assert "Compression zstd" in said
    assert "compression-level 9" in said


def test_a_squashfs_does_not_depend_on_holes(tree: Path) -> None:
    needs("mksquashfs")
    source = plant(tree.parent / "source")
    given = {"inputs": {"tree": {"path": str(source)}}}
    found = []
    for is_sparse in (True, False):
        with open(source / "holes", "wb") as file:
            file.truncate(1 << 20)
            file.write(b"" if is_sparse else bytes(1 << 20))
        for path in (source / "holes", source):
            os.utime(path, (1, 1))
        assert run(tree, "squashfs", {"filename": "x.sqfs"}, **given)[0] == 0
        data = (tree / "x.sqfs").read_bytes()
        found.append(data[:8] + data[12:])  # but for the time of its making
        (tree / "x.sqfs").unlink()
    assert found[0] == found[1]


def test_a_squashfs_without_some_paths(tree: Path) -> None:
    needs("mksquashfs")
    options = {"filename": "x.sqfs", "exclude_paths": ["usr/pri.*", "rel"]}
    listed = output_of("unsquashfs", "-l", packed(tree, "squashfs", options))
    assert "usr/one" in listed
    assert "private" not in listed
    assert "rel" not in listed


@pytest.mark.parametrize("source", ["input://tree/etc", "mount://disk/etc/"])
def test_a_squashfs_of_another_source(source: str, tree: Path) -> None:
    needs("mksquashfs")
    at = {"path": str(plant(tree.parent / "source"))}
    given = {"inputs": {"tree": at}, "mounts": {"disk": at}}
    status, _ = run(tree, "squashfs", {"filename": "x.sqfs", "source": source}, **given)
    assert status == 0
    assert "squashfs-root/hosts" in output_of("unsquashfs", "-l", tree / "x.sqfs")


def test_zstd_gives_the_content_back(tree: Path) -> None:
    given = {"path": str(tree / "usr"), "data": {"files": {"one": {}}}}
    assert run(tree, "zstd", {"filename": "/x.zst"}, inputs={"file": given})[0] == 0
    assert output_of("zstd", "-dcq", tree / "x.zst") == "1\n"
    given["data"] = {"files": {"one": {}, "same": {}}}
    status, output = run(tree, "zstd", {"filename": "y.zst"}, inputs={"file": given})
    assert status == 1
    assert "the input file has 2 files: give it exactly one" in output


def test_a_missing_program_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "TOOLS", "/nowhere")
    status, output = run(tree, "truncate", {"filename": "x", "size": "1"})
    assert (status, "truncate is not installed in the build root" in output) == (1, True)


# --- disks ---------------------------------------------------------------------------------------

UUID = "D209C89E-EA5E-4FBD-B161-B461CCE297E0"
DISK = {
    "label": "gpt",
    "uuid": UUID,
    "partitions": [
        {"size": 2048, "start": 2048, "name": "boot", "uuid": UUID, "attrs": [2, 60], "type": "U"},
        {"partnum": 4, "name": "root & all"},
    ],
}


def disk(tree: Path) -> dict[str, Any]:
    image = tree / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    return {"device": {"path": str(image)}}


@pytest.mark.parametrize(
    "options",
    [
        DISK,
        {"label": "dos", "uuid": "0x1badb002", "partitions": [{"bootable": True, "type": "83"}]},
        {"label": "mbr", "uuid": "0x1badb002", "partitions": [{"size": 100}, {"size": 200}]},
        {"label": "gpt", "uuid": UUID, "partitions": []},
    ],
)
def test_a_partition_table_is_upstreams(options: Any, tmp_path: Path) -> None:
    needs("sfdisk")
    tables = []
    for side, do in (("ours", run), ("theirs", run_upstreams)):
        tree = tmp_path / side / "tree"
        tree.mkdir(parents=True)
        status, output = do(tree, "sfdisk", options, devices=disk(tree))
        if side == "ours":
            assert status == 0, output
        tables.append(output_of("sfdisk", "--dump", tree / "disk.img").replace(side, ""))
    assert stable(tables[0]) == stable(tables[1])


def stable(table: str) -> str:
    """Without the UUIDs that sfdisk makes itself."""
    return re.sub(r"uuid=(?!" + UUID + ")[0-9A-F-]{36}", "", table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "gpt", "uuid": UUID, "partitions": [{"attrs": [5]}]}, "bit 5 is reserved"),
        ({"label": "gpt", "uuid": UUID, "partitions": [{"name": 'a"b'}]}, "takes no quotes"),
        ({"label": "gpt", "uuid": "x\nstart=1"}, "has controls"),
        ({"label": "gpt", "uuid": UUID, "partitions": [{"size": 10**9}]}, "sfdisk exited with"),
    ],
)
def test_a_table_that_cannot_be(options: Any, said: str, tree: Path) -> None:
    needs("sfdisk")
    status, output = run(tree, "sfdisk", options, devices=disk(tree))
    assert (status, said in output.splitlines()[-1]) == (1, True)


def test_a_device_is_needed(tree: Path) -> None:
    for name in ("sfdisk", "mkfs.ext4"):
        status, output = run(tree, name, {"label": "gpt", "uuid": UUID})
        assert (status, "needs a device" in output.splitlines()[-1]) == (1, True)


def test_an_ext4_has_what_was_asked_for(tree: Path) -> None:
    needs("mkfs.ext4")
    options = {"uuid": UUID, "label": "root", "lazy_init": False, "verity": True}
    options["orphan_file"] = options["metadata_csum_seed"] = False
    assert run(tree, "mkfs.ext4", options, devices=disk(tree))[0] == 0
    shown = output_of("dumpe2fs", "-h", tree / "disk.img")
    facts = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert facts["Filesystem UUID"].strip() == UUID.lower()
    assert facts["Filesystem volume name"].strip() == "root"
    features = facts["Filesystem features"].split()
    assert "verity" in features
    assert not {"orphan_file", "metadata_csum_seed"} & set(features)


def test_an_ext4_with_an_epoch_is_the_same_each_time(tree: Path) -> None:
    needs("mkfs.ext4")
    images = []
    for _ in range(2):
        given = {"devices": disk(tree), "meta": {"source-epoch": 1_000_000_000}}
        assert run(tree, "mkfs.ext4", {"uuid": UUID}, **given)[0] == 0
        images.append((tree / "disk.img").read_bytes())
    assert images[0] == images[1]
