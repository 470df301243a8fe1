"""Cleaning removes what tells two builds apart, keeps what packages need, and follows no link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inodes import inode

from osbuild_pika.inside import clean

EPOCH = 1_700_000_000
GONE = (
    *("etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/passwd-", "etc/.pwd.lock"),
    *("var/lib/dpkg/status-old", "var/lib/dpkg/lock", "var/cache/debconf/config.dat-old"),
    *("var/log/dpkg.log", "var/log/apt/term.log", "var/cache/ldconfig/aux-cache", "run/x/y"),
    *("tmp/.hidden", "var/cache/apt/pkgcache.bin", "var/lib/apt/lists/x_Packages", "dev/null"),
    *("var/cache/apt/archives/a.deb", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"),
)
KEPT = (
    *("etc/ssh/sshd_config", "etc/passwd", "var/lib/dpkg/status", "var/log/README"),
    *("var/cache/debconf/config.dat", "usr/share/doc/x-", "etc/x.d/ssh_host_rsa_key"),
)


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in (*GONE, *KEPT, "etc/machine-id", "var/log/wtmp"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("text\n")
    (tree / "var/log/README").unlink()
    (tree / "var/log/README").symlink_to("../../usr/share/doc/x-")
    for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (tree / name).mkdir()
    return tree


def test_only_what_tells_builds_apart_is_removed(tree: Path) -> None:
    clean.clean(tree, EPOCH)
    assert not [name for name in GONE if os.path.lexists(tree / name)]
    assert [name for name in KEPT if os.path.lexists(tree / name)] == list(KEPT)
    assert (tree / "etc/machine-id").read_bytes() == (tree / "var/log/wtmp").read_bytes() == b""
    assert (tree / "var/lib/apt/lists/partial").is_dir()
    assert (tree / "var/cache/apt/archives/partial").is_dir()


def test_nothing_else_is_touched(tree: Path) -> None:
    os.utime(tree / "etc/passwd", (2 * EPOCH, 2 * EPOCH))
    before = inode(tree / "etc/passwd")
    clean.clean(tree, EPOCH)
    assert inode(tree / "etc/passwd") == before


def test_links_lead_nowhere_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    os.utime(outside / "file", (EPOCH + 10, EPOCH + 10))
    for name in ("tmp/link", "var/log/link", "run/link"):
        (tree / name).symlink_to(outside)
    (tree / "var/tmp").symlink_to(outside)
    (tree / "var/log/file.log").symlink_to(outside / "file")
    clean.clean(tree, EPOCH)
    assert (outside / "file").read_text() == "mine"
    assert (outside / "file").stat().st_mtime == EPOCH + 10


def test_an_empty_tree_is_clean(tmp_path: Path) -> None:
    assert clean.clean(tmp_path, EPOCH) == "removed 0 files"
