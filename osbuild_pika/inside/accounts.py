"""The users and groups of a tree: who has which id, and the accounts that a definition adds."""

from __future__ import annotations

import os

from osbuild_pika.inside import intree
from osbuild_pika.inside.places import read_text, resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

MAX_ID = 65535  # what a user namespace of a container has
MAX_SIZE = 4 * 1024 * 1024  # characters


class Accounts:
    """Names and ids of a tree. users, groups: texts of its /etc/passwd and /etc/group."""

    def __init__(self, users: str, groups: str) -> None:
        self._users = entries(users)
        self._groups = entries(groups)

    @classmethod
    def of(cls, tree: Path) -> Accounts:
        return cls(*(read_text(tree, name, MAX_SIZE) for name in ("/etc/passwd", "/etc/group")))

    def user_id(self, name: str | int) -> int:
        """The id of a user, given by name or number. Raises StageError."""
        return _id("user", name, self._users)

    def group_id(self, name: str | int) -> int:
        """The id of a group, given by name or number. Raises StageError."""
        return _id("group", name, self._groups)

    def user(self, name: str) -> list[str] | None:
        """The seven fields of a user in passwd; None if there is no such."""
        return self._users.get(name)


def entries(text: str) -> dict[str, list[str]]:
    """Name -> fields, of the lines of passwd, group or shadow. The first of a name counts."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 4:
            found.setdefault(fields[0], fields)
    return found


def _id(kind: str, name: str | int, known: Mapping[str, list[str]]) -> int:
    text = str(name)
    if text in known and known[text][2].isdecimal():
        text = known[text][2]
    elif text == "root":  # a tree without packages has no passwd
        text = "0"
    if not text.isdecimal():
        raise StageError(f"the image has no {kind} {ascii(name)[:80]}")
    if int(text) > MAX_ID:
        raise StageError(f"{kind} {text}: the last id of an image is {MAX_ID}")
    return int(text)


def add_group(tree: Path, name: str, options: Mapping[str, Any], force: bool) -> None:
    """Make a group. force: one that is there already is fine. Raises StageError."""
    words = ["groupadd", *(["--force"] if force else [])]
    if "gid" in options:
        words += ["--gid", str(int(options["gid"]))]
    intree.run_checked(tree, [*words, name], f"group {name}")


def set_user(tree: Path, name: str, options: Mapping[str, Any]) -> None:
    """Make a user, or change one that is there. Raises StageError."""
    known = Accounts.of(tree).user(name)
    uid = options.get("uid")
    if known is None:
        words = ["useradd", *_made(options), *_fields(options)]
        intree.run_checked(tree, [*words, name], f"user {name}")
    else:
        if uid is not None and str(int(uid)) != known[2]:
            raise StageError(f"user {name}: has the uid {known[2]} already, not {int(uid)}")
        changes = _fields(options)
        if changes:
            intree.run_checked(tree, ["usermod", *changes, name], f"user {name}")
    if options.get("force_password_reset"):
        intree.run_checked(tree, ["passwd", "--expire", name], f"user {name}")
    keys = [*options.get("keys", []), *([options["key"]] if options.get("key") else [])]
    if keys:
        _authorize(tree, name, keys)


def _made(options: Mapping[str, Any]) -> list[str]:
    """What useradd takes and usermod does not."""
    home = options.get("home")
    words = ["--no-create-home"] if home == "" else ["--create-home"]
    if options.get("uid") is not None:
        words += ["--uid", str(int(options["uid"])), "--non-unique"]
    return words


def _fields(options: Mapping[str, Any]) -> list[str]:
    """What useradd and usermod both take."""
    words = []
    if options.get("gid") is not None:
        words += ["--gid", str(int(options["gid"]))]
    if options.get("groups"):
        words += ["--groups", ",".join(options["groups"])]
    given = {"description": "--comment", "home": "--home", "shell": "--shell"}
    for name, flag in {**given, "password": "--password", "expiredate": "--expiredate"}.items():
        is_said = options.get(name) is not None
        if is_said and (options[name] != "" or name in ("description", "password")):
            words += [flag, str(options[name])]
    return words


def _authorize(tree: Path, name: str, keys: list[str]) -> None:
    """Let a user in by ssh keys, beside those that are known already."""
    user = Accounts.of(tree).user(name)
    if user is None or len(user) < 6:
        raise StageError(f"user {name}: is not in the tree's passwd")
    uid, gid = int(user[2]), int(user[3])
    # The home may be another package's: below it nothing is followed that leads out of the tree.
    home = resolve(tree, user[5])
    if not os.path.isdir(home):
        raise StageError(f"user {name}: has no home directory {user[5]} for its ssh keys")
    folder = os.path.join(home, ".ssh")
    if not os.path.lexists(folder):
        os.mkdir(folder, 0o700)
        os.chown(folder, uid, gid)
    path = os.path.join(folder, "authorized_keys")
    if os.path.islink(folder) or os.path.islink(path):
        raise StageError(f"user {name}: ~/.ssh is a link")
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(f"{key.strip()}\n" for key in keys))
    os.chown(path, uid, gid)
    os.chmod(path, 0o600)
