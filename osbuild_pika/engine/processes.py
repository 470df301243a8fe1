"""The children of a process, and signals to them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def children(pid: int) -> list[int]:
    """The children of a process that has one thread; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def signal_children(pid: int, number: signal.Signals) -> int:
    """Send a signal to the children of a process; returns how many there were.

    The process must not have been waited for: its number could be another's.
    """
    sent = 0
    for child in children(pid):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(child)
            try:
                if child in children(pid):  # so it is still the one that was meant
                    signal.pidfd_send_signal(pidfd, number)
                    sent += 1
            finally:
                os.close(pidfd)
    return sent
