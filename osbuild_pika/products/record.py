"""What setup tasks do, as a run of the lifecycle: for `osbuild-pika runs`, `watch`, `result`."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Self

from osbuild_pika import runs, tasks
from osbuild_pika.engine import disk
from osbuild_pika.errors import ExitCode, HostError, PikaError
from osbuild_pika.lifecycle import Journal, LifecycleError
from osbuild_pika.tasks import TaskEvent

RUN = "tasks"
TOLD = ("start", "ran", "skip", "fail")  # kinds of events that are kept


class Record:
    """A run that holds what is done in a `with` block; there is none if nothing is done.

    Raises HostError where no run can be kept.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._journal: Journal | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(tasks.listening(self._take))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if self._journal is None:
                return
            if error is None:
                self._journal.finish("completed", 0, "all tasks are done")
            else:
                self._journal.finish("failed", _exit_code(error), _words(error))

    def _take(self, event: TaskEvent) -> None:
        if event.kind not in TOLD:
            return
        try:
            self._write(event)
        except LifecycleError as error:
            raise HostError(f"the run of the tasks: {error}") from None

    def _write(self, event: TaskEvent) -> None:
        journal = self._journal or self._begin()
        what = f"{event.subject}: {event.task}"
        more = _words(event.error) if event.error else event.reason
        details = {
            "event": f"task.{event.kind}",
            "subject": event.subject,
            "task": event.task,
            **({"reason": more[:1000]} if more else {}),
        }
        words = {"start": event.description, "ran": "done", "skip": f"skipped, {more}"}
        message = f"{what}: {words.get(event.kind) or more}"[:1000]
        journal.append("provisioning", message, details)
        if event.kind == "start":
            journal.write_status("provisioning", message, details)

    def _begin(self) -> Journal:
        root = runs.root()
        with disk.explained(root):
            run = runs.join(root, RUN, runs.engine_of(os.getpid()))
        self._stack.callback(run.close)
        self._journal = self._stack.enter_context(Journal(run.directory))
        self._journal.append("requested", "setup tasks")
        self._journal.write_status("requested", "setup tasks")
        return self._journal


def _exit_code(error: BaseException) -> int:
    if isinstance(error, PikaError):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 0:
        return error.code
    return int(ExitCode.FAILED)


def _words(error: BaseException) -> str:
    text = str(error).encode(errors="backslashreplace").decode()
    return (
        text[:1000]
        if text and isinstance(error, PikaError)
        else f"{type(error).__name__} {text}"[:1000].strip()
    )
