"""Paths of options stay below their root, whatever links the tree has."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika.inside.places import Places, resolve
from osbuild_pika.inside.stage import StageError


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "usr/etc").mkdir(parents=True)
    (tree / "etc").symlink_to("/usr/etc")
    (tree / "up").symlink_to("../../../../usr")
    (tree / "gone").symlink_to("/nowhere/at/all")
    (tree / "usr/back").symlink_to("../etc/passwd")
    (tree / "loop").symlink_to("loop")
    return tree


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "."),
        ("", "."),
        ("/etc", "usr/etc"),
        ("etc/passwd", "usr/etc/passwd"),
        ("/up/etc", "usr/etc"),
        ("/../../usr", "usr"),
        ("/usr/back", "usr/etc/passwd"),
        ("//etc/./../x", "usr/x"),
        ("/gone", "nowhere/at/all"),
        ("/new/dir/", "new/dir"),
    ],
)
def test_links_are_followed_inside(path: str, found: str, tree: Path) -> None:
    assert os.path.normpath(resolve(tree, path)) == os.path.normpath(tree / found)


@pytest.mark.parametrize(
    ("path", "found"), [("/etc", "etc"), ("/etc/", "usr/etc"), ("/etc/up", "usr/etc/up")]
)
def test_the_last_link_can_be_meant_itself(path: str, found: str, tree: Path) -> None:
    assert resolve(tree, path, follow=False) == str(tree / found)


@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "etc", "up", "gone", "usr", "back", "é"])),
    follow=st.booleans(),
)
def test_no_path_leads_out(
    parts: list[str], follow: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = tmp_path_factory.getbasetemp() / "any/tree"
    tree.mkdir(parents=True, exist_ok=True)
    for name, target in (("etc", "/usr/etc"), ("up", "../../.."), ("gone", "/x/y")):
        with contextlib.suppress(FileExistsError):
            (tree / name).symlink_to(target)
    found = resolve(tree, "/".join(parts), follow)
    parent = os.path.realpath(os.path.dirname(found)) if found != str(tree) else str(tree)
    assert f"{parent}/".startswith(f"{tree}/")


@pytest.mark.parametrize("path", ["/loop", "/loop/x", "/a\0b"])
def test_what_cannot_be_found_is_said(path: str, tree: Path) -> None:
    with pytest.raises(StageError):
        resolve(tree, path)


def test_locations(tree: Path) -> None:
    named = {"root": {"path": "/mnt/root"}}
    places = Places(tree, named, {"files": {"path": "/in/files"}}, "/mnt")
    assert places.find("tree:///x") == places.find("/x") == places.find("x") == str(tree / "x")
    assert places.find("mount://root/x#y?z") == "/mnt/root/x#y?z"
    assert places.find("mount:///x") == "/mnt/x"
    assert places.find("input://files/../x") == "/in/files/x"


@pytest.mark.parametrize(
    "location",
    ["tree://x", "tree://x/y", "mount://", "mount://x", "mount://other/", "input:///x", "file:///"],
)
def test_wrong_locations(location: str, tree: Path) -> None:
    with pytest.raises(StageError, match="://"):
        Places(tree).find(location)
