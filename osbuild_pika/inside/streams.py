"""Programs one behind another, of which the last one's output is seen while it is written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile

from osbuild_pika import wire
from osbuild_pika.inside.stage import StageError
from osbuild_pika.inside.tools import pass_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

LOOK_EVERY_S = 0.2
PIPE_BYTES = 1 << 20  # what a pipe may hold without privileges
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which fcntl has from Python 3.10 on


def stream(
    commands: Sequence[Sequence[str]],
    take: Callable[[bytes], object],
    look: Callable[[int], object],
    environment: Mapping[str, str],
) -> None:
    """Run programs, each reading what the one before writes.

    take is called with all that the last one writes, look now and then with the first one's
    process id. Raises StageError with the last line that a failed program said; what take and
    look raise ends all of them.
    """
    with tempfile.TemporaryFile() as errors:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                before = processes[-1].stdout if processes else subprocess.DEVNULL
                processes.append(_start(command, before, errors, environment))
                if len(processes) > 1:
                    _close(processes[-2].stdout)
            _read(processes, take, look)
        except BaseException:
            for process in processes:
                process.kill()
            raise
        finally:
            for process in processes:
                _close(process.stdout)
                process.wait()
        said = pass_on(errors)
    _judge(commands, processes, said)


def _start(
    command: Sequence[str],
    source: IO[bytes] | int | None,
    errors: IO[bytes],
    env: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=errors, env=env
        )
    except FileNotFoundError:
        raise StageError(f"{command[0]} is not installed in the build root") from None
    assert process.stdout is not None  # noqa: S101 - for mypy
    # Of the usual 64 KiB both sides would wait for each other a thousand times a second.
    with contextlib.suppress(OSError):
        fcntl.fcntl(process.stdout, _SET_PIPE_SIZE, PIPE_BYTES)
    return process


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


def _read(
    processes: list[subprocess.Popen[bytes]],
    take: Callable[[bytes], object],
    look: Callable[[int], object],
) -> None:
    output = processes[-1].stdout
    assert output is not None  # noqa: S101 - for mypy
    fd = output.fileno()
    while True:
        look(processes[0].pid)
        if not wire.readable([fd], LOOK_EVERY_S):
            continue
        data = os.read(fd, PIPE_BYTES)
        if not data:
            return
        take(data)


def _judge(
    commands: Sequence[Sequence[str]], processes: list[subprocess.Popen[bytes]], said: str
) -> None:
    """Raise StageError for the first program that failed, but rather for one with a status: what
    stands before a failed one is killed by its own writing."""
    failed = [(each, process) for each, process in zip(commands, processes) if process.returncode]
    if not failed:
        return
    failed.sort(key=lambda each: each[1].returncode < 0)
    command, process = failed[0]
    status = process.returncode
    how = f"exited with status {status}" if status > 0 else f"got signal {-status}"
    raise StageError(f"{command[0]} {how}{said}")
