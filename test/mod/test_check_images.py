"""`check IMAGE` tells every defect that a real Incus was seen to trip over, before Incus does."""

import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from incus_images import (
    BASE,
    DATA,
    SAID,
    image_bytes,
    member,
    recorded_imports,
    recorded_launches,
    tarball,
    write_image,
)
from modules import needs

from osbuild_pika import imagefile
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.inside import lint

IMPORTS = recorded_imports()
LAUNCHES = recorded_launches()
ROOT = Path(__file__).parents[2]
HOST = lint.Host(1_780_000_000)


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(osbuild_pika, ["check", *map(str, arguments)])


def codes(path: Path) -> set[str]:
    return {finding.code for finding in lint.image(imagefile.look(str(path)), HOST)}


def name_of(file_name: str) -> str:
    return file_name.partition(".")[0]


IS_BAD = {
    file_name: "Error" in said or LAUNCHES.get(name_of(file_name)) == "STOPPED"
    for file_name, said in IMPORTS.items()
}


@pytest.mark.parametrize("file_name", [name for name in IMPORTS if name_of(name) in SAID])
def test_each_recorded_defect_is_told_with_file_and_key(file_name: str, tmp_path: Path) -> None:
    done = check(write_image(tmp_path, file_name))
    code, text = SAID[name_of(file_name)]
    lines = [line.removeprefix("warning: ") for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith(text) and line.endswith(f"[{code}]")], lines


@pytest.mark.parametrize("file_name", [name for name in IMPORTS if name != "tplbadwhen.tar.gz"])
def test_an_error_is_what_incus_refuses_or_cannot_start(file_name: str, tmp_path: Path) -> None:
    assert check(write_image(tmp_path, file_name)).exit_code == (2 if IS_BAD[file_name] else 0)


@pytest.mark.parametrize("name", ["good", "dotslash", "archalias", "expiry0"])
def test_a_good_image_passes_without_a_word(name: str, tmp_path: Path) -> None:
    done = check(write_image(tmp_path, f"{name}.tar.gz"))
    assert done.stdout.startswith("ok: container image of ")
    assert (done.stdout.count("\n"), done.exit_code) == (1, 0)


def test_the_recorded_full_metadata_passes(tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in (DATA / "templates").iterdir()}
    members = [member("metadata.yaml", (DATA / "metadata_full.yaml").read_bytes())]
    members += [member(f"templates/{name}", content) for name, content in files.items()]
    members += [member("rootfs/sbin/init", b"", mode=0o755)]
    (tmp_path / "full.tar").write_bytes(tarball(*members))
    assert codes(tmp_path / "full.tar") == set()


