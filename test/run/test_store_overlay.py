"""The store with real mounts: what a tree shows is what a plain directory would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import stores
from stores import key, made

from osbuild_pika import libc
from osbuild_pika.engine import disk, export
from osbuild_pika.engine.scratch import Scratch, sweep
from osbuild_pika.engine.store import Access, Store
from osbuild_pika.errors import HostError

pytestmark = pytest.mark.skipif(
    not stores.is_root_that_mounts(), reason="needs root that may mount"
)


def in_store(directory: Path, work: Callable[[Store], None], said: list[str]) -> None:
    """Run with a store of shifted ids, in a mount namespace of its own."""

    def enter() -> None:
        with stores.namespace() as inside:
            work(Store(str(directory), Access(stores.BASE, inside), said.append))

    stores.in_private(enter)


def test_writing_one_of_two_hard_links_of_a_layer_below_splits_them(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        with Scratch(store, "run") as scratch:
            with scratch.tree(None) as tree:
                Path(f"{tree.path}/one").write_text("old")
                os.link(f"{tree.path}/one", f"{tree.path}/two")
                scratch.commit(tree, made("a"))
            for copied, two in ((False, "old"), (True, "new")):
                with scratch.tree(key("a"), copied=copied) as tree:
                    Path(f"{tree.path}/one").write_text("new")
                    assert Path(f"{tree.path}/two").read_text() == two

    in_store(tmp_path / "store", work, [])


def test_a_layer_holds_only_what_its_stage_changed(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        with Scratch(store, "run") as scratch:
            stores.commit(scratch, None, "a", "x" * 100_000)
            info = stores.commit(scratch, "a", "b")
        assert os.listdir(store.path(key("b"))) == ["b"]
        assert info.size_bytes < 20_000
        assert sorted(os.listdir(f"{store.layers}/{key('b')}")) == [
            "info.json",
            "layer",
            "meta.json",
        ]

    in_store(tmp_path / "store", work, [])


def test_stages_may_share_a_tree_and_only_the_last_is_kept(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        with Scratch(store, "run") as scratch:
            stores.commit(scratch, None, "a")
            with scratch.tree(key("a")) as tree:
                for name in ("partition", "format", "fill"):
                    Path(f"{tree.path}/{name}").touch()
                info = scratch.commit(tree, made("fill"))
            assert info.base == key("a")
            with scratch.view(key("fill")) as path:
                assert sorted(os.listdir(path)) == ["a", "fill", "format", "partition"]

    in_store(tmp_path / "store", work, [])


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        before = Path("/proc/self/mountinfo").read_text()
        with Scratch(store, "run") as scratch:
            stores.commit(scratch, None, "a")
            with contextlib.suppress(ZeroDivisionError), scratch.tree(key("a")) as tree:
                Path(f"{tree.path}/b").touch()
                raise ZeroDivisionError
            left = ["2.tree", "2.work", "3.tree", "3.work", "empty"]
            assert left == sorted(os.listdir(scratch.directory))
        assert os.listdir(store.tmp) == []
        assert Path("/proc/self/mountinfo").read_text() == before

    in_store(tmp_path / "store", work, [])


def test_300_layers(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        with Scratch(store, "run") as scratch:
            base = None
            wholes = []
            for number in range(300):
                info = stores.commit(scratch, base, f"f{number}")
                base = f"f{number}"
                wholes += [number] * info.is_whole
            assert wholes == [100, 200]
            with scratch.view(key("f299")) as path:
                assert len(os.listdir(path)) == 300

    in_store(tmp_path / "store", work, [])


def test_a_view_cannot_be_written_to(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        with Scratch(store, "run") as scratch:
            stores.commit(scratch, None, "a")
            with scratch.view(key("a")) as path, pytest.raises(OSError, match="Read-only"):
                Path(f"{path}/b").touch()

    in_store(tmp_path / "store", work, [])


def test_trees_can_be_mounted_where_root_inside_can_reach_them(tmp_path: Path) -> None:
    def work() -> None:
        libc.mount("none", "/mnt", "tmpfs")
        with stores.namespace() as inside:
            store = Store(str(tmp_path / "store"), Access(stores.BASE, inside, "/mnt"), print)
            for copies in (False, True):
                with Scratch(store, "run", copies) as scratch:
                    with scratch.tree(None) as tree:
                        assert tree.path == f"/mnt/run/{1 if copies else 2}.tree"
                        inside(["touch", f"{tree.path}/made"], "/")
                        scratch.commit(tree, made(f"{copies}"))
                    with scratch.view(key(f"{copies}")) as path:
                        assert path.startswith("/mnt/run/")
                        assert inside(["ls", path], "/") == b"made\n"

    stores.in_private(work)


def test_a_store_on_overlayfs_is_served_by_copies(tmp_path: Path) -> None:
    said: list[str] = []

    def work() -> None:
        for name in ("lower", "upper", "work", "disk"):
            (tmp_path / name).mkdir()
        data = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        libc.mount("overlay", tmp_path / "disk", "overlay", 0, data)
        with stores.namespace() as inside:
            store = Store(f"{tmp_path}/disk/store", Access(stores.BASE, inside), said.append)
            with Scratch(store, "run") as scratch:
                stores.commit(scratch, None, "a")
                assert stores.commit(scratch, "a", "b").is_whole
                with scratch.view(key("b")) as path:
                    assert sorted(os.listdir(path)) == ["a", "b"]
        assert said == [f"{store.directory} cannot carry overlay layers: trees are copied"]

    stores.in_private(work)


def test_after_sigkill_no_mount_is_left_and_the_rest_is_swept(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]!r}
import stores
from osbuild_pika.engine.store import Access, Store
from osbuild_pika.engine.scratch import Scratch
def work():
    with stores.namespace() as inside:
        store = Store({str(tmp_path / "store")!r}, Access(stores.BASE, inside), print)
        with Scratch(store, "dead") as scratch:
            stores.commit(scratch, None, "a")
            with scratch.tree(stores.key("a")) as tree:
                open(tree.path + "/half", "w")
                print(os.getpid(), flush=True)
                time.sleep(60)
stores.in_private(work)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout
        os.kill(int(child.stdout.readline()), signal.SIGKILL)

    def work(store: Store) -> None:
        assert disk.mounts_below(str(tmp_path)) == []
        assert os.listdir(store.tmp) == ["dead"]
        with Scratch(store, "living"):
            assert sweep(store) == ["dead"]
            assert os.listdir(store.tmp) == ["living"]
        assert store.have(key("a"))

    in_store(tmp_path / "store", work, [])


def test_a_kill_at_any_step_leaves_a_sound_store(tmp_path: Path) -> None:
    def work() -> None:
        with stores.namespace() as inside:
            access = Access(stores.BASE, inside)
            store = Store(str(tmp_path / "store"), access, print)
            with Scratch(store, "first") as scratch:
                size_bytes = stores.commit(scratch, None, "a").size_bytes

            def build() -> None:
                libc.unshare(libc.CLONE_NEWNS)
                with Scratch(store, "dying") as scratch:
                    stores.commit(scratch, "a", "b")

            mounts = Path("/proc/self/mountinfo").read_text()
            steps = stores.dying(build, at=0)
            assert steps > 30
            for at in range(1, steps + 1):
                with Scratch(store, "gc") as scratch:
                    scratch.gc(size_bytes)
                assert stores.dying(build, at) == 0, f"step {at} of {steps}"
                assert Path("/proc/self/mountinfo").read_text() == mounts
                said: list[str] = []
                after = Store(store.directory, access, said.append)
                assert all(after.have(name) for name in [key("a"), *os.listdir(after.layers)])
                sweep(after)
                assert (os.listdir(after.tmp), said) == ([], []), f"step {at}"

    stores.in_private(work)


def test_nothing_is_deleted_below_a_mount(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        leaf = Path(store.tmp) / "dead/1/a b"
        leaf.mkdir(parents=True)
        libc.mount("none", leaf, "tmpfs")
        (leaf / "precious").touch()
        said: list[str] = []
        store.say = said.append
        assert sweep(store) == []
        assert said == [f"{store.tmp}/dead is not deleted: {leaf} is mounted; unmount it first"]
        assert (leaf / "precious").exists()

    in_store(tmp_path / "store", work, [])


def fill_disk(directory: Path) -> None:
    with open(directory / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("room_kib", [64, 300])
def test_a_full_disk_is_said_and_the_store_stays_whole(tmp_path: Path, room_kib: int) -> None:
    def work() -> None:
        libc.mount("none", tmp_path, "tmpfs", 0, "size=2m")
        with stores.namespace() as inside:
            store = Store(str(tmp_path / "store"), Access(stores.BASE, inside), print)
            with Scratch(store, "run") as scratch:
                stores.commit(scratch, None, "a")
                with scratch.tree(key("a")) as tree:
                    Path(f"{tree.path}/b").write_bytes(b"x" * room_kib * 1024)
                    fill_disk(tmp_path)
                    with pytest.raises(HostError, match="the disk is full"):
                        scratch.commit(tree, made("b"))
                fill_disk(tmp_path)
                with pytest.raises(HostError, match=r"disk is full|No space"):
                    export.export_tree(scratch, key("a"), f"{tmp_path}/out")
                assert sorted(os.listdir(tmp_path)) == ["filler", "store"]
                (tmp_path / "filler").unlink()
                stores.commit(scratch, "a", "b")
            assert store.have(key("b"))
            assert os.listdir(store.tmp) == []

    stores.in_private(work)


def test_a_disk_too_full_for_a_mount_is_not_taken_for_an_unfit_one(tmp_path: Path) -> None:
    said: list[str] = []

    def work() -> None:
        libc.mount("none", tmp_path, "tmpfs", 0, "size=1m,nr_inodes=24")
        with stores.namespace() as inside:
            store = Store(str(tmp_path / "store"), Access(stores.BASE, inside), said.append)
            with Scratch(store, "run") as scratch:
                with contextlib.suppress(OSError):
                    for number in range(24):
                        (tmp_path / f"filler{number}").touch()
                for free in range(14):
                    with pytest.raises(HostError, match="the disk is full"):
                        stores.commit(scratch, None, "a")
                    (tmp_path / f"filler{free}").unlink(missing_ok=True)
        assert said == []

    stores.in_private(work)


def test_a_read_only_store_can_be_asked_but_not_built_in(tmp_path: Path) -> None:
    stores.fill(stores.open_store(tmp_path / "store"), "a")

    def work() -> None:
        libc.bind(tmp_path, tmp_path)
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        store = stores.open_store(tmp_path / "store")
        assert store.have(key("a"))
        assert sweep(store) == []
        with pytest.raises(HostError, match="read-only"):
            Scratch(store, "run")
        with pytest.raises(HostError, match="read-only"):
            stores.open_store(tmp_path / "new")

    stores.in_private(work)


def test_a_whiteout_in_a_sticky_directory_is_deleted(tmp_path: Path) -> None:
    def work(store: Store) -> None:
        script = "mkdir -m 1777 sticky; chown 5:5 sticky; touch sticky/file"
        with Scratch(store, "run") as scratch:
            with scratch.tree(None) as tree:
                store.access.inside(["sh", "-euc", script], tree.path)
                scratch.commit(tree, made("a"))
            with scratch.tree(key("a")) as tree:
                store.access.inside(["rm", "sticky/file"], tree.path)
                scratch.commit(tree, made("b"))
            assert os.listdir(f"{store.path(key('b'))}/sticky") == ["file"]
        with Scratch(store, "gc") as scratch:
            gone, left = scratch.gc(0)
        assert gone == [key("b"), key("a")]
        assert left == 0
        assert os.listdir(store.layers) == os.listdir(store.tmp) == []

    in_store(tmp_path / "store", work, [])
