"""Starts the build process, which gets ready while its caller does.

It takes as long to load its modules as the command line takes for its own, so it is started before
them: what this module imports, each build waits for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

# -P: nothing of the current directory, which may be anybody's.
ENGINE = (sys.executable, "-P", "-m", "osbuild_pika.engine")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def environment() -> dict[str, str]:
    """Of the build process: it finds our package first, wherever that is."""
    inherited = os.environ.get("PYTHONPATH")
    path = [os.path.dirname(os.path.dirname(__file__)), *([inherited] if inherited else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


class Waiting:
    """A build process that waits for its order: it gets ready while the command line is read."""

    def __init__(self) -> None:
        """Start it. Raises OSError."""
        self._is_used = False
        self._records, writing = os.pipe()
        # Until the build can take them, signals wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = _start(writing)
        except BaseException:
            os.close(self._records)
            raise
        finally:
            os.close(writing)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def use(self) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and the reading end of its records: they are the caller's now."""
        self._is_used = True
        return self._process, self._records

    def dismiss(self) -> None:
        """Have it gone, unless it was used: without an order it has done nothing."""
        if not self._is_used:
            self._process.kill()
            self._process.communicate()
            os.close(self._records)


def _start(records_fd: int) -> subprocess.Popen[bytes]:
    """Start the build process, in a process group of its own: a terminal's Ctrl-C must not end
    what it has to stop in order."""
    return subprocess.Popen(
        [*ENGINE, str(records_fd)],
        env=environment(),
        stdin=subprocess.PIPE,
        pass_fds=(records_fd,),
        process_group=0,
    )
