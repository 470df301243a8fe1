"""The store without root: what is kept, found damaged, shared by processes, and survives a kill.

Layers are whole copies here, nothing is mounted; the rest is as with mounts.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stores
from stores import commit, fill, key, made, open_store

from osbuild_pika.engine import disk, fetched
from osbuild_pika.engine.scratch import Scratch, sweep
from osbuild_pika.engine.store import Store
from osbuild_pika.errors import ExitCode, HostError

ROOT = Path(__file__).parents[2]
SUM = f"sha256:{64 * 'a'}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def scratch(store: Store) -> Iterator[Scratch]:
    with Scratch(store, "run", copies=True) as held:
        yield held


def test_a_layer_is_kept(store: Store) -> None:
    fill(store, "a", "b")
    assert store.have(key("a"))
    assert store.have(key("b"))
    assert not store.have(key("c"))
    assert sorted(os.listdir(store.path(key("b")))) == ["a", "b"]
    assert store.meta(key("b")) == b'{"by": "test"}\n'
    info = store.look(key("b"))
    assert info is not None
    assert (info.id, info.base, info.type) == (key("id of b"), key("a"), "org.example.b")
    assert os.listdir(store.tmp) == []


def test_a_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    fill(store, "a", "b")
    shutil.move(store.directory, tmp_path / "elsewhere")
    moved = open_store(tmp_path / "elsewhere")
    assert moved.have(key("b"))
    names = [str(path) for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert not [name for name in names if store.directory in Path(name).read_text()]


def test_what_is_not_committed_is_gone(scratch: Scratch) -> None:
    with scratch.tree(None) as tree:
        Path(tree.path, "file").touch()
    assert os.listdir(scratch.directory) == []


def test_times_are_clamped_in_small_and_large_layers(scratch: Scratch) -> None:
    for count in (3, 200):
        with scratch.tree(None) as tree:
            os.mkdir(f"{tree.path}/sub")
            for number in range(count):
                Path(tree.path, f"sub/{number}").touch()
            os.symlink("/nowhere", f"{tree.path}/link")
            os.utime(f"{tree.path}/sub/0", (5, 5))
            scratch.commit(tree, made(f"{count}", stores.EPOCH))
        layer = Path(scratch.store.path(key(f"{count}")))
        times = {path.lstat().st_mtime for path in [layer, *layer.rglob("*")]}
        assert times == {5, stores.EPOCH}
        assert len(list(layer.rglob("*"))) == count + 2


def test_a_deep_layer_can_be_kept_and_deleted(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch.tree(None) as tree:
        monkeypatch.chdir(tree.path)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        monkeypatch.undo()
        scratch.commit(tree, made("deep", 1))
    disk.remove_tree(os.path.join(scratch.store.layers, key("deep")))
    assert os.listdir(scratch.store.layers) == []


# --- damage ---------------------------------------------------------------------------------------


def remove_layer(entry: Path) -> None:
    shutil.rmtree(entry / "layer")


def tear_info(entry: Path) -> None:
    (entry / "info.json").write_bytes((entry / "info.json").read_bytes()[:40])


def remove_meta(entry: Path) -> None:
    (entry / "meta.json").unlink()


def make_info_a_link(entry: Path) -> None:
    (entry / "info.json").rename(entry / "other")
    (entry / "info.json").symlink_to("other")


def empty_it(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def make_it_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.touch()


def make_it_a_link(entry: Path) -> None:
    entry.rename(entry.with_name("moved"))
    entry.symlink_to("nowhere")


DAMAGES = [
    *(remove_layer, tear_info, remove_meta, make_info_a_link),
    *(empty_it, make_it_a_file, make_it_a_link),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_layer_is_said_not_used_and_replaced(damage: object, tmp_path: Path) -> None:
    said: list[str] = []
    store = open_store(tmp_path / "store", said)
    fill(store, "a")
    assert callable(damage)
    damage(Path(store.layers, key("a")))
    assert not store.have(key("a"))
    assert not store.have(key("a"))
    assert [line.partition(":")[0] for line in said] == [
        f"the layer {key('a')[:12]} is damaged and will be built anew"
    ]
    fill(store, "a")
    assert store.have(key("a"))
    assert os.listdir(store.tmp) == []


def test_damaged_layers_are_collected_first(store: Store) -> None:
    fill(store, "a", "b", "c")
    tear_info(Path(store.layers, key("a")))
    make_it_a_file(Path(store.layers, key("b")))
    with Scratch(store, "gc", copies=True) as scratch:
        gone, _ = scratch.gc()
    assert sorted(gone) == sorted([key("a"), key("b")])
    assert os.listdir(store.layers) == [key("c")]


def test_a_layer_that_is_gone_in_the_middle_of_a_build_is_an_error(scratch: Scratch) -> None:
    with pytest.raises(HostError, match="is gone from the store: build again"):
        commit(scratch, "nothing", "b")


# --- whose ids ------------------------------------------------------------------------------------


def test_the_ids_of_another_base_are_an_error(store: Store) -> None:
    path = Path(store.directory, "store.json")
    path.write_text(json.dumps({"format": 1, "base_id": 4_000_000}))
    with pytest.raises(HostError, match=r"with subordinate ids from 4000000, yours begin at \d+"):
        open_store(Path(store.directory))


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2, "base_id": 0}'])
def test_a_store_of_another_kind_is_an_error(store: Store, text: str) -> None:
    Path(store.directory, "store.json").write_text(text)
    with pytest.raises(HostError, match=r"damaged|is not known") as caught:
        open_store(Path(store.directory))
    assert caught.value.exit_code == ExitCode.HOST_NOT_FIT


def test_a_store_in_an_impossible_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="Not a directory"):
        open_store(tmp_path / "file/store")


# --- collection -----------------------------------------------------------------------------------


def test_the_least_recently_used_is_collected(store: Store) -> None:
    for name in ("a", "b", "c"):
        fill(store, name)
    now = time.time()
    for age, name in enumerate(("b", "a", "c")):
        os.utime(os.path.join(store.layers, key(name)), (now, now - age))
    with Scratch(store, "gc", copies=True) as scratch:
        sizes = [info.size_bytes for name in "abc" if (info := store.look(key(name)))]
        assert scratch.gc(sum(sizes)) == ([], sum(sizes))
        gone, left = scratch.gc(sum(sizes) - 1)
        assert gone == [key("c")]
        assert left == sum(sizes[:2])
    assert os.listdir(store.tmp) == []


def test_what_a_run_uses_is_not_collected(store: Store, scratch: Scratch) -> None:
    fill(store, "a", "b")
    assert scratch.have(key("a"))
    with Scratch(store, "gc", copies=True) as other:
        assert other.gc(0)[0] == [key("b")]
    assert store.have(key("a"))


@pytest.fixture
def downloads(store: Store) -> dict[str, Path]:
    """Three, each used an hour before the next; the first is not whole."""
    found = {}
    for age, name in enumerate((".unverified/sha256:" + 64 * "c", "md5:" + 32 * "b", SUM)):
        path = Path(store.sources, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(8192))
        os.utime(path, (3600 * age, 3600 * age))
        found[name] = path
    return found


def test_downloads_are_collected_as_layers_are(store: Store, downloads: dict[str, Path]) -> None:
    fill(store, "a")
    os.utime(os.path.join(store.layers, key("a")), (5000, 5000))
    partial, oldest, _ = downloads
    with Scratch(store, "gc", copies=True) as scratch:
        gone, left = scratch.gc(8192)
    assert gone == [partial, oldest, key("a")]
    assert left == 8192
    assert [path.exists() for path in downloads.values()] == [False, False, True]


def test_a_used_download_is_collected_last(store: Store, downloads: dict[str, Path]) -> None:
    partial, oldest, newest = downloads
    fetched.mark_used(store.sources, [oldest, "sha256:" + 64 * "d"], os.geteuid())
    with Scratch(store, "gc", copies=True) as scratch:
        assert scratch.gc(8192) == ([partial, newest], 8192)


def test_no_download_is_collected_while_a_build_reads(
    store: Store, downloads: dict[str, Path]
) -> None:
    with fetched.reading(store.sources), Scratch(store, "gc", copies=True) as scratch:
        assert scratch.gc(0) == ([], 0)
    assert all(path.exists() for path in downloads.values())


def test_what_is_no_download_is_left_alone(store: Store) -> None:
    Path(store.sources, "README").write_text("mine")
    with Scratch(store, "gc", copies=True) as scratch:
        assert scratch.gc(0) == ([], 0)
    assert os.listdir(store.sources) == ["README"]


def test_use_is_remembered(store: Store, scratch: Scratch) -> None:
    fill(store, "a")
    os.utime(os.path.join(store.layers, key("a")), (5, 5))
    assert scratch.have(key("a"))
    assert time.time() - os.stat(os.path.join(store.layers, key("a"))).st_mtime < 60


# --- runs -----------------------------------------------------------------------------------------


def test_only_dead_runs_are_swept(store: Store, scratch: Scratch) -> None:
    (Path(store.tmp) / "dead/1/layer/half").mkdir(parents=True)
    (Path(store.tmp) / "stray").touch()
    assert sweep(store) == ["dead"]
    assert sorted(os.listdir(store.tmp)) == ["run", "stray"]


def test_a_run_of_a_dead_ones_name_starts_empty(store: Store) -> None:
    (Path(store.tmp) / "run/1/layer").mkdir(parents=True)
    with Scratch(store, "run", copies=True) as scratch:
        assert os.listdir(scratch.directory) == []


def test_a_living_runs_name_is_refused(
    store: Store, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osbuild_pika.engine.scratch.SWEEP_S", 0.05)
    with pytest.raises(HostError, match="another build's"):
        Scratch(store, "run")


def test_the_same_key_committed_twice_is_one_layer(store: Store, scratch: Scratch) -> None:
    with Scratch(store, "other", copies=True) as other, other.tree(None) as tree:
        Path(tree.path, "late").touch()
        first = commit(scratch, None, "a")
        assert other.commit(tree, made("a")) == first
    assert os.listdir(store.path(key("a"))) == ["a"]


# --- deleting -------------------------------------------------------------------------------------


def test_mounts_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    points = [f"{base}/a\\040b/c", f"{base}", f"{base}x", "/", f"{base}/a\\040b"]
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"1 1 0:1 / {point} rw - x x rw\n" for point in points))
    assert disk.mounts_below(str(tmp_path), str(table)) == [f"{base}/a b/c", f"{base}/a b", base]
