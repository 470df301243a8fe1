"""An ordinary user with subordinate ids builds what root builds, byte for byte."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_kills
import builds
import pytest
import staging
from builds import Place, ended, manifest, named, sh
from users import USER, UsersPlace

SCRIPTS = (
    """
    mkdir -p etc usr/bin var/lib/old; echo one >etc/one; echo two >etc/two; chown 7:8 etc/two
    ln etc/one etc/hard; ln -s one etc/soft; mkfifo var/pipe; mkdir -m 700 secret
    echo x >usr/bin/ping; chmod 4755 usr/bin/ping; chmod 1777 var
    for n in $(seq 100); do echo $n >var/lib/old/$n; done
    """,
    "rm etc/two; rm -r var/lib/old; mkdir var/lib/old; echo new >var/lib/old/4; chown 5:5 .",
    "tar --create --sort=name --numeric-owner --format=gnu --mtime=@1 --file=all.tar etc usr var",
)


@pytest.fixture(name="place")
def fixture_place() -> Iterator[Path]:
    """A directory whose parents everybody may search; tmp_path has others."""
    builds.needs_root()
    if not staging.can_run() or shutil.which("newuidmap") is None:
        pytest.skip("needs user namespaces and newuidmap")
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)
    with_users = Path(f"/tmp/osbuild-pika-{pwd.getpwnam(USER).pw_uid}")  # noqa: S108
    assert not list(with_users.iterdir())  # it stays: another build of the user's may be in it


def what() -> dict[str, Any]:
    """The manifest that both build."""
    found = manifest(*map(sh, SCRIPTS))
    found["pipelines"][0]["source-epoch"] = build_kills.EPOCH
    return found


def facts(tree: Path) -> dict[str, Any]:
    """What is at each path of a tree, but for its owner."""
    found = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        link = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(tree))] = (
            *(stat.st_mode, stat.st_nlink, stat.st_mtime_ns),
            *(link, content),
        )
    return found


def test_a_users_build_exports_what_roots_does(place: Path) -> None:
    (place / "root").mkdir()
    ours, theirs = Place(place / "root"), UsersPlace(place / "user")
    for each in (ours, theirs):
        code, records = each.build(what())
        assert code == 0, records
        assert ended(each.path / "runs/test")["status"] == "completed"
        assert os.listdir(each.path / "store/tmp") == []
        assert not build_kills.left_of(each)
    assert (theirs.output / "all.tar").read_bytes() == (ours.output / "all.tar").read_bytes()
    assert facts(theirs.output) == facts(ours.output)
    uid = pwd.getpwnam(USER).pw_uid
    assert (place / "user/store/store.json").stat().st_uid == uid
    assert (theirs.output / "etc/one").stat().st_uid == uid
    code, records = theirs.build(what())
    assert [len(named(records, name)) for name in ("stage.cached", "stage.started")] == [3, 0]


def test_a_users_killed_build_leaves_nothing(place: Path) -> None:
    theirs = UsersPlace(place / "user")
    slow = manifest(sh(SCRIPTS[0]), sh(f": {theirs.path}/; echo at work; sleep 600"))
    with theirs.started(theirs.order(slow)) as started:
        started.until(lambda record: record.get("text") == "at work\n")
        started.process.kill()
        started.process.wait()
        builds.wait_for((theirs.path / "runs/test/result.json").exists, 5)
        builds.wait_for(lambda: not build_kills.left_of(theirs), 5)
    assert ended(theirs.path / "runs/test")["details"]["event"] == "engine.lost"
    code, records = theirs.build(manifest(sh(SCRIPTS[0]), sh("true")))
    assert code == 0, records
    assert len(named(records, "stage.cached")) == 1
