"""A process that a service manager lost: told from another with its number, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time

_TOLERANCE_S = 2  # between the start of a process and the note of it
_LOOK_S = 0.02


def is_of_age(pid: int, age_s: float) -> bool:
    """Whether a process of that number runs for so long."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19])  # proc(5): in ticks
    except (OSError, ValueError, IndexError):
        return False
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return abs(now_s - started / os.sysconf("SC_CLK_TCK") - age_s) < _TOLERANCE_S


def end(pid: int, kill_after_s: float) -> None:
    """Ask it to end, kill it after a time, and wait for its end. It is nobody's child of ours."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            killed_at = time.monotonic() + kill_after_s
            while os.path.exists(f"/proc/{pid}"):
                if time.monotonic() > killed_at:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                time.sleep(_LOOK_S)
        finally:
            os.close(fd)
