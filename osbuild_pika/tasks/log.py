"""The log of a task: <log_path>/<task>.log, a line for each time it began and ended."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

from osbuild_pika.engine import disk
from osbuild_pika.tasks import files

MAX_BYTES = 1 << 20  # then it is kept as <task>.log.1, and a new one begun


def write(directory: Path, task: str, text: str) -> None:
    """Append a line, or several. Not durable. Raises HostError."""
    path = directory / f"{files.check_name(task)}.log"
    with disk.explained(str(path)):
        directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)  # a traceback may tell secrets
        try:
            if os.fstat(fd).st_size > MAX_BYTES:
                os.replace(path, f"{path}.1")
                os.close(fd)
                fd = os.open(path, flags, 0o600)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            disk.write_all(fd, f"{now} {text}\n".encode(errors="backslashreplace"))
        finally:
            os.close(fd)


def failure(error: BaseException) -> str:
    """An exception with its traceback."""
    return "failed:\n" + "".join(traceback.format_exception(error)).rstrip()
