"""One tree, whoever makes it: from overlay mounts, from copies, as root, as an ordinary user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import stores
from stores import key, made

from osbuild_pika.engine import export
from osbuild_pika.engine.scratch import Scratch
from osbuild_pika.engine.store import Access, Store

pytestmark = pytest.mark.skipif(
    not stores.is_root_that_mounts(), reason="needs root that may mount"
)

# What overlayfs needs marks for. Nothing writes one of two hard links of a layer below: it splits
# them, see test_store_overlay.py.
STAGES = {
    "first": """
        mkdir -p etc usr/bin var/lib/old var/tmp; chmod 1777 var/tmp; chmod 0750 .
        echo one >etc/one; echo two >etc/two; echo b >etc/both
        ln etc/both etc/hard; ln -s /etc/one etc/soft
        echo x >usr/bin/ping; chmod 4755 usr/bin/ping; chown 7:8 etc/two; mkfifo var/pipe
        for n in 1 2 3; do echo $n >var/lib/old/$n; done; echo sticky >var/tmp/file
        truncate -s 1M var/hole; mkdir empty
    """,
    "whiteouts": "rm etc/two var/tmp/file; rmdir empty",
    "opaque": "rm -r var/lib/old; mkdir var/lib/old; echo new >var/lib/old/4",
    "rename": "mkdir deep; mv usr deep/usr; mv deep/usr/bin deep/bin",
    "again": "mkdir usr empty; echo y >usr/new; echo back >etc/two; mv etc/soft etc/softer",
    "attributes": "setcap cap_net_raw+ep deep/bin/ping; touch -d @1500000000 etc/two",
    "links": "ln etc/one etc/third; ln deep/bin/ping deep/ping; chmod 0700 var/lib; chown 5:5 .",
}
# Without --sparse: tar names such files by its pid.
TAR = [
    *("tar", "--create", "--sort=name", "--numeric-owner", "--format=posix"),
    *(
        "--pax-option=exthdr.name=%d/pax/%f,delete=atime,delete=ctime",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        ".",
    ),
]


def build(scratch: Scratch, copied: bool) -> None:
    base = None
    inside = scratch.store.access.inside
    for name, script in STAGES.items():
        with scratch.tree(base and key(base), copied=copied) as tree:
            inside(["sh", "-euc", script], tree.path)
            if name == "attributes":
                for path in ("etc/one", "etc", "."):
                    os.setxattr(f"{tree.path}/{path}", "user.note", b"\0binary\xff")
            assert tree.is_whole is copied
            scratch.commit(tree, made(name, stores.EPOCH))
        base = name


def packed(store: Store, copied: bool) -> bytes:
    """The tree that the stages make, as a tar."""
    with Scratch(store, "run") as scratch:
        build(scratch, copied)
        with scratch.view(key("links")) as tree:
            assert os.listdir(f"{tree}/var/lib/old") == ["4"]
            assert os.stat(f"{tree}/var/hole").st_blocks == 0
            return store.access.inside(TAR, tree)


def test_overlay_and_copy_make_the_same_tree_byte_for_byte(tmp_path: Path) -> None:
    def work() -> None:
        with stores.namespace() as inside:
            tars = []
            for copied in (False, True):
                store = Store(str(tmp_path / f"{copied}"), Access(stores.BASE, inside), print)
                tars.append(packed(store, copied))
                assert not os.listdir(store.tmp)
                with Scratch(store, "export") as scratch:
                    export.export_tree(scratch, key("links"), str(tmp_path / f"o{copied}"))
                tars.append(stores.directly(TAR, str(tmp_path / f"o{copied}")))  # unshifted
        assert tars[0].count(b"SCHILY.xattr.user.note") == 3
        assert b"SCHILY.xattr.security.capability" in tars[0]
        assert tars[0] == tars[1] == tars[2] == tars[3]

    stores.in_private(work)


def test_an_ordinary_user_makes_the_same_tree_byte_for_byte(tmp_path: Path) -> None:
    user = stores.BASE + 100_000
    (tmp_path / "his").mkdir()
    os.chown(tmp_path / "his", user, user)

    def work() -> None:
        with stores.namespace() as inside:
            store = Store(str(tmp_path / "store"), Access(stores.BASE, inside), print)
            wanted = packed(store, copied=False)
        os.chdir(tmp_path / "his")  # he could not go there by its path
        stores.become_root(user)
        with stores.namespace(1) as inside:
            said: list[str] = []
            store = Store("/proc/self/cwd/store", Access(1, inside), said.append)
            assert packed(store, copied=False) == wanted
            assert said == []

    stores.in_private(work)
    record = json.loads((tmp_path / "his/store/store.json").read_text())
    assert record["base_id"] == user + 1
    assert (tmp_path / "his/store").stat().st_uid == user
