"""A build root that lacks a program is told which Debian package has it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from osbuild_pika.inside import deb, intree
from osbuild_pika.inside.dpkg import Package
from osbuild_pika.inside.reporter import Reporter
from osbuild_pika.inside.stage import StageError

PACKAGE = Package("a", "1", "all", "sha256:" + "0" * 64, False)


@pytest.mark.parametrize(("program", "package"), deb.PROGRAMS.items())
def test_a_missing_program_is_named_with_its_package(
    program: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in deb.PROGRAMS.keys() - {program}:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    why = f"{program} is not installed in the build root: install {package}"
    with pytest.raises(StageError, match=why):
        deb.extract(tmp_path, [PACKAGE], str(tmp_path), Reporter(None))


def test_a_program_of_the_tree_is_found_in_the_tree_alone(tmp_path: Path) -> None:
    assert not intree.has_program(tmp_path, "sh")
    assert not intree.has_program(tmp_path, "/bin/sh")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/sh").symlink_to("/usr/bin/dash")  # the tree has no dash, the host has
    assert not intree.has_program(tmp_path, "sh")
    (tmp_path / "usr/bin/dash").touch(mode=0o755)
    assert not intree.has_program(tmp_path, "")  # directories can be executable, too
    assert not intree.has_program(tmp_path, "/usr/bin")
    assert intree.has_program(tmp_path, "sh")


def test_a_program_sees_the_tree_and_nothing_that_it_could_leave_it_by(tmp_path: Path) -> None:
    words = intree.command(tmp_path, ["x", "-y"], {"/run/a": "/b"}, {"A": "1"})
    assert words[-3:] == ["--", "x", "-y"]
    pairs = list(itertools.pairwise(words))
    for name in ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD"):
        assert ("--cap-drop", name) in pairs
    assert ("--ro-bind", "/b") in pairs
    assert ("--bind", str(tmp_path)) in pairs
