"""Stores whose processes race, or are killed in the middle: names only ever mean whole layers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stores import commit, dying, fill, key, open_store

from osbuild_pika.engine.scratch import Scratch, sweep
from osbuild_pika.engine.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


CHILD = """
import os, sys
sys.path[:0] = [{root!r}, {root!r} + "/test"]
import stores
from pathlib import Path
from osbuild_pika.engine.scratch import Scratch
store = stores.open_store(Path({store!r}), [])
{work}
"""


def child(store: Store, work: str) -> list[str]:
    return [sys.executable, "-c", CHILD.format(root=str(ROOT), store=store.directory, work=work)]


def test_processes_race_for_the_same_keys_and_for_space(store: Store) -> None:
    build = """
for number in range(12):
    with Scratch(store, f"{os.getpid()}", copies=True) as run:
        base = None
        for name in "abc":
            if not run.have(stores.key(name)):
                assert run.have(stores.key(base)) if base else True
                stores.commit(run, base, name)
            assert run.have(stores.key(name))
            base = name
"""
    collect = """
for number in range(150):
    with Scratch(store, f"{os.getpid()}", copies=True) as run:
        run.gc(0)
"""
    runs = [subprocess.Popen(child(store, work)) for work in [build, collect] * 3]
    assert [run.wait() for run in runs] == [0] * 6
    assert os.listdir(store.tmp) == []
    assert set(os.listdir(store.layers)) <= {key(name) for name in "abc"}
    assert all(store.have(name) for name in os.listdir(store.layers))


def build_and_collect(store: Store) -> None:
    with Scratch(store, "dying", copies=True) as run:
        commit(run, "a", "b")
        run.gc(0)


def test_a_kill_at_any_step_of_a_commit_and_a_collection(store: Store, tmp_path: Path) -> None:
    fill(store, "a", "c")
    template = tmp_path / "template"
    shutil.copytree(store.directory, template)
    steps = dying(lambda: build_and_collect(store), at=0)
    assert steps > 20
    for at in range(1, steps + 1):
        shutil.rmtree(store.directory)
        shutil.copytree(template, store.directory)
        assert dying(lambda: build_and_collect(store), at) == 0, f"step {at} of {steps}"
        said: list[str] = []
        after = open_store(Path(store.directory), said)
        assert all(after.have(name) for name in os.listdir(after.layers)), f"step {at}"
        assert set(sweep(after)) <= {"dying"}
        assert os.listdir(after.tmp) == []
        assert said == []


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_layer_is_synced_before_it_gets_its_name(store: Store, tmp_path: Path) -> None:
    fill(store, "a")
    work = 'with Scratch(store, "run", copies=True) as run: stores.commit(run, "a", "b")'
    log = tmp_path / "log"
    trace = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename,renameat2,syncfs"]
    subprocess.run([*trace, *child(store, work)], check=True)
    entry, layer = f"{store.tmp}/run/1", f"{store.layers}/{key('b')}"
    lines = [line for line in log.read_text().split("\n") if store.directory in line]
    renamed = [number for number, line in enumerate(lines) if f'"{layer}"' in line]
    assert len(renamed) == 1
    before = "".join(lines[: renamed[0]])
    names = ["layer/a", "layer/b", "layer", "meta.json", "info.json"]
    for path in [entry, *(f"{entry}/{name}" for name in names)]:
        assert f"<{path}>)" in before, path
    assert f"<{store.layers}>)" in "".join(lines[renamed[0] :])
