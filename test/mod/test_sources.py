"""Content gets its checksum's name only when it is whole and right, whoever else is at it."""

import base64
import hashlib
import lzma
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import PikaError
from osbuild_pika.host import ServiceManager
from osbuild_pika.sources import UNVERIFIED, Cache, is_checksum

INLINE = str(data_folder("sources") / "org.osbuild.inline")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def inline(cache: Path, items: Any, method: str = "download", **more: Any) -> Any:
    with ServiceManager() as services:
        service = services.start("source/org.osbuild.inline", INLINE)
        arguments = {"items": items, "options": {}, "cache": str(cache), **more}
        return service.call(method, arguments, timeout_s=20)


ALGORITHMS = ("md5", "sha1", "sha256", "sha384", "sha512")


@pytest.mark.parametrize("encoding", ["base64", "lzma+base64"])
def test_inline_content_is_decoded_and_verified(encoding: str, tmp_path: Path) -> None:
    content = b"hello\0\xff" * 1000
    data = lzma.compress(content) if "lzma" in encoding else content
    checksums = [f"{name}:{hashlib.new(name, content).hexdigest()}" for name in ALGORITHMS]
    item = {"encoding": encoding, "data": base64.b64encode(data).decode()}
    items = dict.fromkeys(checksums, item)
    assert inline(tmp_path, items)["success"]
    paths = [tmp_path / "org.osbuild.files" / checksum for checksum in checksums]
    assert {path.name: path.read_bytes() for path in paths} == dict.fromkeys(checksums, content)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}
    again = inline(tmp_path, items)["results"]
    assert [bool(each["metadata"]["cached"]) for each in again] == [True] * len(ALGORITHMS)


BAD = [
    ("sha256:" + "0" * 64, {"encoding": "base64", "data": "AAAA"}, "Checksum mismatch"),
    (sha256(b"one"), {"encoding": "base64", "data": "b25"}, "the data is not base64"),
    (sha256(b"one"), {"encoding": "lzma+base64", "data": "b25l"}, "the data is not lzma+base64"),
    (sha256(b"one"), {"encoding": "rot13", "data": "b25l"}, "unknown encoding rot13"),
    ("../sha256:" + "0" * 64, {"encoding": "base64", "data": "AAAA"}, "is no checksum"),
    ("sha256:" + "0" * 63, {"encoding": "base64", "data": "AAAA"}, "is no checksum"),
    ("sha256:" + "0" * 64 + "\n", {"encoding": "base64", "data": "AAAA"}, "is no checksum"),
]


@pytest.mark.parametrize(("checksum", "item", "said"), BAD)
def test_one_bad_item_costs_no_other(checksum: str, item: Any, said: str, tmp_path: Path) -> None:
    good = {"encoding": "base64", "data": "dHdv"}
    reply = inline(tmp_path, {checksum: item, sha256(b"two"): good})
    assert not reply["success"]
    assert said in reply["results"][0]["error"]
    assert said in reply["output"]
    assert reply["results"][1]["success"]
    found = [path.name for path in (tmp_path / "org.osbuild.files").iterdir()]
    assert sorted(found) == sorted([UNVERIFIED, sha256(b"two")])


def test_a_copy_is_verified_too(tmp_path: Path) -> None:
    one, two = sha256(b"one"), sha256(b"two")
    place = tmp_path / "from/org.osbuild.files"
    place.mkdir(parents=True)
    (place / one).write_bytes(b"one")
    (place / two).write_bytes(b"damaged")
    into = str(tmp_path / "to")
    reply = inline(tmp_path / "from", {one: {}, two: {}}, "copy", dst_cache=into)
    assert [each["success"] for each in reply["results"]] == [True, False]
    assert "Checksum mismatch" in reply["results"][1]["error"]
    assert (tmp_path / "to/org.osbuild.files" / one).read_bytes() == b"one"


def test_a_link_is_no_content(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    os.symlink("/etc/passwd", cache.path(sha256(b"")))
    assert not cache.has(sha256(b""))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (sha256(b""), True),
        (sha256(b"").upper(), False),
        (f"x{sha256(b'')}", False),
        (f"{sha256(b'')}0", False),
        ("md5:" + "0" * 32, True),
        ("md5:" + "0" * 64, False),
        ("crc:00", False),
    ],
)
def test_what_a_checksum_is(name: str, is_one: bool) -> None:
    assert is_checksum(name) is is_one


def test_two_at_once_get_it_once(tmp_path: Path) -> None:
    checksum = sha256(b"content")
    begun, asked = threading.Event(), []

    def fill(_: str, file: IO[bytes]) -> Iterator[str]:
        asked.append(1)
        begun.set()
        file.write(b"content")
        yield ""

    threads = [
        threading.Thread(target=Cache(str(tmp_path)).get, args=(checksum, fill)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [1]
    assert (tmp_path / checksum).read_bytes() == b"content"
    assert list((tmp_path / UNVERIFIED).iterdir()) == []


def test_what_was_broken_off_is_there_the_next_time(tmp_path: Path) -> None:
    checksum = sha256(b"content")

    def broken(_: str, file: IO[bytes]) -> Iterator[str]:
        file.write(b"cont")
        raise PikaError("the network is gone")
        yield

    def go_on(_: str, file: IO[bytes]) -> Iterator[str]:
        assert file.read() == b"cont"
        file.write(b"ent")
        yield ""

    cache = Cache(str(tmp_path))
    with pytest.raises(PikaError, match="the network is gone"):
        cache.get(checksum, broken)
    assert not cache.has(checksum)
    cache.get(checksum, go_on)
    assert cache.has(checksum)


def test_who_gave_the_wrong_content_is_asked_again(tmp_path: Path) -> None:
    def fill(_: str, file: IO[bytes]) -> Iterator[str]:
        file.write(b"wrong")
        yield "https://mirror/"
        assert file.read() == b""
        file.write(b"content")
        yield "https://origin/"

    cache = Cache(str(tmp_path))
    cache.get(sha256(b"content"), fill)
    with pytest.raises(PikaError, match=r"https://origin/ has sha256:ed7002"):
        cache.get(sha256(b"other"), fill)
