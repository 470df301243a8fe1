"""Who runs the tasks of an object: one at a time holds the lock of its stamp directory.

Another process, and another asyncio task of this one, waits. What a holder starts (a task that
calls another one of its object) goes through. The kernel frees the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from osbuild_pika.engine import disk
from osbuild_pika.errors import ExitCode, PikaError
from osbuild_pika.tasks import files

POLL_S = 0.05

# Of this process: realpath of a stamp directory -> who holds it; and who the current holder is.
_owners: dict[str, object] = {}
_held: ContextVar[tuple[object, ...]] = ContextVar("held", default=())


class BusyError(PikaError):
    """Somebody else runs these tasks, and this caller cannot wait for it."""

    exit_code = ExitCode.BUSY


def is_held(directory: Path) -> bool:
    """Whether somebody holds the lock of a stamp directory now. Changes nothing."""
    with disk.explained(str(directory)), contextlib.suppress(FileNotFoundError):
        fd = os.open(directory / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


class Holding:
    """Holds the lock in an `async with` block.

    can_await: False for a caller that is no coroutine; such a one waits in place.
    Raises HostError, BusyError.
    """

    def __init__(self, directory: Path, can_await: bool = True) -> None:
        self._directory = directory
        self._can_await = can_await
        self._path = os.path.realpath(directory)
        self._fd = -1

    async def __aenter__(self) -> None:
        if _owners.get(self._path) in _held.get():
            return
        with disk.explained(str(self._directory)):
            files.make_directories(self._directory)
            while not self._try():
                if self._can_await:
                    await asyncio.sleep(POLL_S)
                else:
                    self._wait_in_place()
        _owners[self._path] = self
        _held.set((*_held.get(), self))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd < 0:
            return
        _held.set(tuple(each for each in _held.get() if each is not self))
        del _owners[self._path]
        os.close(self._fd)

    def _try(self) -> bool:
        """Take the lock if it is free, and still the one at this path."""
        path = self._directory / ".lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                self._fd = fd
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if self._fd < 0:
                os.close(fd)
        return self._fd >= 0

    def _wait_in_place(self) -> None:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            if self._path in _owners:  # it would never end: its holder waits for us to
                what = "its tasks are running; call this task from a coroutine, or after them"
                raise BusyError(f"{self._directory}: {what}")
        time.sleep(POLL_S)