COMPRESSORS = {
    "tar.bz2": ["bzip2"],
    "tar.xz": ["xz"],
    "tar.lzma": ["xz", "--format=lzma"],
    "tar.zst": ["zstd", "-q"],
    "tar.lz4": ["lz4", "-q", "-"],
    "tar": ["cat"],
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("name", ["image", "nothing-that-says-so"])
def test_each_compression_is_known_by_its_first_bytes(
    suffix: str, name: str, tmp_path: Path
) -> None:
    command = COMPRESSORS[suffix]
    needs(command[0])
    plain = gzip.decompress(image_bytes(BASE))
    packed = subprocess.run(command, input=plain, capture_output=True, check=True).stdout
    path = tmp_path / (f"image.{suffix}" if name == "image" else name)
    path.write_bytes(packed)
    assert check(path).exit_code == 0
    path.write_bytes(packed[: len(packed) // 2])
    done = check(path)
    assert (done.exit_code, "[truncated]" in done.stdout) == (2, True)


def test_metadata_that_comes_late_is_told(tmp_path: Path) -> None:
    members = [member("rootfs/sbin/init", b"", mode=0o755), member("metadata.yaml", BASE.encode())]
    (tmp_path / "x.tar").write_bytes(tarball(*members))
    assert codes(tmp_path / "x.tar") == {"member-order"}


def test_findings_are_objects_in_json(tmp_path: Path) -> None:
    done = check("--format", "json", write_image(tmp_path, "tplmissing.tar.gz"))
    found = json.loads(done.stdout)
    assert (found["ok"], done.exit_code) == (False, 2)
    assert [(each["severity"], each["code"]) for each in found["findings"]] == [
        ("error", "template-missing")
    ]
    assert found["findings"][0]["key"] == "templates./etc/x.template"


def test_what_is_allowed_is_no_fault(tmp_path: Path) -> None:
    path = write_image(tmp_path, "tplmissing.tar.gz")
    assert check("--allow", "template-missing", path).exit_code == 0


def test_an_image_loads_nothing_heavy(tmp_path: Path) -> None:
    """Ours has metadata in JSON: not even a YAML parser is needed."""
    metadata = json.dumps({"architecture": "x86_64", "creation_date": 1})
    (tmp_path / "x.tar.gz").write_bytes(image_bytes(metadata))
    heavy = "{'asyncio', 'jsonschema', 'rich', 'ssl', 'yaml'} & set(sys.modules)"
    tell = f"import atexit, sys; atexit.register(lambda: print({heavy}, file=sys.stderr))"
    code = f"{tell}; from osbuild_pika.cli import main; main()"
    command: list[str | Path] = [sys.executable, "-c", code, "check", tmp_path / "x.tar.gz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "set()\n"


# --- split and unpacked images -------------------------------------------------------------------


def split_parts(place: Path, metadata: str = BASE) -> tuple[Path, Path]:
    first, second = place / "m.tar", place / "r.tar"
    first.write_bytes(tarball(member("metadata.yaml", metadata.encode())))
    init = member("sbin/init", b"#!/bin/sh\n", mode=0o755)
    second.write_bytes(tarball(member("./"), init, member("etc/fstab", b"#" * 20_000)))
    return first, second


def test_both_files_of_a_split_image_are_looked_at(tmp_path: Path) -> None:
    first, second = split_parts(tmp_path)
    assert check(first, second).exit_code == 0
    assert check(tmp_path).exit_code == 0
    swapped = check(second, first)
    assert (swapped.exit_code, "metadata.yaml" in swapped.stdout) == (2, True)
    alone = check(first)
    assert (alone.exit_code, "[rootfs]" in alone.stdout) == (2, True)


def test_a_squashfs_is_looked_into(tmp_path: Path) -> None:
    needs("mksquashfs")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/fstab").write_text("/dev/sda1 / ext4\n")
    place = tmp_path / "image"
    place.mkdir()
    first, _ = split_parts(tmp_path)
    first.rename(place / "m.tar")
    quiet = {"check": True, "capture_output": True}
    subprocess.run(["mksquashfs", tree, place / "r.squashfs"], **quiet)  # type: ignore[call-overload]
    for arguments in ((place,), (place / "m.tar", place / "r.squashfs")):
        done = check(*arguments)
        assert done.exit_code == 2
        found = [line.rpartition("[")[2] for line in done.stdout.splitlines()]
        assert found == ["fstab]", "init]"]


def test_a_squashfs_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mksquashfs")
    image = tmp_path / "r.squashfs"
    command: list[str | Path] = ["mksquashfs", DATA, image]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr("osbuild_pika.imagefile.squashfs.MAX_OUTPUT", 50)
    first, _ = split_parts(tmp_path)
    assert "its listing has more than 50 bytes" in check(first, image).stdout


def test_a_damaged_squashfs_is_told(tmp_path: Path) -> None:
    needs("unsquashfs")
    first, _ = split_parts(tmp_path)
    (tmp_path / "r.squashfs").write_bytes(b"hsqs" + bytes(4092))
    done = check(first, tmp_path / "r.squashfs")
    assert (done.exit_code, "[truncated]" in done.stdout) == (2, True)


def test_an_unpacked_image_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "rootfs/sbin").mkdir(parents=True)
    (tmp_path / "rootfs/sbin/init").touch(mode=0o755)
    (tmp_path / "metadata.yaml").write_text(BASE)
    assert check(tmp_path).exit_code == 0
    (tmp_path / "metadata.yaml").write_text(f"{BASE}properties: []\n")
    assert "[property]" in check(tmp_path).stdout


# --- hostile images ------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "laughs": f"{LAUGHS}architecture: *a11\ncreation_date: *a11\nproperties: {{x: *a11}}\n",
    "deep": "[" * 100_000,
    "digits": f"architecture: x86_64\ncreation_date: 0x{'f' * 100_000}\n",
    "decimal": f"architecture: x86_64\ncreation_date: {'9' * 100_000}\n",
    "infinite": "architecture: x86_64\ncreation_date: .inf\nexpiry_date: .nan\n",
    "tags": "!!python/object/apply:os.system ['false']\n",
    "escapes": 'architecture: "\\e[31mx\\u202e\\n::error::"\ncreation_date: 1\n',
    "binary": "\0\1\2",
    "list": "[]",
    "keys": "? [a, b]\n: c\n",
    "long": f"# {'x' * (1 << 20)}\n{BASE}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_metadata_is_an_error_in_short_lines(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(image_bytes(HOSTILE[name]))
    done = check(tmp_path / "x.tar.gz")
    assert (done.exit_code, done.stderr) == (2, "")
    assert all(len(line) < 1001 for line in done.stdout.splitlines())
    assert done.stdout.replace("\n", "").isprintable()


def test_members_that_leave_the_image_are_told_and_never_opened(tmp_path: Path) -> None:
    members = [
        member("metadata.yaml", BASE.encode()),
        member("rootfs/sbin/init", b"", mode=0o755),
        member("rootfs/../../x", b""),
        member("/etc/x", b""),
        member("rootfs/hard", None, type=b"1", linkname="/etc/passwd"),
        member("rootfs/etc/fstab", None, type=b"2", linkname="../../../../etc/mtab"),
        member("templates/x", None, type=b"2", linkname="/etc/passwd"),
    ]
    (tmp_path / "x.tar").write_bytes(tarball(*members))
    assert codes(tmp_path / "x.tar") == {"member-path"}


def test_a_template_that_is_a_link_is_refused(tmp_path: Path) -> None:
    metadata = f"{BASE}templates: {{/etc/x: {{when: [start], template: x}}}}\n"
    members = [
        member("metadata.yaml", metadata.encode()),
        member("templates/x", None, type=b"2", linkname="/etc/passwd"),
        member("rootfs/sbin/init", b"", mode=0o755),
    ]
    (tmp_path / "x.tar").write_bytes(tarball(*members))
    assert codes(tmp_path / "x.tar") == {"template-file"}


def test_a_huge_header_takes_no_memory(tmp_path: Path) -> None:
    head, _ = member("x", b"", type=b"x")
    head.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    done = check(tmp_path / "x.tar")
    assert (done.exit_code, "header of more than 1 MiB" in done.stdout) == (2, True)


def test_a_missing_decompressor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path, "good.tar.gz")
    monkeypatch.setenv("PATH", "/nowhere")
    done = check(path)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "install the package gzip" in done.stderr
