"""What is published of an image is whole, told, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from osbuild_pika.products import published
from osbuild_pika.products.published import NotBuiltError, Output


def output(folder: Path, text: str = "image") -> Output:
    folder.mkdir(exist_ok=True)
    (folder / "web.tar.zst").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Output("incus-unified", (str(folder / "web.tar.zst"),), len(text), digest)


def test_what_is_published_is_there_with_its_digests(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    published.publish(str(tmp_path / "out"), "web", [given])
    assert published.are_there(published.place(str(tmp_path / "out"), "web", [given]))
    facts = json.loads((tmp_path / "out/web/image.json").read_text())
    (document,) = facts["outputs"]
    assert document["fingerprint"] == given.fingerprint == document["files"][0]["sha256"]
    assert document["files"][0]["path"] == "incus-unified/web.tar.zst"
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.*"))
    assert names == ["web/image.json", "web/incus-unified/web.tar.zst"]


def test_what_is_replaced_is_whole_or_as_it_was(tmp_path: Path) -> None:
    published.publish(str(tmp_path / "out"), "web", [output(tmp_path / "built")])
    gone = Output("incus-unified", (str(tmp_path / "gone.tar.zst"),), 1, "0" * 64)
    with pytest.raises(NotBuiltError, match="gone\\.tar\\.zst: No such file"):
        published.publish(str(tmp_path / "out"), "web", [gone])
    assert (tmp_path / "out/web/incus-unified/web.tar.zst").read_text() == "image"
    published.publish(str(tmp_path / "out"), "web", [output(tmp_path / "built", "newer")])
    assert (tmp_path / "out/web/incus-unified/web.tar.zst").read_text() == "newer"


def test_what_is_not_what_was_built_is_not_published(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    (tmp_path / "built/web.tar.zst").write_text("imagf")
    with pytest.raises(NotBuiltError, match="is not what was built"):
        published.publish(str(tmp_path / "out"), "web", [given])
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_way_is_replaced_not_followed(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    (tmp_path / "mine").write_text("mine")
    folder = tmp_path / "out/web/incus-unified"
    folder.mkdir(parents=True)
    (folder / "web.tar.zst.tmp").symlink_to(tmp_path / "mine")
    (folder / "web.tar.zst").symlink_to(tmp_path / "mine")
    published.publish(str(tmp_path / "out"), "web", [given])
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (folder / "web.tar.zst").is_symlink()


def test_what_was_of_other_outputs_goes(tmp_path: Path) -> None:
    published.publish(str(tmp_path / "out"), "web", [output(tmp_path / "built")])
    (tmp_path / "out/web/mine").write_text("mine")
    other = output(tmp_path / "other", "split")._replace(name="squashfs")
    published.publish(str(tmp_path / "out"), "web", [other])
    assert sorted(os.listdir(tmp_path / "out/web")) == ["image.json", "mine", "squashfs"]


@pytest.mark.parametrize("text", ["", "[]", '{"outputs": []}', '{"outputs": [{"output": 1}]}'])
def test_what_image_json_does_not_say_is_not_there(text: str, tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    published.publish(str(tmp_path / "out"), "web", [given])
    assert published.are_told(str(tmp_path / "out"), "web", [given])
    (tmp_path / "out/web/image.json").write_text(text)
    assert not published.are_told(str(tmp_path / "out"), "web", [given])


def test_what_is_cut_off_or_gone_is_not_there(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    assert published.are_there([given])
    (tmp_path / "built/web.tar.zst").write_text("im")
    assert not published.are_there([given])
    (tmp_path / "built/web.tar.zst").unlink()
    assert not published.are_there([given])
    assert not published.are_there([])
