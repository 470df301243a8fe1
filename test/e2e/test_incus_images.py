"""Images go into a real Incus and come out of it again, byte for byte."""

import hashlib
import threading
from pathlib import Path

import guests
import pytest

from osbuild_pika.errors import HostError
from osbuild_pika.incus import images, local
from osbuild_pika.incus.client import Client, IncusError


def sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def test_a_unified_image_comes_out_as_it_went_in(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path)
    files = local.measure(str(path))
    told: list[str] = []
    assert images.import_files(client, files, told.append)
    assert files.fingerprint == sha256(path)
    assert "importing: 100%" in told
    assert [each["fingerprint"] for each in images.all_images(client)] == [files.fingerprint]
    assert images.find(client, files.fingerprint[:12]) == images.all_images(client)[0]
    (tmp_path / "out").mkdir()
    exported = images.export(client, files.fingerprint, str(tmp_path / "out"))
    assert [Path(each).read_bytes() for each in exported] == [path.read_bytes()]


def test_a_split_image_comes_out_as_it_went_in(client: Client, tmp_path: Path) -> None:
    paths = guests.split(tmp_path)
    files = local.measure(*map(str, paths))
    assert images.import_files(client, files)
    assert files.fingerprint == sha256(*paths)
    (tmp_path / "out").mkdir()
    exported = images.export(client, files.fingerprint, str(tmp_path / "out"))
    assert [Path(each).read_bytes() for each in exported] == [each.read_bytes() for each in paths]


def test_an_image_that_is_there_is_not_imported_again(client: Client, tmp_path: Path) -> None:
    files = local.measure(str(guests.unified(tmp_path)))
    assert [images.import_files(client, files) for _ in range(2)] == [True, False]
    images.delete(client, files.fingerprint)
    assert images.find(client, files.fingerprint) is None


def test_an_alias_moves_without_a_gap(client: Client, tmp_path: Path) -> None:
    both = [
        local.measure(str(guests.unified(tmp_path, f"# {name}\n{guests.STAY}", name)))
        for name in ("one", "two")
    ]
    one, two = (files.fingerprint for files in both)
    assert [images.import_files(client, files) for files in both] == [True, True]
    assert images.find_alias(client, "web/a b") is None
    assert images.point(client, "web/a b", one) is None
    seen: list[str | None] = []
    is_over = threading.Event()

    def look() -> None:
        with Client(client.path) as other:
            while not is_over.is_set():
                seen.append(images.find_alias(other, "web/a b"))

    looking = threading.Thread(target=look)
    looking.start()
    before = [images.point(client, "web/a b", target) for target in (two, one, two) * 10]
    is_over.set()
    looking.join()
    assert before == [one, two, one, *[two, two, one] * 9]
    assert set(seen) <= {one, two}
    assert len(images.all_images(client)) == 2


def test_the_same_image_by_two_at_once_is_no_error(client: Client, tmp_path: Path) -> None:
    files = local.measure(str(guests.unified(tmp_path)))
    done: list[bool] = []

    def bring() -> None:
        with Client(client.path) as other:
            done.append(images.import_files(other, files))

    both = [threading.Thread(target=bring) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(done) == 2
    assert any(done)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no image at all" * 100, "Unsupported compression"),
        (b"", "EOF"),
    ],
)
def test_a_refusal_has_the_words_of_incus(
    content: bytes, words: str, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    with pytest.raises(IncusError, match=rf"bad.tar: Incus refuses this image: .*{words}"):
        images.import_files(client, local.measure(str(path)))


def test_an_image_without_metadata_is_refused(client: Client, tmp_path: Path) -> None:
    _, rootfs = guests.split(tmp_path)
    with pytest.raises(IncusError, match=r"missing metadata.yaml"):
        images.import_files(client, local.measure(str(rootfs)))
    assert images.all_images(client) == []


def test_a_file_that_changes_while_it_is_sent_is_found_out(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path)
    files = local.measure(str(path))
    data = bytearray(path.read_bytes())
    data[4] ^= 1  # gzip's time: the content stays whole
    path.write_bytes(data)
    with pytest.raises(HostError, match="it changed meanwhile"):
        images.import_files(client, files)


def test_an_export_overwrites_nothing(client: Client, tmp_path: Path) -> None:
    files = local.measure(str(guests.unified(tmp_path)))
    images.import_files(client, files)
    (tmp_path / "out").mkdir()
    images.export(client, files.fingerprint, str(tmp_path / "out"))
    with pytest.raises(FileExistsError):
        images.export(client, files.fingerprint, str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 1
    with pytest.raises(IncusError, match="not found"):
        images.export(client, "0" * 64, str(tmp_path))
