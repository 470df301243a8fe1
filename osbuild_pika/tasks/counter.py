"""The run counter: which of two tasks ran later, whatever the clock did.

    <root>/run         the last number given, in decimal
    <root>/.run.lock   held while one is taken

One for all objects below a root, so that tasks of different objects compare. A number is greater
than the last one, than all that its taker has seen, and not less than the time in milliseconds:
a clock that is set back changes nothing, and so does a counter that was lost.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from osbuild_pika.tasks import files

LIMIT = 1 << 53  # beyond it, some readers of JSON round
_NAME = "run"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def take(root: Path, seen: int) -> int:
    """The next number, given once; durable on return. seen: it is greater. Raises OSError."""
    files.make_directories(root)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root / ".run.lock", flags, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        number = max(_last(root / _NAME), seen, now_ms() - 1) + 1
        files.replace(root / _NAME, b"%d\n" % number)
    finally:
        os.close(fd)
    return number


def _last(path: Path) -> int:
    """The last number given; 0 if it is lost or damaged: then the time has to do."""
    try:
        with open(path, "rb") as file:
            text = file.read(64)
    except FileNotFoundError:
        return 0
    digits = text.removesuffix(b"\n")
    is_whole = digits.isdigit() and digits != text
    return int(digits) if is_whole and int(digits) < LIMIT else 0
