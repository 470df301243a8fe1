"""Disks that are really full or read-only, for tests.

The file systems are mounted by a process in a mount namespace of its own, and are reached through
its /proc/<pid>/root: nobody else sees them, and they are gone with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osbuild_pika.engine import namespace

THREADS_S = 30.0


def can_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and bool(
        shutil.which("unshare") and subprocess.run(command, capture_output=True).returncode == 0
    )


NEEDS_MOUNT = pytest.mark.skipif(not can_mount(), reason="needs root that may mount")


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """What this thread and its children mount inside the block, nobody else sees: neither tests
    beside us, nor a process that keeps a copy of all mounts for longer than we want ours.

    Needs root that may mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    place = os.getcwd()
    namespace.private_mounts()
    try:
        yield
    finally:
        deadline = time.monotonic() + THREADS_S
        while libc.setns(before, 0) != 0:  # threads that were started inside are about to end
            assert ctypes.get_errno() == errno.EINVAL
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)
        os.chdir(place)
        os.close(before)


@contextlib.contextmanager
def mounted(script: str, directory: Path) -> Iterator[Path]:
    """Run a shell script in a new mount namespace. Yields the directory as it is there."""
    directory.mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc"]
    command.append(f"{script}; echo ready; exec cat")  # cat ends when its input does: with us
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "sh", directory], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        yield Path(f"/proc/{holder.pid}/root{directory}")
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    assert not list(directory.iterdir())


def remount(options: str, directory: Path) -> None:
    """Mount a directory below such a /proc/<pid>/root anew."""
    pid, target = directory.parts[2], "/" + "/".join(directory.parts[4:])
    command = ["nsenter", "--mount", "--target", pid, "mount", "-o", f"remount,{options}", target]
    subprocess.run(command, check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 4096)


def free(disk: Path) -> None:
    (disk / "filler").unlink()
