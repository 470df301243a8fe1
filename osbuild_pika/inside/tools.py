"""How a stage runs a program of its build root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from osbuild_pika.inside.reporter import Reporter

LOOK_EVERY_S = 0.5
# GNU's programs say these behind the line that says what is wrong.
HINTS = ("Try '", "tar: Exiting with failure status")
LAST_BYTES = 4096  # of what a program said, to find its last line


def run(command: list[str], **how: Any) -> None:
    """Run a program; what it prints is the stage's output. how: as of subprocess.Popen, whose
    standard input is empty unless something else is said.

    Raises StageError with the last line of its standard error if it is missing or fails.
    """
    _run(command, None, "", how)


def run_watched(command: list[str], report: Reporter, output: str, **how: Any) -> None:
    """As `run`, and report how many bytes the file `output`, which the program writes, has."""
    _run(command, report, output, how)


def _run(command: list[str], report: Reporter | None, output: str, how: dict[str, Any]) -> None:
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stderr=errors, **{"stdin": subprocess.DEVNULL, **how}
            )
        except FileNotFoundError:
            raise StageError(f"{command[0]} is not installed in the build root") from None
        try:
            while True:
                try:
                    status = process.wait(LOOK_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    if report is not None:
                        report.progress(_size(output), None, "bytes", command[0])
        except BaseException:
            process.kill()
            process.wait()
            raise
        said = pass_on(errors)
    if status:
        how_it_ended = f"exited with status {status}" if status > 0 else f"got signal {-status}"
        raise StageError(f"{command[0]} {how_it_ended}{said}")
    if report is not None:
        size = _size(output)
        report.progress(size, size, "bytes", command[0])


def pass_on(errors: IO[bytes]) -> str:
    """Pass on what the program said; returns its last line, for a message."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(0)
    while piece := errors.read(1 << 16):
        sys.stderr.buffer.write(piece)
    sys.stderr.flush()
    errors.seek(max(0, size - LAST_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    if lines[1:] and lines[-1].startswith(HINTS):
        lines.pop()
    return f": {lines[-1]}" if lines else ""


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
