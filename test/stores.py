"""What the tests of the store share: stores, stages, a namespace, children that are killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from osbuild_pika import libc
from osbuild_pika.engine.layers import Info
from osbuild_pika.engine.scratch import Made, Scratch, run_inside
from osbuild_pika.engine.store import Access, Store

BASE = 1_900_000_000
EPOCH = 1_700_000_000


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def made(name: str, epoch: int | None = None) -> Made:
    return Made(key(name), key(f"id of {name}"), f"org.example.{name}", 0.5, epoch)


def directly(argv: Sequence[str], cwd: str, fds: Sequence[int] = ()) -> bytes:
    return run_inside(list(argv), cwd, tuple(fds))


def open_store(directory: Path, said: list[str] | None = None) -> Store:
    """A store of the caller's own ids: it needs no namespace."""
    say = (lambda text: None) if said is None else said.append
    return Store(str(directory), Access(os.geteuid(), directly), say)


def commit(scratch: Scratch, base: str | None, name: str, text: str = "") -> Info:
    """A stage that writes one file of its name."""
    with scratch.tree(base and key(base)) as tree:
        (Path(tree.path) / name).write_text(text or name)
        return scratch.commit(tree, made(name), b'{"by": "test"}\n')


def fill(store: Store, *names: str) -> None:
    """Layers on one another, as whole copies."""
    with Scratch(store, "filling", copies=True) as scratch:
        for base, name in zip([None, *names], names, strict=False):
            commit(scratch, base, name)


def is_root_that_mounts() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and bool(
        shutil.which("unshare") and subprocess.run(command, capture_output=True).returncode == 0
    )


def in_private(work: Callable[[], None]) -> None:
    """Run in a child with a mount namespace of its own; fails as it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            libc.unshare(libc.CLONE_NEWNS)
            libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
            work()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc()[-60_000:].encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        words = file.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, words


def become_root(user: int) -> None:
    """Go on as an ordinary user who has become root of namespaces of his own."""
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{parent}/{name}").write_text(f"0 {user} 1\n1 {user + 1} 65536")
        os._exit(0)
    libc.unshare(libc.CLONE_NEWUSER)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)


@contextlib.contextmanager
def namespace(base: int = BASE) -> Iterator[Callable[..., bytes]]:
    """A user namespace of subordinate ids; yields what runs commands in it."""
    pipe = subprocess.PIPE
    command = ["unshare", "--user", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout
        holder.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {base} 65536")
        enter = ["nsenter", f"--user=/proc/{holder.pid}/ns/user", "--setuid", "0"]

        def inside(argv: Sequence[str], cwd: str, fds: Sequence[int] = ()) -> bytes:
            return run_inside([*enter, "--setgid", "0", "--", *argv], cwd, tuple(fds))

        yield inside


CALLS = [
    *((os, name) for name in ("rename", "fsync", "mkdir", "unlink", "link", "write", "open")),
    *((os, name) for name in ("utime", "chown", "chmod")),
    *((libc, name) for name in ("mount", "unmount")),
]


def dying(work: Callable[[], object], at: int) -> int:
    """Run in a child that kills itself before its call number `at` of CALLS.

    Returns how many it made, 0 if it was killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return step

        write = os.write
        for module, name in CALLS:
            setattr(module, name, counted(getattr(module, name)))
        try:
            work()
            write(writer, str(count).encode())
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    assert os.waitpid(child, 0)[1] == (1 << 8 if said else signal.SIGKILL)
    return int(said or 0)
