"""Image files here: which is what, their fingerprint, and how exported ones are written."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.incus.local import choose, files_in, is_disk, measure
from osbuild_pika.incus.parts import Parts


def test_a_fingerprint_is_of_the_metadata_and_then_the_rootfs(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"meta")
    (tmp_path / "r").write_bytes(b"root")
    one, both = measure(str(tmp_path / "m")), measure(str(tmp_path / "m"), str(tmp_path / "r"))
    assert one.fingerprint == hashlib.sha256(b"meta").hexdigest()
    assert both.fingerprint == hashlib.sha256(b"metaroot").hexdigest()
    assert (one.size_bytes, both.size_bytes) == (4, 8)


def test_what_is_no_file_is_a_wrong_argument(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match=path.name):
            measure(str(path))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["web.tar.zst"], ("web.tar.zst", None)),
        (["web-metadata.tar.zst", "web.squashfs"], ("web-metadata.tar.zst", "web.squashfs")),
        (["incus.tar.xz", "rootfs.squashfs"], ("incus.tar.xz", "rootfs.squashfs")),
        (["disk.qcow2", "metadata.tar.gz"], ("metadata.tar.gz", "disk.qcow2")),
        (["metadata.tar", "rootfs.tar"], ("metadata.tar", "rootfs.tar")),
    ],
)
def test_which_of_the_files_is_what(names: list[str], found: tuple[str, str | None]) -> None:
    assert choose(names, "there") == found


@pytest.mark.parametrize(
    "names", [[], ["a.tar", "b.tar"], ["metadata.tar", "meta.tar"], ["metadata.tar", "a", "b"]]
)
def test_what_is_no_image_is_said(names: list[str]) -> None:
    with pytest.raises(InputError, match="there: holds no image"):
        choose(names, "there")


def test_a_directory_with_an_image(tmp_path: Path) -> None:
    for name in ("metadata.tar", "rootfs.squashfs", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    assert files_in(str(tmp_path)) == (
        str(tmp_path / "metadata.tar"),
        str(tmp_path / "rootfs.squashfs"),
    )
    with pytest.raises(InputError, match="No such file"):
        files_in(str(tmp_path / "none"))


def test_a_disk_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb more")
    (tmp_path / "tree").write_bytes(b"hsqs")
    assert is_disk(str(tmp_path / "disk"))
    assert not is_disk(str(tmp_path / "tree"))


MARK = b"0123456789abcdef"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={MARK.decode()}"}
FIRST, SECOND = b"meta\r\n--0123\r\n\r\n", b"\r\n--" + MARK[:-1] + b"root\r\n"


def body(first: bytes, second: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="x"; filename="%s"\r\n\r\n'
    return b"".join(
        [
            b"--" + MARK + b"\r\n" + head % b"meta.tar" + first,
            b"\r\n--" + MARK + b"\r\n" + head % b"../../root.squashfs" + second,
            b"\r\n--" + MARK + b"--\r\n",
        ]
    )


def written(directory: Path, pieces: list[bytes]) -> tuple[list[Path], bytes]:
    """What a multipart answer in pieces becomes: the files, and what was fed."""
    fed: list[bytes] = []
    parts = Parts(str(directory), "name", fed.append)
    parts.begin(HEADERS)
    for piece in pieces:
        parts.take(piece)
    parts.end()
    return [Path(path) for path in parts.paths], b"".join(fed)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 10_000])
def test_parts_are_whole_however_they_come(size: int, tmp_path: Path) -> None:
    whole = body(FIRST, SECOND)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    paths, fed = written(tmp_path, pieces)
    assert [path.name for path in paths] == ["meta.tar", "root.squashfs"]
    assert [path.parent for path in paths] == [tmp_path, tmp_path]
    assert [path.read_bytes() for path in paths] == [FIRST, SECOND]
    assert fed == FIRST + SECOND


@given(first=st.binary(max_size=200), second=st.binary(max_size=200), cut=st.integers(0, 400))
def test_any_content_cut_anywhere(
    first: bytes, second: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = body(first, second)
    _, fed = written(tmp_path_factory.mktemp("parts"), [whole[:cut], whole[cut:]])
    assert fed == first + second


def test_an_answer_that_is_cut_leaves_nothing(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path), "name", lambda _: None)
    parts.begin(HEADERS)
    parts.take(body(FIRST, SECOND)[:-20])
    with pytest.raises(HostError, match="in the middle"):
        parts.end()
    parts.drop()
    assert list(tmp_path.iterdir()) == []


def test_one_file_has_the_name_that_incus_gave_it(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path), "name", lambda _: None)
    parts.begin({"Content-Disposition": 'inline;filename=".../a b.tar.gz"'})
    parts.take(b"bytes")
    parts.end()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("a_b.tar.gz", b"bytes")
    ]
