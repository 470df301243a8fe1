"""Stamps: which tasks of an object are done, in a directory of its own.

    .stamp-<task>.json   {"v": 1, "time_ns", "run", "hash", "boot_id"}
    .stamp-<task>        of the original: the hash as text; its time is when the task ran
    .lock                held while tasks run (locks.py)

A stamp is replaced in one step and durable when `write` returns. One that is damaged is none: a
task that is not done is never taken for done; at worst one is done again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from osbuild_pika import lifecycle
from osbuild_pika.engine import disk
from osbuild_pika.tasks import counter, files
from osbuild_pika.tasks.decision import Stamp

VERSION = 1
MAX_BYTES = 64 * 1024
MAX_HASH = 200  # characters; of a longer one its sha256 is kept

_PREFIX = ".stamp-"


def shorten(text: object, whose: str) -> str:
    """A hash as it is kept. Raises ValueError if it is no string."""
    if not isinstance(text, str):
        raise ValueError(f"{whose}: its hash is {ascii(text)[:60]}, which is not a string")
    if len(text) <= MAX_HASH:
        return text
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Stamps:
    """The stamps of one object. counter_root: where its run counter is."""

    def __init__(self, directory: Path, counter_root: Path) -> None:
        self._directory = directory
        self._counter_root = counter_root

    def read(self, task: str) -> tuple[Stamp | None, str]:
        """A task's stamp, and why it cannot be used if there is one. Raises HostError."""
        path = self._path(task)
        try:
            found = _read(path)
            if found is not None:
                return _parse(found[0]), ""
            found = _read(path.with_suffix(""))
            return found and _plain(*found), ""
        except ValueError as error:
            return None, f"its stamp cannot be used: {error}"

    def write(self, task: str, text: str) -> Stamp:
        """Say that a task is done. text: its hash. Raises HostError."""
        path = self._path(task)
        with disk.explained(str(path)):
            files.make_directories(self._directory)
            number = counter.take(self._counter_root, self._highest())
            made = Stamp(time.time_ns(), number, text, lifecycle.boot_id())
            content = json.dumps({"v": VERSION, **made._asdict()}) + "\n"
            files.replace(path, content.encode())
        return made

    def restore(self, task: str, stamp: Stamp | None) -> None:
        """Put back what was read before. Raises HostError."""
        if stamp is None:
            self.delete(task)
            return
        path = self._path(task)
        with disk.explained(str(path)):
            content = json.dumps({"v": VERSION, **stamp._asdict()}) + "\n"
            files.replace(path, content.encode())

    def delete(self, task: str) -> bool:
        """Say that a task is not done; durable. Returns whether it was. Raises HostError."""
        path = self._path(task)
        with disk.explained(str(path)):
            was_plain = files.remove(path.with_suffix(""))
            return files.remove(path) or was_plain

    def _path(self, task: str) -> Path:
        return self._directory / f"{_PREFIX}{files.check_name(task)}.json"

    def _highest(self) -> int:
        """The greatest run number of all stamps here."""
        names = [each for each in os.listdir(self._directory) if each.startswith(_PREFIX)]
        tasks = {name.removeprefix(_PREFIX).removesuffix(".json") for name in names}
        stamps = [self.read(each)[0] for each in tasks if files.is_name(each)]
        return max((each.run for each in stamps if each), default=0)


def _read(path: Path) -> tuple[bytes, int] | None:
    """Content and time of last change of a regular file; None if nothing is there.

    Raises ValueError for what is no such file, HostError.
    """
    with disk.explained(str(path)):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError("it is a link") from None
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                raise ValueError("it is no regular file")
            return file.read(MAX_BYTES + 1), facts.st_mtime_ns


def _parse(content: bytes) -> Stamp:
    """Raises ValueError."""
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is damaged") from None
    if not isinstance(fields, dict) or fields.get("v") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    values: Any = (fields.get(name) for name in Stamp._fields)
    stamp = Stamp(*values)
    are_numbers = type(stamp.time_ns) is type(stamp.run) is int
    are_texts = isinstance(stamp.hash, str) and isinstance(stamp.boot_id, str | None)
    if not (are_numbers and are_texts and stamp.time_ns > 0 < stamp.run < counter.LIMIT):
        raise ValueError("it is damaged")
    return stamp


def _plain(content: bytes, time_ns: int) -> Stamp:
    """A stamp of the original. Raises ValueError."""
    if len(content) > MAX_BYTES:
        raise ValueError("it is too long")
    text = shorten(content.decode(errors="replace"), "a stamp")
    return Stamp(time_ns, max(1, time_ns // 1_000_000), text, None)
