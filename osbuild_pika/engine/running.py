"""Runs one stage: gives its output away as it comes, keeps its limits, and ends it for good."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from osbuild_pika.engine import sandbox as sandboxes
from osbuild_pika.engine.namespace import OWN_PROC, UserNamespace
from osbuild_pika.engine.processes import children, signal_children
from osbuild_pika.engine.sandbox import Sandbox
from osbuild_pika.engine.stageapi import StageApi, StageException
from osbuild_pika.errors import HostError

CHUNK = 64 * 1024  # bytes of output that are taken at once
DYING_S = 2.0  # for the output of a stage to end after it did
START_S = 5.0  # for bubblewrap to start the first process of the sandbox

EndedBy = Literal["itself", "stop", "total timeout", "idle timeout"]


class Limits(NamedTuple):
    """Seconds; None: no limit. grace_s: from SIGTERM to the stage until SIGKILL to all of it."""

    total_s: float | None = None
    idle_s: float | None = None
    grace_s: float = 5.0


_NO_LIMITS = Limits()


class Outcome(NamedTuple):
    """status: 0..255 as bubblewrap gives it, 128 + N if signal N ended the stage; negative if
    the sandbox itself was killed. started: False if bubblewrap failed before the stage began."""

    status: int
    ended_by: EndedBy
    duration_s: float
    started: bool
    exception: StageException | None


class Stop:
    """Asks runs to stop, from any thread or signal handler: once for SIGTERM, twice for SIGKILL.

    One value serves all runs of a build.
    """

    def __init__(self) -> None:
        self._waiting, self._asking = os.pipe()
        self._lock = threading.RLock()
        self._asked = 0

    def ask(self) -> None:
        with self._lock:
            self._asked += 1
            if self._asked == 1:
                os.write(self._asking, b"1")
            elif self._asked == 2:
                os.close(self._asking)

    def fileno(self) -> int:
        """Readable once asked; hung up once asked twice."""
        return self._waiting

    def close(self) -> None:
        os.close(self._waiting)
        if self._asked < 2:
            os.close(self._asking)


def run(
    namespace: UserNamespace,
    sandbox: Sandbox,
    on_output: Callable[[str], None],
    limits: Limits = _NO_LIMITS,
    stop: Stop | None = None,
) -> Outcome:
    """Run the stage whose area is prepared; when this returns no process of it is left.

    on_output gets what it prints, both streams as one, in pieces; what is not UTF-8 is replaced.
    Raises HostError if there is no bubblewrap, and whatever on_output raises.
    """
    begin = time.monotonic()
    with StageApi(sandbox.area / "api/osbuild") as api, _started(namespace, sandbox) as process:
        watch = _Watch(process, on_output, limits, stop)
        watch.until_end(api)
        api.drain()
        duration_s = time.monotonic() - begin
        status = process.wait()
        started = status < 0 or process.began()
        return Outcome(status, watch.ended_by, duration_s, started, api.exception)


class _Process:
    """A running bubblewrap, and what is known of what it runs."""

    def __init__(self, popen: subprocess.Popen[bytes], output: int, status: int) -> None:
        self.output = output
        self.status = status
        self.pidfd = os.pidfd_open(popen.pid)
        self._popen = popen

    def began(self) -> bool:
        """After the end: whether the stage did start. Bubblewrap tells its status only then."""
        with contextlib.suppress(BlockingIOError):  # a bubblewrap that failed half-way holds it
            return b'"exit-code"' in os.read(self.status, 4096)
        return False

    def terminate(self) -> None:
        """Send SIGTERM to the stage itself: bubblewrap would not pass it on."""
        firsts = self._firsts()
        if not sum(signal_children(first, signal.SIGTERM) for first in firsts):
            self.kill()

    def kill(self) -> None:
        """Kill the sandbox's first process, and with it, by the kernel, all others in it; then
        bubblewrap ends.

        Who kills bubblewrap before there is a first process may leave one behind: it asks for
        its death with bubblewrap only when it is nearly done.
        """
        deadline = time.monotonic() + START_S
        while not sum(signal_children(parent, signal.SIGKILL) for parent in self._wrappers()):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                return
            time.sleep(0.002)

    def _wrappers(self) -> list[int]:
        """nsenter's child: setpriv, unshare, then bubblewrap, all one process."""
        return children(self._popen.pid)

    def _firsts(self) -> list[int]:
        """The process that is 1 in the sandbox, by its number here."""
        return [first for wrapper in self._wrappers() for first in children(wrapper)]

    def wait(self) -> int:
        """The exit status. It is known when everything else in the sandbox is gone."""
        try:
            return self._popen.wait(DYING_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def close(self) -> None:
        """Have everything ended, and waited for."""
        if self._popen.poll() is None:
            self.kill()
        self.wait()
        os.close(self.output)
        os.close(self.pidfd)
        os.close(self.status)


@contextlib.contextmanager
def _started(namespace: UserNamespace, sandbox: Sandbox) -> Iterator[_Process]:
    output, status = _Pipe(), _Pipe()
    try:
        program, *rest = sandboxes.argv(sandbox, status.theirs)
        popen = namespace.popen(
            [*OWN_PROC, _find(program), *rest],
            stdin=subprocess.DEVNULL,
            stdout=output.theirs,
            stderr=subprocess.STDOUT,
            pass_fds=(status.theirs,),
            cwd="/",
            umask=0o022,
        )
    except BaseException:
        os.close(output.ours)
        os.close(status.ours)
        raise
    finally:
        os.close(output.theirs)
        os.close(status.theirs)
    process = _Process(popen, output.ours, status.ours)
    try:
        yield process
    finally:
        process.close()


class _Pipe:
    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()
        os.set_blocking(self.ours, False)


def _find(program: str) -> str:
    import shutil  # 4 ms, for archives above all; not for a build whose stages are cached

    found = shutil.which(program)
    if found is None:
        raise HostError(f"{program} not found (Debian package bubblewrap)")
    return found


class _Watch:
    """Waits for output, time-outs, requests to stop, and the end."""

    def __init__(
        self,
        process: _Process,
        on_output: Callable[[str], None],
        limits: Limits,
        stop: Stop | None,
    ) -> None:
        self.ended_by: EndedBy = "itself"
        self._process = process
        self._on_output = on_output
        self._limits = limits
        self._stop = stop
        self._begin = self._heard = time.monotonic()
        self._kill_at: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def until_end(self, api: StageApi) -> None:
        """Return when the process ended and its output did, or DYING_S later."""
        open_output, end = True, 0.0
        while open_output or not end:
            poll = select.poll()
            fds = [*api.filenos(), *([self._process.output] if open_output else [])]
            for fd in [*fds, *([] if end else [self._process.pidfd])]:
                poll.register(fd, select.POLLIN)
            self._watch_stop(poll)
            wait_s = max(0.0, end - time.monotonic()) if end else self._next_s()
            ready = dict(poll.poll(None if wait_s is None else wait_s * 1000 + 1))
            if self._process.output in ready:
                open_output = self._take_output()
            for fd in ready.keys() & set(api.filenos()):
                api.handle(fd)
            if self._process.pidfd in ready:
                end = time.monotonic() + DYING_S
            elif end and time.monotonic() >= end:
                break
            elif not end:
                self._keep_limits(ready)
        self._give(self._decoder.decode(b"", final=True))

    def _watch_stop(self, poll: select.poll) -> None:
        """Being asked is seen once, being asked again afterwards: the pipe hangs up."""
        if self._stop is not None and self._kill_at != 0.0:
            asked = self.ended_by != "itself"
            poll.register(self._stop.fileno(), 0 if asked else select.POLLIN)

    def _next_s(self) -> float | None:
        """Seconds until the next limit."""
        times = [self._kill_at or None]
        if self._kill_at is None:
            if self._limits.total_s is not None:
                times.append(self._begin + self._limits.total_s)
            if self._limits.idle_s is not None:
                times.append(self._heard + self._limits.idle_s)
        known = [at for at in times if at is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _keep_limits(self, ready: dict[int, int]) -> None:
        now = time.monotonic()
        asked = ready.get(self._stop.fileno(), 0) if self._stop is not None else 0
        if asked & select.POLLHUP or (self._kill_at and now >= self._kill_at):
            if asked and self.ended_by == "itself":
                self.ended_by = "stop"
            self._kill_at = 0.0  # nothing is left to be done
            self._process.kill()
        elif asked:
            self._end("stop")
        elif self._kill_at is None:
            if self._limits.total_s is not None and now >= self._begin + self._limits.total_s:
                self._end("total timeout")
            elif self._limits.idle_s is not None and now >= self._heard + self._limits.idle_s:
                self._end("idle timeout")

    def _end(self, why: EndedBy) -> None:
        if self.ended_by != "itself":  # asked to stop when a time-out had ended it already
            return
        self.ended_by = why
        self._kill_at = time.monotonic() + self._limits.grace_s
        self._process.terminate()

    def _take_output(self) -> bool:
        """Give a piece of output away; False at its end."""
        chunk = os.read(self._process.output, CHUNK)
        self._heard = time.monotonic()
        self._give(self._decoder.decode(chunk))
        return bool(chunk)

    def _give(self, text: str) -> None:
        if text:
            self._on_output(text)
