"""Packed images: the same bytes whatever the surroundings, and all that the tree holds in them."""

import hashlib
import json
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from modules import TOOLS, needs, output_of, snapshot
from peers import PACKAGE

from osbuild_pika.inside import pack
from osbuild_pika.inside.reporter import Reporter
from osbuild_pika.inside.stage import StageError

EPOCH = 1_700_000_000
ZSTD, XZ = pack.Compression(), pack.Compression("xz", 1)
PACK = """
import sys
from osbuild_pika.inside import pack
from osbuild_pika.inside.reporter import Reporter
image = pack.Image(sys.argv[1], sys.argv[2], 1_700_000_000)
how = pack.Compression(*eval(sys.argv[4]))
pack.unified(image, sys.argv[3], how, Reporter(None))
"""


def metadata_in(place: Path) -> Path:
    metadata = place / "metadata"
    (metadata / "templates").mkdir(parents=True)
    (metadata / "metadata.yaml").write_text(
        json.dumps({"architecture": "x86_64", "creation_date": EPOCH})
    )
    (metadata / "templates/hostname.tpl").write_text("{{ container.name }}\n")
    return metadata


def plant(root: Path) -> Path:
    """A tree with all that an archive may lose."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc").mkdir(mode=0o750)
    (root / "usr/bin/tool").write_bytes(os.urandom(100) * 20_000)
    os.link(root / "usr/bin/tool", root / "usr/bin/hard")
    (root / "usr/bin/su").write_text("su")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "link").symlink_to("./usr/bin/tool")
    (root / ".hidden").write_text("")
    (root / "-dash").write_text("")
    (root / ("long" * 60)).write_text("long")
    deep = root / ("deep" * 50) / ("deeper" * 30)
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/not-\xff-utf8")).write_text("x")
    (root / "new\nline\\x2d").write_text("x")
    with (root / "sparse").open("wb") as file:
        file.truncate(4 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "usr/bin/tool", "user.note", b"\0\xff")
    old = 1_000_000_000
    os.utime(root / "usr/bin/su", (old, old))
    return root


@pytest.fixture(name="image")
def fixture_image(tmp_path: Path) -> pack.Image:
    root = plant(tmp_path / "root")
    return pack.Image(str(metadata_in(tmp_path)), str(root), EPOCH)


def report() -> Reporter:
    return Reporter(None)


def sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@pytest.mark.parametrize("how", [ZSTD, pack.Compression("zstd", 3), XZ], ids=str)
def test_a_unified_image_has_its_metadata_first(
    how: pack.Compression, image: pack.Image, tmp_path: Path
) -> None:
    needs(how.method)
    output = tmp_path / "x.tar"
    packed, fingerprint = pack.unified(image, str(output), how, report())
    assert (fingerprint, packed.sha256) == (sha256(output),) * 2
    assert packed.size_bytes == output.stat().st_size
    names = output_of("tar", "-tf", output).splitlines()
    first = ["metadata.yaml", "templates/", "templates/hostname.tpl", "rootfs/"]
    assert names[:4] == first
    assert all(name.startswith("rootfs/") for name in names[4:])


@pytest.mark.parametrize("name", ["root.squashfs", "root.tar.zst"])
def test_the_fingerprint_of_a_split_image_is_of_both_files(
    name: str, image: pack.Image, tmp_path: Path
) -> None:
    needs("mksquashfs")
    first, second = tmp_path / "metadata.tar.zst", tmp_path / name
    how = (ZSTD, pack.Compression("zstd", 3))
    packed = pack.split(image, (str(first), str(second)), how, report())
    assert packed[2] == sha256(first, second)
    assert [packed[0].sha256, packed[1].sha256] == [sha256(first), sha256(second)]
    names = output_of("tar", "-tf", first).splitlines()
    assert names == ["metadata.yaml", "templates/", "templates/hostname.tpl"]


def unpacked(archive: Path, place: Path) -> Path:
    place.mkdir()
    output_of("tar", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive, "-C", place)
    return place


def test_what_is_unpacked_is_what_was_packed(image: pack.Image, tmp_path: Path) -> None:
    pack.unified(image, str(tmp_path / "x.tar"), ZSTD, report())
    place = unpacked(tmp_path / "x.tar", tmp_path / "unpacked")
    assert snapshot(place / "rootfs") == snapshot(Path(image.root))
    times = {path.lstat().st_mtime for path in place.rglob("*")}
    assert times == {EPOCH, 1_000_000_000}


def test_a_squashfs_holds_what_was_packed(image: pack.Image, tmp_path: Path) -> None:
    needs("mksquashfs")
    names = (str(tmp_path / "m.tar.zst"), str(tmp_path / "r.squashfs"))
    pack.split(image, names, (ZSTD, pack.Compression("zstd", 3)), report())
    output_of("unsquashfs", "-no-progress", "-d", tmp_path / "unpacked", names[1])
    assert snapshot(tmp_path / "unpacked") == snapshot(Path(image.root))
    assert max(path.lstat().st_mtime for path in (tmp_path / "unpacked").rglob("*")) == EPOCH


def test_owners_capabilities_and_acls_are_kept(image: pack.Image, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    needs("setcap")
    needs("setfacl")
    tool = Path(image.root) / "usr/bin/tool"
    os.chown(tool, 1234, 65_534)
    output_of("setcap", "cap_net_raw+ep", tool)
    output_of("setfacl", "-m", "u:1234:r", Path(image.root) / "etc")
    pack.unified(image, str(tmp_path / "x.tar"), ZSTD, report())
    place = unpacked(tmp_path / "x.tar", tmp_path / "unpacked")
    found = snapshot(place / "rootfs")
    assert found == snapshot(Path(image.root))
    assert set(found["usr/bin/tool"][4]) == {"user.note", "security.capability"}
    assert "system.posix_acl_access" in found["etc"][4]


def test_pax_headers_hold_no_names_of_owners_and_no_times_of_reading(
    image: pack.Image, tmp_path: Path
) -> None:
    output = tmp_path / "x.tar.xz"
    pack.unified(image, str(output), XZ, report())
    with tarfile.open(output) as archive:
        keys = {key for member in archive for key in member.pax_headers}
        assert {(member.uname, member.gname) for member in archive} == {("", "")}
    assert keys == {"path", "SCHILY.xattr.user.note"}


# --- the same bytes ------------------------------------------------------------------------------

SURROUNDINGS: list[tuple[list[str], dict[str, str]]] = [
    (["taskset", "-c", "0"], {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}),
    (["sh", "-c", 'umask 077; exec "$@"', "sh"], {"TZ": "America/Lima", "LANG": "tr_TR.UTF-8"}),
    ([], {"TAR_OPTIONS": "--owner=7", "XZ_OPT": "-9", "ZSTD_CLEVEL": "19", "XZ_DEFAULTS": "-T1"}),
]


@pytest.mark.parametrize("how", ["('zstd', 9)", "('xz', 1)"])
def test_the_surroundings_change_no_byte(how: str, image: pack.Image, tmp_path: Path) -> None:
    needs("taskset")
    found = set()
    for number, (prefix, environment) in enumerate(SURROUNDINGS):
        output = tmp_path / f"{number}.tar"
        command: list[Any] = [
            *prefix,
            "python3",
            "-c",
            PACK,
            image.metadata,
            image.root,
            output,
            how,
        ]
        given = {"PATH": TOOLS, "PYTHONPATH": str(PACKAGE), **environment}
        subprocess.run(command, env=given, check=True, capture_output=True)
        found.add(sha256(output))
        for path in Path(image.root).rglob("*"):
            if path.lstat().st_mtime > EPOCH:
                os.utime(path, (EPOCH + 100 + number,) * 2, follow_symlinks=False)
    assert len(found) == 1


def test_a_copy_of_the_tree_in_another_order_makes_the_same_bytes(
    image: pack.Image, tmp_path: Path
) -> None:
    needs("mksquashfs")
    other = tmp_path / "other"
    other.mkdir()
    names = sorted(os.listdir(os.fsencode(image.root)), reverse=True)
    for name in names:
        source = os.path.join(os.fsencode(image.root), name)
        # Holes are filled, and others made: they are no part of a file.
        output_of("cp", "-a", "--sparse=never", os.fsdecode(source), other)
    (other / "etc").chmod(0o750)
    os.chmod(other, os.stat(image.root).st_mode)
    found = set()
    for number, root in enumerate((image.root, str(other))):
        given = pack.Image(image.metadata, root, EPOCH)
        outputs = [tmp_path / f"{number}{name}" for name in (".tar", ".m.tar", ".squashfs")]
        packed = pack.unified(given, str(outputs[0]), ZSTD, report())[1]
        split = pack.split(given, (str(outputs[1]), str(outputs[2])), (ZSTD, ZSTD), report())[2]
        found.add((packed, split))
    assert len(found) == 1


def test_a_squashfs_is_the_same_on_one_processor(image: pack.Image, tmp_path: Path) -> None:
    needs("mksquashfs")
    how = "how = (pack.Compression(), pack.Compression('zstd', 3))"
    code = PACK.rpartition("how =")[0] + (
        f"{how}\npack.split(image, (sys.argv[3] + '.m', sys.argv[3] + '.squashfs'), how,"
        " Reporter(None))\n"
    )
    for name, prefix in (("a", []), ("b", ["taskset", "-c", "0"])):
        command: list[Any] = [
            *prefix,
            "python3",
            "-c",
            code,
            image.metadata,
            image.root,
            tmp_path / name,
        ]
        given: dict[str, Any] = {
            "PATH": TOOLS,
            "PYTHONPATH": str(PACKAGE),
            "TZ": f"X{ord(name) % 9}",
        }
        subprocess.run(command, env=given, check=True, capture_output=True)
    assert sha256(tmp_path / "a.squashfs") == sha256(tmp_path / "b.squashfs")


# --- what cannot be packed -----------------------------------------------------------------------


def refusal(image: pack.Image, tmp_path: Path, how: pack.Compression = ZSTD) -> str:
    with pytest.raises((StageError, OSError)) as raised:
        pack.unified(image, str(tmp_path / "x.tar"), how, report())
    return str(raised.value)


def test_a_device_node_is_refused(image: pack.Image, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    os.mknod(Path(image.root) / "etc/null", 0o020666, os.makedev(1, 3))
    assert refusal(image, tmp_path).startswith("etc/null is a device node")


def test_a_socket_is_refused(
    image: pack.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("etc/x")
    assert refusal(image, tmp_path).startswith("etc/x is a socket")


def test_a_missing_program_is_named(
    image: pack.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(image, tmp_path) == "tar is not installed in the build root"
    (tmp_path / "tar").symlink_to("/bin/tar")
    assert refusal(image, tmp_path) == "zstd is not installed in the build root"


def test_a_program_that_fails_is_named(image: pack.Image, tmp_path: Path) -> None:
    os.unlink(Path(image.metadata) / "metadata.yaml")
    said = refusal(image, tmp_path)
    assert said.startswith("tar exited with status 2: tar: metadata.yaml: Cannot stat")
    other = image._replace(metadata=str(metadata_in(tmp_path / "other")))
    said = refusal(other, tmp_path, pack.Compression("xz", -1))
    assert said.startswith("xz exited with status 1")


def test_a_full_disk_is_told_and_leaves_no_process(image: pack.Image, tmp_path: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    with pytest.raises(OSError, match="No space left"):
        pack.unified(image, "/dev/full", ZSTD, report())
    assert set(children.read_text().split()) <= set(before)
