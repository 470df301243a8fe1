"""What leaves the store: whole or not at all, and nothing of the host's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import commit, key, open_store

from osbuild_pika.engine import export
from osbuild_pika.engine.scratch import Scratch
from osbuild_pika.engine.store import Access, Store
from osbuild_pika.errors import HostError, InputError


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    with Scratch(open_store(tmp_path / "store"), "run", copies=True) as held:
        yield held


def test_a_tree_is_exported(scratch: Scratch, tmp_path: Path) -> None:
    commit(scratch, None, "a")
    export.export_tree(scratch, key("a"), str(tmp_path / "out"))
    assert (tmp_path / "out/a").read_text() == "a"
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]


def test_an_existing_target_is_refused_or_exchanged(scratch: Scratch, tmp_path: Path) -> None:
    commit(scratch, None, "a")
    (tmp_path / "out/old").mkdir(parents=True)
    with pytest.raises(InputError, match="exists: give another name, or --force"):
        export.export_tree(scratch, key("a"), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["old"]
    export.export_tree(scratch, key("a"), str(tmp_path / "out"), force=True)
    assert os.listdir(tmp_path / "out") == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]


def test_a_file_is_exported_as_the_callers(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "image").write_bytes(b"x" * 10_000)
    (tree / "image").chmod(0o4711)
    os.truncate(tree / "image", 1 << 24)
    export.export_file(str(tree), "image", str(tmp_path / "image"))
    found = (tmp_path / "image").stat()
    assert (found.st_size, found.st_mode & 0o7777, found.st_uid) == (1 << 24, 0o644, os.geteuid())
    assert found.st_blocks * 512 < 1 << 20
    assert (tmp_path / "image").read_bytes().rstrip(b"\0") == b"x" * 10_000


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_host_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [make_pipe, make_host_link, Path.mkdir])
def test_only_regular_files_of_the_tree_are_exported(make: object, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    assert callable(make)
    make(tree / "image")
    with pytest.raises((InputError, HostError)):
        export.export_file(str(tree), "image", str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["tree"]


def test_an_export_that_fails_leaves_nothing(scratch: Scratch, tmp_path: Path) -> None:
    commit(scratch, None, "a")

    def broken(argv: object, cwd: str, fds: object = ()) -> bytes:
        raise HostError("cp: no space")

    store = Store(scratch.store.directory, Access(os.geteuid(), broken), print)
    with Scratch(store, "other", copies=True) as other, contextlib.suppress(HostError):
        export.export_tree(other, key("a"), str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["store"]
