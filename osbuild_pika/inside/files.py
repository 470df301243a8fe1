"""Files that a definition gives: written into a tree, and never anywhere else.

Paths are the image's: links of the tree are followed as the image would follow them, below the
tree only. What is at the place already is replaced, but no directory.
"""

from __future__ import annotations

import os
import re
import shutil

from osbuild_pika.inside.accounts import Accounts
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

MODE = re.compile(r"[0-7]{3,4}\Z")


def place(tree: Path, path: str) -> str:
    """Where a path of the image is, after making the directories above it. Raises StageError."""
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise StageError(
            f"{ascii(path)[:200]}: is no path of a file in the image, such as /etc/motd"
        )
    if ".." in path.split("/"):
        raise StageError(f"{path}: has a `..` in it")
    parent, _, name = path.rpartition("/")
    folder = make_directory(tree, parent or "/")
    target = os.path.join(folder, name)
    if os.path.isdir(target) and not os.path.islink(target):
        raise StageError(f"{path}: is a directory of the image")
    return target


def make_directory(tree: Path, path: str) -> str:
    """Make a directory of the image and those above it, mode 0755; returns where it is. Raises
    StageError if something else is in its place."""
    known = resolve(tree, path)
    made = str(tree)
    for part in os.path.relpath(known, tree).split("/"):
        made = os.path.join(made, part)
        if not os.path.lexists(made):
            os.mkdir(made, 0o755)
            os.chmod(made, 0o755)  # noqa: S103 - whatever the umask is
        if os.path.islink(made) or not os.path.isdir(made):
            raise StageError(f"{path}: {made[len(str(tree)) :]} is no directory of the image")
    return known


def write(tree: Path, path: str, content: bytes, mode: int = 0o644) -> str:
    """Write a file of the image, root's; returns where it is. Raises StageError."""
    target = _cleared(tree, path)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, mode)
    return target


def link(tree: Path, path: str, target: str) -> None:
    """Make a symbolic link of the image; whether it leads anywhere is not asked."""
    os.symlink(target, _cleared(tree, path))


def _cleared(tree: Path, path: str) -> str:
    target = place(tree, path)
    if os.path.lexists(target):
        os.unlink(target)  # a link would lead to another file, a hard link has other names
    return target


def put(tree: Path, item: Mapping[str, Any], source: str | None, accounts: Accounts) -> None:
    """Put one item of the stage's options into the tree.

    source: the directory of the inputs. accounts: of the tree. Raises StageError.
    """
    path = item["path"]
    kinds = [kind for kind in ("content", "checksum", "link") if kind in item]
    if len(kinds) != 1:
        raise StageError(f"{path}: takes one of content, checksum and link")
    mode = item.get("mode", "0644")
    if not MODE.match(mode):
        raise StageError(f"{path}: {ascii(mode)[:40]} is no mode such as 0644")
    owner = accounts.user_id(item.get("user", "root")), accounts.group_id(item.get("group", "root"))
    if kinds == ["link"]:
        if "mode" in item:
            raise StageError(f"{path}: a link has no mode of its own")
        link(tree, path, item["link"])
        target = place(tree, path)
    elif kinds == ["content"]:
        target = write(tree, path, item["content"].encode("utf-8"))
    else:
        target = write(tree, path, b"")
        _copy(item, source, target)
    os.chown(target, *owner, follow_symlinks=False)
    if kinds != ["link"]:
        os.chmod(target, int(mode, 8))  # after chown, which drops set-id bits


def _copy(item: Mapping[str, Any], source: str | None, target: str) -> None:
    given = os.path.join(source or "", item["checksum"])
    if source is None or "/" in item["checksum"] or not os.path.isfile(given):
        raise StageError(f"{item['path']}: no input is {item['checksum']}")
    shutil.copyfile(given, target, follow_symlinks=True)
