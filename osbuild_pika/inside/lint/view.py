"""A file tree as the linter sees it: names and facts, and the content of a few small files.

Nothing is ever followed out of the tree: links are resolved among the names, not by the system.
Names are relative, without "./"; "" is the tree itself. Bytes of a name that are no UTF-8 are lone
surrogates, as Python shows them.
"""

from __future__ import annotations

import os
import stat

from osbuild_pika.inside.places import walk
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FILE, DIRECTORY, LINK, DEVICE, SOCKET, FIFO = (
    "file",
    "directory",
    "link",
    "device",
    "socket",
    "fifo",
)
MAX_NAMES = 2_000_000
MAX_BYTES = 1 << 20  # of a file that is read; longer ones are as if they could not be read
MAX_DATABASE = 64 << 20  # of the package database
DATABASE = "var/lib/dpkg/status"

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFCHR: DEVICE,
    stat.S_IFBLK: DEVICE,
    stat.S_IFSOCK: SOCKET,
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class TreeError(OSError):
    """A tree is larger than what is looked at; str() is one line that names it."""


class Entry:
    """A name of the tree. mode: the permission bits. target: of a link."""

    __slots__ = ("gid", "kind", "mode", "size", "target", "uid")

    def __init__(self, kind: str, mode: int, owner: tuple[int, int], size: int, target: str = ""):
        self.kind = kind
        self.mode = mode
        self.uid, self.gid = owner
        self.size = size
        self.target = target


class View:
    """entries: all names but the tree's own. read_file: the bytes of a regular file of that name;
    None if they cannot be had. unreadable: directories that could not be looked into."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        read_file: Callable[[str], bytes | None],
        unreadable: tuple[str, ...] = (),
    ) -> None:
        self.entries = entries
        self.read_file = read_file
        self.unreadable = unreadable
        self._children: dict[str, list[str]] = {}

    def resolve(self, path: str) -> str | None:
        """The name that a path leads to, links followed within the tree; None: to nothing."""
        try:
            return "/".join(walk(path, self._target))
        except (KeyError, StageError):  # nothing is there; too many links
            return None

    def _target(self, name: str) -> str | None:
        entry = self.entries[name]
        return entry.target if entry.kind == LINK else None

    def find(self, path: str) -> Entry | None:
        """What a path leads to, links followed."""
        name = self.resolve(path)
        return self.entries.get(name) if name else None

    def has(self, path: str) -> bool:
        return self.find(path) is not None

    def read(self, path: str) -> bytes | None:
        """The bytes of the regular file that a path leads to; None: none, or too long."""
        name = self.resolve(path)
        entry = self.entries.get(name) if name else None
        if name is None or entry is None or entry.kind != FILE or entry.size > limit_of(name):
            return None
        return self.read_file(name)

    def text(self, path: str) -> str:
        """The same as text; "" if there is none."""
        return (self.read(path) or b"").decode("utf-8", "replace")

    def children(self, path: str) -> list[str]:
        """The names in a directory, links to it followed; sorted."""
        if not self._children:
            for name in self.entries:
                self._children.setdefault(name.rpartition("/")[0], []).append(name)
            for names in self._children.values():
                names.sort()
        place = self.resolve(path) if path else ""
        return self._children.get(place, []) if place is not None else []

    def below(self, path: str) -> Iterator[str]:
        """All names below a directory."""
        for name in self.children(path):
            yield name
            if self.entries[name].kind == DIRECTORY:
                yield from self.below(name)


def limit_of(name: str) -> int:
    return MAX_DATABASE if name == DATABASE else MAX_BYTES


def of_directory(root: str) -> View:
    """Look at a directory and all below it on the same file system. Raises TreeError, OSError."""
    entries: dict[str, Entry] = {}
    unreadable: list[str] = []
    device = os.lstat(root).st_dev
    waiting = [""]
    while waiting:
        place = waiting.pop()
        try:
            waiting += _scan(os.path.join(root, place), place, device, entries)
        except OSError as error:
            if not place:
                raise
            unreadable.append(f"{place}: {error.strerror}")
        if len(entries) > MAX_NAMES:
            raise TreeError(f"has more than {MAX_NAMES} files")
    return View(entries, lambda name: read_below(root, name), tuple(sorted(unreadable)))


def _scan(path: str, place: str, device: int, entries: dict[str, Entry]) -> list[str]:
    """Note the names of one directory. Returns the directories among them to look into."""
    prefix = f"{place}/" if place else ""
    found = []
    with os.scandir(path) as names:
        for each in names:
            facts = each.stat(follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(facts.st_mode), FIFO)
            name = prefix + each.name
            entries[name] = Entry(
                kind,
                stat.S_IMODE(facts.st_mode),
                (facts.st_uid, facts.st_gid),
                facts.st_size,
                os.readlink(each.path) if kind == LINK else "",
            )
            if kind == DIRECTORY and facts.st_dev == device:
                found.append(name)
    return found


def read_below(root: str, name: str) -> bytes | None:
    """The bytes of a regular file below a directory, no link followed; None if it is none."""
    fds: list[int] = []
    try:
        fds.append(os.open(root, _OPEN | os.O_DIRECTORY))
        *parents, last = name.split("/")
        for part in parents:
            fds.append(os.open(part, _OPEN | os.O_DIRECTORY, dir_fd=fds[-1]))
        fds.append(os.open(last, _OPEN, dir_fd=fds[-1]))
        facts = os.fstat(fds[-1])
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > limit_of(name):
            return None
        with open(fds.pop(), "rb") as file:
            return file.read(limit_of(name) + 1)
    except (OSError, ValueError):
        return None
    finally:
        for fd in fds:
            os.close(fd)
