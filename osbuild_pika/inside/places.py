"""Where the paths of a stage's options lead: always below their root, as if that were /.

A stage's tree is an image's root: `/etc -> /usr/etc` in it means the image's /usr/etc, never that
of the sandbox. Nobody else changes the tree while a stage runs, so looking before is enough.
"""

from __future__ import annotations

import os

from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

MAX_LINKS = 40  # as Linux
MOUNTS = "/run/osbuild/mounts"


class Places:
    """Resolves locations: `tree:///path`, `mount://NAME/path`, `input://NAME/path`.

    A location without a scheme lies in the tree. `mount:///path` lies below all mounts' root.
    """

    def __init__(
        self,
        tree: str | os.PathLike[str],
        mounts: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        mounts_root: str = MOUNTS,
    ) -> None:
        self._tree = os.fspath(tree)
        self._mounts = mounts or {}
        self._inputs = inputs or {}
        self._mounts_root = mounts_root

    def find(self, location: str, follow: bool = True) -> str:
        """The path of a location. follow: whether its last component may be a link to go on from.

        Raises StageError if there is no such mount or input, or the location is none.
        """
        if "://" not in location:
            return resolve(self._tree, location, follow)
        scheme, _, rest = location.partition("://")
        name, slash, path = rest.partition("/")
        if scheme not in ("tree", "mount", "input") or not slash or (scheme == "tree" and name):
            raise StageError(
                f"{location}: a location is tree:///path, mount://NAME/path or input://NAME/path"
            )
        return resolve(self._root(scheme, name), path, follow)

    def _root(self, scheme: str, name: str) -> str:
        if scheme == "tree":
            return self._tree
        if scheme == "mount" and not name:
            return self._mounts_root
        known = self._mounts if scheme == "mount" else self._inputs
        root = (known.get(name) or {}).get("path")
        if not isinstance(root, str):
            raise StageError(f"{scheme}://{name}/: the stage has no {scheme} of this name")
        return root


def resolve(root: str | os.PathLike[str], path: str, follow: bool = True) -> str:
    """The path of `path` below root. What does not exist is taken as it is.

    follow: whether the last component may be a link to go on from; a path that ends with a slash
    means what the link leads to. Raises StageError.
    """
    if "\0" in path:
        raise StageError(f"{path!a}: a path has no NUL")

    def target_of(name: str) -> str | None:
        here = os.path.join(root, name)
        return os.readlink(here) if os.path.islink(here) else None

    return os.path.join(root, *walk(path, target_of, follow))


def walk(path: str, target_of: Callable[[str], str | None], follow: bool = True) -> list[str]:
    """The components of the name that a path leads to, links followed as if the tree were /.

    target_of: where the link of a name (from the tree, without a slash before it) leads; None if
    it is no link. follow: as of `resolve`. Raises StageError.
    """
    waiting = path.split("/")[::-1]
    found: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del found[-1:]
            continue
        target = target_of("/".join([*found, part])) if waiting or follow else None
        if target is None:
            found.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise StageError(f"{path}: too many links")
        if target.startswith("/"):
            found = []
        waiting += target.split("/")[::-1]
    return found


def read_text(root: str | os.PathLike[str], path: str, limit: int) -> str:
    """The begin of a file below root, up to `limit` characters; "" if there is none. Raises
    StageError."""
    place = resolve(root, path)
    if not os.path.isfile(place):
        return ""
    with open(place, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(limit)
