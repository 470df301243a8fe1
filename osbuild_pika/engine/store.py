"""The store: every finished stage is kept as a layer, under a key that says what made it.

    <store>/store.json                          whose ids its files have
            layers/<key>/                       see layers.py
            sources/org.osbuild.files/<checksum>
            tmp/<run>/                          a run in progress: flocked while it lives

No path is recorded: a store can be moved. A layer gets its name when all of it is durable; a name
in layers/ is only ever removed by a rename into tmp/. Locks, all flock: a run holds tmp/<run>
exclusively, and shared each layer that it uses; who adds or removes names in layers/ holds that
directory; sources/ has a lock of its own, see fetched.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from osbuild_pika.engine import disk, fetched, layers
from osbuild_pika.engine.copytree import Inside
from osbuild_pika.engine.layers import Damaged, Info, Kept
from osbuild_pika.errors import HostError

DEFAULT_MAX_BYTES = 20 * 1024**3
_FORMAT = 1
_SOURCES = "sources/org.osbuild.files"


class Access(NamedTuple):
    """How the trees of a store are touched.

    base: the id that root inside has, as the engine sees it. inside: see copytree. trees: where
    they are mounted, each on a directory of its own that root inside can reach; None: below tmp/.
    """

    base: int
    inside: Inside
    trees: str | None = None


class Store:
    """A store's directory, made if there is none. Raises HostError.

    say: called with one line for what was found wrong and is mended or avoided.
    """

    def __init__(self, directory: str, access: Access, say: Callable[[str], None]) -> None:
        self.directory = os.path.abspath(directory)
        self.access = access
        self.say = say
        self.layers = os.path.join(self.directory, "layers")
        self.sources = os.path.join(self.directory, _SOURCES)
        self.tmp = os.path.join(self.directory, "tmp")
        self._said: set[str] = set()
        with disk.explained(f"the store {self.directory}"):
            self._open()

    def _open(self) -> None:
        wanted = _outside(self.access.base)
        path = os.path.join(self.directory, "store.json")
        if not os.path.lexists(path):
            os.makedirs(self.directory, 0o700, exist_ok=True)
            for each in (self.layers, self.sources, self.tmp):
                os.makedirs(each, 0o755, exist_ok=True)
            self._record(path, wanted)
        try:
            with open(path, "rb") as file:
                found = json.loads(file.read(4096))
            version, base = found["format"], found["base_id"]
        except (ValueError, KeyError, TypeError):
            raise HostError(f"{path} is damaged: delete the store, or restore the file") from None
        if version != _FORMAT:
            raise HostError(f"{path}: format {version} is not known: use another --store")
        if base != wanted:
            raise HostError(
                f"{self.directory} was made with subordinate ids from {base}, yours begin at "
                f"{wanted}: give {base} back in /etc/subuid and /etc/subgid, or use another --store"
            )

    def _record(self, path: str, base: int) -> None:
        new = f"{path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):  # of a killed one that had our number
            os.unlink(new)
        content = json.dumps({"format": _FORMAT, "base_id": base}).encode() + b"\n"
        disk.write_new((new, content))
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        os.unlink(new)
        disk.sync_directory(self.directory)

    def have(self, key: str) -> bool:
        """Whether a tree can be had without work; nothing keeps it from being collected then."""
        return bool(self.chain(key, self.look))

    def look(self, key: str) -> Info | None:
        """What is known of one layer. Raises Damaged."""
        return layers.read(self.layers, key)

    def chain(self, key: str, look: Callable[[str], Info | None]) -> list[Info]:
        """The layers of a tree, lowest first; [] if one is not sound, which is said once."""
        try:
            return layers.chain(key, look)
        except Damaged as error:
            if key not in self._said:
                self.say(f"the layer {key[:12]} is damaged and will be built anew: {error}")
            self._said.add(key)
            return []

    def path(self, key: str) -> str:
        """The directory of what a layer changed."""
        return os.path.join(self.layers, key, "layer")

    def meta(self, key: str) -> bytes:
        """meta.json of a layer. Raises HostError."""
        path = os.path.join(self.layers, key, "meta.json")
        with disk.explained(f"the layer {key[:12]}"), open(path, "rb") as file:
            return file.read()

    def pin(self, key: str) -> int | None:
        """Keep a layer from being collected and mark it as used now.

        Returns a descriptor, to be closed; None if there is no such layer (any more).
        """
        path = os.path.join(self.layers, key)
        try:
            fd = disk.open_directory(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if disk.is_still(path, fd):
                with contextlib.suppress(OSError):  # a read-only store
                    os.utime(fd)
                return fd
        except BlockingIOError:
            pass  # it is being collected
        os.close(fd)
        return None

    @contextlib.contextmanager
    def names_held(self) -> Iterator[None]:
        """While nobody else adds or removes layers."""
        fd = disk.open_directory(self.layers)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def place(self, entry: str, key: str) -> int | None:
        """Give a finished layer its name, durably, unless there is a sound one already.

        A damaged one in its place is moved beside `entry`. Returns what `pin` does, of the layer
        that has the name then: nobody can collect it in between.
        """
        path = os.path.join(self.layers, key)
        with self.names_held():
            if os.path.lexists(path):
                with contextlib.suppress(Damaged):
                    if layers.chain(key, self.look):
                        return self.pin(key)
                os.rename(path, f"{entry}.damaged")
            os.rename(entry, path)
            disk.sync_directory(self.layers)
            self._said.discard(key)
            return self.pin(key)

    def evict(self, to: str, max_bytes: int) -> tuple[list[str], int]:
        """Move layers, and what was fetched, into the directory `to` until the rest takes at most
        max_bytes.

        Returns the names that went (keys of layers, and see fetched.is_fetched) and the bytes that
        stay; damaged layers go first. No layer goes that a run has pinned, nor one that another
        needs; nothing fetched while a build reads it.
        """
        gone: list[str] = []
        pinned: set[str] = set()
        with self.names_held(), fetched.collecting(self.sources) as content:
            kept, damaged = self._scan()
            kept |= content
            gone += [key for key in damaged if self._take(key, to)]
            chosen = layers.victims(kept, pinned, max_bytes)
            while chosen:
                if self._take(chosen[0], to):
                    gone.append(chosen[0])
                    del kept[chosen[0]]
                    chosen = chosen[1:]
                else:  # what it stands on stays, too
                    pinned.add(chosen[0])
                    chosen = layers.victims(kept, pinned, max_bytes)
            disk.sync_directory(self.layers)
        return gone, sum(each.size_bytes for each in kept.values())

    def _scan(self) -> tuple[dict[str, Kept], list[str]]:
        """All layers, and the damaged ones among what lies in layers/ under a key."""
        kept: dict[str, Kept] = {}
        damaged = []
        names = [name for name in os.listdir(self.layers) if layers.is_key(name)]
        look = functools.cache(self.look)  # a chain is as long as the stages are many
        for key in sorted(names):
            used = os.stat(os.path.join(self.layers, key), follow_symlinks=False).st_mtime_ns
            try:
                layers.chain(key, look)
                info = look(key)
            except Damaged:
                damaged.append(key)
                continue
            if info is not None:
                kept[key] = Kept(None if info.is_whole else info.base, info.size_bytes, used)
        return kept, damaged

    def _take(self, key: str, to: str) -> bool:
        """Move a layer away, unless somebody has pinned it; or what was fetched."""
        if fetched.is_fetched(key):
            os.unlink(os.path.join(self.sources, key))
            return True
        path = os.path.join(self.layers, key)
        try:
            fd = disk.open_directory(path)
        except NotADirectoryError:
            os.rename(path, os.path.join(to, key))
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(path, os.path.join(to, key))
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


def lookup(directory: str) -> Callable[[str], bool]:
    """Says of a key whether a store has its tree. Only reads: nothing is made or pinned.

    A store that is not there, or not ours to read, has nothing.
    """
    path = os.path.join(directory, "layers")

    def have(key: str) -> bool:
        try:
            return bool(layers.chain(key, lambda each: layers.read(path, each)))
        except Damaged:
            return False

    return have


def _outside(base: int) -> int:
    """What an id of ours is called outside of our user namespace: the one on the disk."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            first, outside, count = (int(word) for word in line.split())
            if first <= base < first + count:
                return outside + base - first
    raise HostError(f"the id {base} is none of this user namespace: see /proc/self/uid_map")
