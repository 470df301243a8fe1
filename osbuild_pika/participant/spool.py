"""A directory of workitems: drop a file, collect the answer.

    DIR/in/NAME.json     a workitem: written elsewhere, then renamed to here
    DIR/in/NAME.cancel   cancels it, whether it waits or is being built
    DIR/work/NAME.json   the one in hand; after a kill it is taken up again
    DIR/out/NAME.json    the answer: whole, and once; remove it when it is collected
    DIR/.lock            held by the participant at work

NAME is [a-z0-9][a-z0-9._-]*, 64 characters at most. A workitem goes from `in` to `work` by a
rename; its answer gets its name when it is durable; then the one in `work` is deleted. While an
answer of its name is not collected, a workitem waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from osbuild_pika.engine import disk
from osbuild_pika.errors import ExitCode, InputError, PikaError
from osbuild_pika.participant import workitem as workitems
from osbuild_pika.participant.handler import Answered, ParticipantHandler
from osbuild_pika.participant.request import BusyError, replace
from osbuild_pika.participant.workitem import Outcome
from osbuild_pika.runs import is_name
from osbuild_pika.text import one_line

POLL_S = 0.5
AGAIN_S = 5.0  # until an answer that could not be written is tried again
LISTED = ("in", "work", "out", "files")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Say = Callable[[str], None]


class Spool:
    """The spool of a directory, held until `close`. Raises BusyError if another has it, OSError.

    say: is given a line now and then.
    """

    def __init__(self, directory: str, handler: ParticipantHandler, say: Say) -> None:
        self._directory, self._handler, self._say = directory, handler, say
        self._seen: set[str] = set()
        for name in LISTED:
            os.makedirs(os.path.join(directory, name), mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(os.path.join(directory, ".lock"), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BusyError(f"{directory}: another participant has this spool") from None

    def close(self) -> None:
        os.close(self._lock)

    def run(self, is_once: bool) -> None:
        """Take workitems until the handler is stopped; is_once: until none is left.

        Raises OSError, of an answer that cannot be written, only if is_once.
        """
        while not self._handler.is_stopped:
            try:
                name = self._next()
                if name is not None:
                    self._do(name)
                    continue
            except OSError as error:
                if is_once:
                    raise
                self._say(f"{error.filename}: {error.strerror}; trying again")
                time.sleep(AGAIN_S)
                continue
            if is_once:
                return
            time.sleep(POLL_S)

    def _path(self, *parts: str) -> str:
        return os.path.join(self._directory, *parts)

    # --- what is next ----------------------------------------------------------------------------

    def _next(self) -> str | None:
        """The name of the workitem in hand, else of the oldest that can be taken, now in hand."""
        for name in self._names("work"):
            if not os.path.lexists(self._path("out", f"{name}.json")):
                return name
            self._forget(name)  # it was answered; only this was left to do
        self._announce()
        self._drop_stale()
        for name in self._names("in"):
            if not os.path.lexists(self._path("out", f"{name}.json")):
                os.rename(self._path("in", f"{name}.json"), self._path("work", f"{name}.json"))
                disk.sync_directory(self._path("work"))
                return name
        return None

    def _drop_stale(self) -> None:
        """Forget orders to cancel what is not here: it may have ended just before."""
        for file in os.listdir(self._path("in")):
            name = file.removesuffix(".cancel")
            if name != file and not os.path.lexists(self._path("in", f"{name}.json")):
                with contextlib.suppress(OSError):
                    _drop(self._path("in", file))

    def _names(self, folder: str) -> list[str]:
        """The workitems in a folder, oldest first."""
        found = []
        with os.scandir(self._path(folder)) as entries:
            for entry in entries:
                name = entry.name.removesuffix(".json")
                if entry.name.endswith(".json") and self._is_good(name, entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        time_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                        found.append((time_ns, name))
        return [name for _, name in sorted(found)]

    def _is_good(self, name: str, file: str) -> bool:
        if is_name(name):
            return True
        if file not in self._seen and not file.startswith("."):
            self._seen.add(file)
            self._say(f"{one_line(file, 80)} is passed over: NAME.json with a-z, 0-9, . _ -")
        return False

    def _announce(self) -> None:
        """Tell of each workitem once that it is in the queue."""
        names = self._names("in")
        for name in names:
            if f"in/{name}" not in self._seen:
                self._seen.add(f"in/{name}")
                with contextlib.suppress(PikaError, OSError):
                    fields = workitems.told(_read(self._path("in", f"{name}.json")))
                    self._handler.push_img_status("IN QUEUE", fields)
        gone = {each for each in self._seen if each.startswith("in/") and each[3:] not in names}
        self._seen -= gone

    # --- one workitem ----------------------------------------------------------------------------

    def _do(self, name: str) -> None:
        """Answer the workitem in hand. Raises OSError: it stays in hand."""
        self._say(f"{name}: taken")
        answered = self._answer(name)
        replace(self._path("out", f"{name}.json"), workitems.encode(answered.workitem))
        self._forget(name)
        error = workitems.image_of(answered.workitem).get("error")
        self._say(f"{name}: {'done' if not answered.code else f'failed: {error}'}")

    def _forget(self, name: str) -> None:
        for path in (self._path("work", f"{name}.json"), self._path("in", f"{name}.cancel")):
            with contextlib.suppress(FileNotFoundError):
                _drop(path)
        disk.sync_directory(self._path("work"))

    def _answer(self, name: str) -> Answered:
        path = self._path("work", f"{name}.json")
        try:
            workitem = _read(path)
        except PikaError as error:
            return self._refuse({}, workitems.refused([str(error)]))
        if self._is_cancelled(name):
            outcome = Outcome(ExitCode.TERMINATED, "cancelled", lines=("cancelled",))
            return self._refuse(workitem, outcome)
        return self._handler.answer(workitem, lambda: self._tick(name))

    def _refuse(self, workitem: Any, outcome: Outcome) -> Answered:
        answer = workitems.answer(workitem, outcome)
        self._handler.push_img_status("ERROR", workitems.told(answer))
        return Answered(answer, outcome.code)

    def _tick(self, name: str) -> None:
        if self._is_cancelled(name):
            self._handler.handle_wi_control("cancel")
        with contextlib.suppress(OSError):
            self._announce()

    def _is_cancelled(self, name: str) -> bool:
        return os.path.lexists(self._path("in", f"{name}.cancel"))


def _read(path: str) -> Any:
    """The workitem in a file. Raises InputError if it is none, OSError."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise InputError(f"the workitem cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError("the workitem is no regular file")
    with open(fd, "rb") as file:
        return workitems.decode(file.read(workitems.MAX_BYTES + 1))


def _drop(path: str) -> None:
    """Delete what was dropped, whatever it is."""
    if os.path.isdir(path) and not os.path.islink(path):
        disk.remove_tree(path)
    else:
        os.unlink(path)


@contextlib.contextmanager
def opened(directory: str, handler: ParticipantHandler, say: Say) -> Iterator[Spool]:
    """A spool, held inside the block. Raises BusyError, OSError."""
    spool = Spool(directory, handler, say)
    try:
        yield spool
    finally:
        spool.close()
