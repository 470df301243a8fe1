"""ParticipantHandler: what a process engine, a spool or a command line has work with.

Each workitem has a process of its own (__main__.py): so it can be cancelled at any moment, from
any thread, and a crash of it is an answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.errors import ExitCode, PikaError, describe_status
from osbuild_pika.participant import request as requests
from osbuild_pika.participant import workitem as workitems
from osbuild_pika.participant.notify import Notify
from osbuild_pika.participant.request import BusyError
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Json, Outcome

JOB = (sys.executable, "-P", "-m", "osbuild_pika.participant")
TICK_S = 0.2
CANCEL_S = 8.0  # from SIGTERM to SIGKILL: a build needs about 5 s at most to end a stage


class Answered(NamedTuple):
    """workitem: as it goes out. code: an ExitCode."""

    workitem: Json
    code: int


class ParticipantHandler:
    """Handles one workitem at a time. notify: is told each status.

    command: what runs the process of a workitem; JOB if it is empty.
    """

    def __init__(
        self,
        site: Site,
        notify: Notify = lambda *_: None,
        command: Sequence[str] = (),
    ) -> None:
        self.site = site
        self.is_stopped = False
        self._notify, self._command = notify, command or JOB
        self._lock = threading.Lock()
        self._job: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None

    def handle_wi(self, wid: Any, tick: Callable[[], None] = lambda: None) -> Json:
        """Build what a workitem asks for; returns the workitem as it goes out.

        Raises BusyError if we were told to stop, or have one in hand: then nothing was done.
        """
        if self.is_stopped:
            raise BusyError("the participant is stopped: it takes no more")
        self.push_img_status("IN QUEUE", workitems.told(wid))
        return self.answer(wid, tick).workitem

    def answer(self, workitem: Any, tick: Callable[[], None] = lambda: None) -> Answered:
        """As handle_wi, of one that is in the queue already. tick: is called some times a second.

        What interrupts us, KeyboardInterrupt and SystemExit, ends the process of the workitem,
        whose request can then be gone on with. Raises BusyError if we have one in hand; OSError if
        no process can be started.
        """
        reading, writing = os.pipe()
        try:
            job = self._start(writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            found = self._follow(job, workitem, reading, tick)
            status = self._wait(job, tick)
        finally:
            os.close(reading)
            self._end(job)
        return found or self._lost(workitem, status)

    def handle_wi_control(self, ctrl: Any) -> None:
        """Take an order about the workitem in hand: "cancel". From any thread."""
        if _message(ctrl) != "cancel":
            return
        with self._lock:
            if self._job is not None and self._kill_at is None:
                self._job.terminate()
                self._kill_at = time.monotonic() + CANCEL_S

    def handle_lifecycle_control(self, ctrl: Any) -> None:
        """Take an order about us: "stop" (end what is in hand, then take no more), "start"."""
        message = _message(ctrl)
        if message in ("start", "stop"):
            self.is_stopped = message == "stop"

    def push_img_status(self, status: str, fields: Mapping[str, Any]) -> None:
        """Tell a status (notify.STATUSES) of an image to whoever is to know."""
        self._notify(status, fields)

    # --- the process of a workitem ---------------------------------------------------------------

    def _start(self, fd: int) -> subprocess.Popen[bytes]:
        inherited = os.environ.get("PYTHONPATH")
        path = [str(Path(__file__).parents[2]), *([inherited] if inherited else [])]
        with self._lock:
            if self._job is not None:
                raise BusyError("the participant has a workitem in hand")
            self._kill_at = None
            self._job = subprocess.Popen(
                [*self._command, str(fd)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(fd,),
                process_group=0,  # a terminal's Ctrl-C is ours to pass on
            )
            return self._job

    def _follow(
        self, job: subprocess.Popen[bytes], workitem: Any, fd: int, tick: Callable[[], None]
    ) -> Answered | None:
        """Give the job its order and take its records. Returns its answer, if it has one."""
        order = json.dumps({"site": self.site._asdict(), "workitem": workitem})
        found, rest = None, b""
        if job.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has died; that is seen below
                job.stdin.write(order.encode() + b"\n")
                job.stdin.flush()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while True:
            if poll.poll(TICK_S * 1000):
                data = os.read(fd, 1 << 16)
                if not data:
                    return found
                *lines, rest = (rest + data).split(b"\n")
                for record in map(json.loads, lines):
                    if "status" in record:
                        self.push_img_status(record["status"], record["fields"])
                    else:
                        found = Answered(record["workitem"], record["code"])
            self._look(job, tick)

    def _wait(self, job: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
        while (status := job.poll()) is None:
            time.sleep(TICK_S / 10)
            self._look(job, tick)
        return status

    def _look(self, job: subprocess.Popen[bytes], tick: Callable[[], None]) -> None:
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            job.kill()
        tick()

    def _end(self, job: subprocess.Popen[bytes]) -> None:
        """End the job if it has not ended: its request stays as it is."""
        with self._lock:
            self._job = None
        if job.poll() is None:
            job.send_signal(signal.SIGINT)
            try:
                job.wait(CANCEL_S)
            except subprocess.TimeoutExpired:
                job.kill()
        job.wait()
        if job.stdin:
            with contextlib.suppress(BrokenPipeError):
                job.stdin.close()

    def _lost(self, workitem: Any, status: int) -> Answered:
        """The answer of a job that died without one."""
        why = "cancelled" if self._kill_at is not None else f"its process {describe_status(status)}"
        code = ExitCode.TERMINATED if self._kill_at is not None else ExitCode.FAILED
        outcome = Outcome(code, why, lines=(why,))
        request, _ = workitems.read(workitem)
        if request is not None:
            try:
                requests.end_lost(self.site, request, outcome)
            except (PikaError, OSError) as error:
                outcome = Outcome(code, why, lines=(why, str(error)))
        answer = workitems.answer(workitem, outcome)
        self.push_img_status("ERROR", workitems.told(answer))
        return Answered(answer, code)


def _message(ctrl: Any) -> Any:
    """What an order says: it is a text, or has one as `message`."""
    return ctrl if isinstance(ctrl, str) else getattr(ctrl, "message", None)
