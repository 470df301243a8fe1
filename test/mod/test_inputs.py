"""Inputs show files and trees, and ask the store for them as upstream's do."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import wire
from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import RemoteError
from osbuild_pika.host import ServiceManager

CHECKSUM = "sha256:" + "0" * 64
SOURCE, PIPELINE = "org.osbuild.source", "org.osbuild.pipeline"


class Store:
    """The engine's store; `asked` is what it was asked."""

    def __init__(self, place: Path) -> None:
        self.path = str(place / "store")
        self.asked: list[Any] = []
        self._place = place
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.at_directory(str(place), "store", self._listener.bind)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            while packet := sock.recv(65536):
                question = json.loads(packet)
                self.asked.append(question)
                sock.send(json.dumps(self._answer(question)).encode())

    def _answer(self, question: Any) -> Any:
        if question["method"] == "source":
            return {"path": str(self._place / "sources" / question["name"])}
        if question["object-id"] == "broken":
            return {"error": "it is broken"}
        return {"path": None if question["object-id"] == "gone" else question["target"]}

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


Map = Callable[..., Any]


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> Iterator[Store]:
    place = tmp_path / "sources/org.osbuild.files"
    place.mkdir(parents=True)
    (place / CHECKSUM).write_text("content")
    (tmp_path / "target").mkdir()
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture(name="ask")
def fixture_ask(store: Store, tmp_path: Path) -> Iterator[Map]:
    with ServiceManager() as services:

        def ask(name: str, origin: str, references: Any) -> Any:
            executable = data_folder("inputs") / f"org.osbuild.{name}"
            service = services.start("input/i", str(executable))
            arguments = {
                "origin": origin,
                "refs": references,
                "target": str(tmp_path / "target"),
                "options": {},
                "api": {"store": store.path},
            }
            return service.call("map", arguments, timeout_s=20)

        yield ask


def test_files_of_sources_have_their_checksums_as_names(ask: Map, tmp_path: Path) -> None:
    reply = ask("files", SOURCE, {CHECKSUM: {"metadata": {"rpm.check_gpg": True}}})
    target = tmp_path / "target"
    files = {CHECKSUM: {"rpm.check_gpg": True}}
    assert reply == {"path": str(target), "data": {"files": files}}
    assert (target / CHECKSUM).read_text() == "content"
    assert (target / CHECKSUM).samefile(tmp_path / "sources/org.osbuild.files" / CHECKSUM)


def test_files_of_pipelines_have_their_paths_as_names(
    ask: Map, store: Store, tmp_path: Path
) -> None:
    reply = ask("files", PIPELINE, {"ab": {"file": "/a/disk.img", "metadata": {"x.y": 1}}})
    assert reply["data"] == {"files": {"a/disk.img": {"x.y": 1}}}
    target = str(tmp_path / "target/a/disk.img")
    asked = {"method": "read-tree-at", "object-id": "ab", "target": target, "subtree": "a/disk.img"}
    assert store.asked == [asked]


def test_a_tree_is_shown(ask: Map, store: Store, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    assert ask("tree", PIPELINE, {"ab": {}}) == {"path": target}
    asked = {"method": "read-tree-at", "object-id": "ab", "target": target, "subtree": "/"}
    assert store.asked == [asked]


@pytest.mark.parametrize(
    ("name", "origin", "references", "said"),
    [
        ("tree", PIPELINE, {"gone": {}}, "Unknown pipeline 'gone'"),
        ("tree", PIPELINE, {"": {}}, "Unknown pipeline ''"),
        ("tree", PIPELINE, {"a": {}, "b": {}}, "2 pipelines are given instead of one"),
        ("tree", PIPELINE, {"broken": {}}, "the store: it is broken"),
        ("files", PIPELINE, {"gone": {"file": "/x"}}, "Unknown pipeline 'gone'"),
        ("files", PIPELINE, {"ab": {"file": "/../x"}}, "is no path of a file in a tree"),
        ("files", PIPELINE, {"ab": {"file": "/"}}, "is no path of a file in a tree"),
        ("files", PIPELINE, {"ab": {}}, "is no path of a file in a tree"),
        ("files", SOURCE, {"../x": {}}, "no source has this"),
        ("files", SOURCE, {"md5:0": {}}, "No such file"),
    ],
)
def test_what_cannot_be_shown(
    name: str, origin: str, references: Any, said: str, ask: Map, tmp_path: Path
) -> None:
    with pytest.raises(RemoteError, match=said):
        ask(name, origin, references)
    assert not (tmp_path / "x").exists()
