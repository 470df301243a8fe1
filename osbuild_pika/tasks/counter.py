"""The run counter: which of two tasks ran later, whatever the clock did.

    <root>/run    the last number given, 16 digits and a newline; locked while one is taken

One for all objects below a root, so that tasks of different objects compare. A number is greater
than the last one, than all that its taker has seen, and not less than the time in milliseconds:
a clock that is set back changes nothing, and neither does a counter that was lost.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from osbuild_pika.engine import disk
from osbuild_pika.tasks import files

LIMIT = 1 << 53  # beyond it, some readers of JSON round
_SIZE = 17  # bytes: less than a sector, so a crash leaves the old number or the new one


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def take(root: Path, seen: int) -> int:
    """The next number, given once; durable on return. seen: it is greater. Raises OSError."""
    files.make_directories(root)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root / "run", flags, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        text = os.read(fd, _SIZE + 1)
        number = max(_number(text), seen, now_ms() - 1) + 1
        os.lseek(fd, 0, os.SEEK_SET)
        disk.write_all(fd, b"%016d\n" % number)
        if len(text) != _SIZE:
            os.ftruncate(fd, _SIZE)
        os.fsync(fd)
    finally:
        os.close(fd)
    return number


def _number(text: bytes) -> int:
    """The last number given; 0 if it is lost or damaged: then the time has to do."""
    digits = text.removesuffix(b"\n")
    is_whole = len(text) == _SIZE and len(digits) == _SIZE - 1 and digits.isdigit()
    return int(digits) if is_whole and int(digits) < LIMIT else 0
