"""What a run does with a store: look, mount trees, commit layers, and leave nothing behind.

<store>/tmp/<run>/<n>/layer/    what becomes a layer
                      work/     overlayfs's own
                      tree/     where it is mounted (else below Access.trees)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

from osbuild_pika import libc
from osbuild_pika.engine import copytree, disk, layers, overlay
from osbuild_pika.engine.layers import Info
from osbuild_pika.engine.settle import settle
from osbuild_pika.engine.store import DEFAULT_MAX_BYTES, Store
from osbuild_pika.errors import HostError

SWEEP_S = 2.0  # how long a name may be held by somebody who only deletes what a dead run left


class Made(NamedTuple):
    """What is kept of the stage that made a layer. source_epoch: no time in it is later."""

    key: str
    id: str
    type: str
    duration_s: float
    source_epoch: int | None = None


class Tree:
    """A tree in work. base: the layers below, lowest first. is_whole: a copy, not a mount."""

    def __init__(self, path: str, entry: str, base: list[Info], is_whole: bool) -> None:
        self.path = path
        self.entry = entry
        self.base = base
        self.is_whole = is_whole
        self.mounted: list[str] = []

    @property
    def layer(self) -> str:
        return os.path.join(self.entry, "layer")


class Scratch:
    """A run's directory in tmp/, held until the end of a `with` block or of the process.

    What was asked for with `have`, mounted or committed stays until then. The caller must be root
    in a mount namespace of its own (namespace.private_mounts), except with `copies`: then every
    layer is a whole copy, and with no Access.trees nothing is mounted. Raises HostError.
    """

    def __init__(self, store: Store, run: str, copies: bool = False) -> None:
        self.store = store
        self.directory = os.path.join(store.tmp, run)
        self._carries = False if copies else None
        self._pins: dict[str, tuple[int, Info]] = {}
        self._count = 0
        with disk.explained(f"the store {store.directory}"):
            self._lock_fd = self._hold()

    def _hold(self) -> int:
        """Make our directory; one that a dead run of this name left is deleted."""
        deadline = time.monotonic() + SWEEP_S
        while True:
            fd = self._lock()
            if fd is not None:
                if not os.listdir(fd):
                    return fd
                disk.remove_tree(self.directory)
                os.close(fd)
            elif time.monotonic() > deadline:
                raise HostError(f"{self.directory} is another build's, which still runs")
            else:
                time.sleep(0.02)

    def _lock(self) -> int | None:
        """The locked directory, made if there was none; None if somebody has it or deletes it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.directory, 0o755)
        with contextlib.ExitStack() as stack:
            try:
                fd = disk.open_directory(self.directory)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                return None
            if not disk.is_still(self.directory, fd):
                return None
            stack.pop_all()
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # mostly all there is, and to start rm takes longer
            os.rmdir(os.path.join(self.directory, "empty"))
        self._remove(self.directory)
        for fd, _ in self._pins.values():
            os.close(fd)
        self._pins = {}
        os.close(self._lock_fd)

    def _remove(self, path: str) -> None:
        """Delete; what cannot be deleted is said, and swept once we are gone."""
        try:
            disk.remove_tree(path)
        except HostError as error:
            self.store.say(str(error))

    def have(self, key: str) -> bool:
        """Whether a tree can be had without work; if so it stays until our end."""
        return bool(self._chain(key))

    def _chain(self, key: str) -> list[Info]:
        return self.store.chain(key, self._look)

    def _look(self, key: str) -> Info | None:
        """Pin a layer; a pinned one is not read again."""
        if key in self._pins:
            return self._pins[key][1]
        with disk.explained(f"the layer {key[:12]}"):
            return self._keep(key, self.store.pin(key))

    def _keep(self, key: str, fd: int | None) -> Info | None:
        """What is known of a layer, which stays until our end. fd: what Store.pin returned."""
        with contextlib.ExitStack() as stack:
            if fd is not None:
                stack.callback(os.close, fd)
            info = self.store.look(key)
            if fd is None or info is None:
                return None
            stack.pop_all()
        if key in self._pins:  # the damaged one that a new one has replaced
            os.close(self._pins[key][0])
        self._pins[key] = fd, info
        return info

    def _needed(self, key: str | None) -> list[Info]:
        found = [] if key is None else self._chain(key)
        if key is not None and not found:
            raise HostError(f"the layer {key[:12]} is gone from the store: build again")
        return found

    def carries(self) -> bool:
        """Whether the store's file system carries overlay's layers; if not, that is said once."""
        if self._carries is None:
            what = f"the store {self.store.directory}"
            with self._entry() as directory, disk.explained(what):
                self._carries = overlay.can_carry(directory)
            if not self._carries:
                self.store.say(
                    f"{self.store.directory} cannot carry overlay layers: trees are copied"
                )
        return self._carries

    @contextlib.contextmanager
    def _entry(self) -> Iterator[str]:
        """A new directory of ours; deleted at the end, unless it has become a layer."""
        self._count += 1
        path = os.path.join(self.directory, str(self._count))
        with disk.explained(f"the store {self.store.directory}"):
            os.mkdir(path, 0o755)
        try:
            yield path
        finally:
            for each in (path, f"{path}.damaged"):
                if os.path.lexists(each):
                    self._remove(each)

    @contextlib.contextmanager
    def tree(self, base: str | None, copied: bool = False) -> Iterator[Tree]:
        """A tree to work in, on top of the layer `base`. Several stages may work in it in turn.

        It is gone at the end of the block, unless it was committed. copied: not as a mount.
        """
        below = self._needed(base)
        is_whole = copied or len(below) >= layers.MAX_CHAIN or not self.carries()
        with self._entry() as entry, contextlib.ExitStack() as stack:
            tree = Tree("", entry, below, is_whole)
            stack.callback(_unmount_all, tree)
            with disk.explained(f"a tree in {self.store.directory}"):
                os.mkdir(tree.layer, 0o755)
                os.chown(tree.layer, self.store.access.base, self.store.access.base)
                tree.path = self._fill(tree) if is_whole else self._mount(tree)
            yield tree

    def _mount(self, tree: Tree) -> str:
        upper = overlay.Upper(tree.layer, f"{tree.entry}.work")
        os.mkdir(upper.work)
        if tree.base:
            overlay.adopt_root(tree.layer, self.store.path(tree.base[-1].key))
        path = self._mountpoint(tree.entry)
        overlay.mount(path, self._lowers(tree.base), upper)
        tree.mounted.append(path)
        return path

    def _fill(self, tree: Tree) -> str:
        if tree.base:
            with self._shown(tree.entry, tree.base) as source:
                fd = disk.open_directory(source)
                try:
                    copytree.copy(self.store.access.inside, fd, tree.layer)
                finally:
                    os.close(fd)
        if self.store.access.trees is None:
            return tree.layer
        path = self._mountpoint(tree.entry)
        libc.bind(tree.layer, path)
        tree.mounted.append(path)
        return path

    def _mountpoint(self, entry: str) -> str:
        trees = self.store.access.trees
        path = f"{entry}.tree"
        if trees is not None:
            path = os.path.join(trees, os.path.relpath(path, self.store.tmp))
        os.makedirs(path, 0o755, exist_ok=True)
        return path

    def _lowers(self, below: list[Info]) -> list[str]:
        """Highest first; an empty one lies below, as the kernel wants two, or one."""
        empty = os.path.join(self.directory, "empty")
        os.makedirs(empty, exist_ok=True)
        lowers = [self.store.path(info.key) for info in reversed(below)]
        return lowers if len(lowers) > 1 else [*lowers, empty]

    @contextlib.contextmanager
    def _shown(self, entry: str, below: list[Info]) -> Iterator[str]:
        """A directory that shows what layers make up, not to be written to."""
        if len(below) == 1 and self._carries is False and self.store.access.trees is None:
            yield self.store.path(below[0].key)
            return
        path = self._mountpoint(f"{entry}.shown")
        overlay.mount(path, self._lowers(below))
        try:
            yield path
        finally:
            libc.unmount(path)

    @contextlib.contextmanager
    def view(self, key: str) -> Iterator[str]:
        """A directory that shows a finished tree, read-only: a build root, an input, an export."""
        below = self._needed(key)
        with self._entry() as entry, contextlib.ExitStack() as stack:
            with disk.explained(f"the tree {key[:12]}"):
                path = stack.enter_context(self._shown(entry, below))
            yield path

    def commit(self, tree: Tree, made: Made, meta: bytes = b"{}\n") -> Info:
        """Keep a tree's changes as a layer, durable on return. Nobody may still write to it.

        The tree's mount is gone then. If the same key was committed meanwhile, that layer stays
        and this one is dropped. Returns what stays.
        """
        with disk.explained(f"the layer {made.key[:12]} is not kept"):
            _unmount_all(tree)
            size_bytes = settle(self.store.access.inside, tree.layer, made.source_epoch)
            base = tree.base[-1] if tree.base else None
            info = Info(
                key=made.key,
                id=made.id,
                base=base.key if base else None,
                serial=os.urandom(8).hex(),
                below=base.serial if base else None,
                type=made.type,
                created=int(time.time()),
                size_bytes=size_bytes,
                duration_s=round(made.duration_s, 3),
                is_whole=tree.is_whole,
            )
            disk.write_new(
                (os.path.join(tree.entry, "meta.json"), meta),
                (os.path.join(tree.entry, "info.json"), layers.encode(info)),
            )
            disk.sync_directory(tree.entry)
            self._keep(made.key, self.store.place(tree.entry, made.key))
        return self._needed(made.key)[-1]

    def gc(self, max_bytes: int = DEFAULT_MAX_BYTES) -> tuple[list[str], int]:
        """Delete layers until at most max_bytes stay: see Store.evict."""
        with self._entry() as entry, disk.explained(f"the store {self.store.directory}"):
            return self.store.evict(entry, max_bytes)


def sweep(store: Store) -> list[str]:
    """Delete what dead runs left in tmp/: only what a free lock proves dead. Returns their names.

    What cannot be deleted is said. Does nothing in a store that is read-only.
    """
    swept = []
    for run in sorted(os.listdir(store.tmp)):
        path = os.path.join(store.tmp, run)
        try:
            fd = disk.open_directory(path)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if disk.is_still(path, fd):
                disk.remove_tree(path)
                swept.append(run)
        except BlockingIOError:
            pass  # it lives
        except HostError as error:
            store.say(str(error))
        finally:
            os.close(fd)
    return swept


def _unmount_all(tree: Tree) -> None:
    while tree.mounted:
        libc.unmount(tree.mounted.pop())


def run_inside(command: list[str], cwd: str, fds: tuple[int, ...]) -> bytes:
    """Run a command line that enters the namespace itself. Raises HostError with its last word."""
    done = subprocess.run(command, cwd=cwd, pass_fds=fds, check=False, capture_output=True)
    if done.returncode == 0:
        return done.stdout
    raise HostError(disk.last_word(done.stderr, f"{command[-1]} exited with {done.returncode}"))
