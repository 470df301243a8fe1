"""The run that a service writes: which one it is, its events, its status, its end."""

from __future__ import annotations

import contextlib
import os

from osbuild_pika import lifecycle, runs
from osbuild_pika.lifecycle import Journal, LifecycleError
from osbuild_pika.lifecycle_service import authority
from osbuild_pika.lifecycle_service.opening import QUOTA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from osbuild_pika.lifecycle_service.authority import Event, Stage
    from osbuild_pika.lifecycle_service.opening import Opening
    from osbuild_pika.lifecycle_service.verdict import End

OWNER_RESERVE = 1024 * 1024  # bytes at the end of a log that stages may not fill


class Record:
    """One run, held until the end of the process. Methods raise LifecycleError and OSError."""

    def __init__(self, engine_pid: int) -> None:
        self.has_owner = False
        self.last_seq = 0
        self._log_size: int | None = None  # with what stages are about to write
        self._engine = runs.engine_of(engine_pid)
        self._kind = "requested"  # the state that the run is in, as far as we said
        self._run: runs.Run | None = None
        self._journal: Journal | None = None

    @property
    def run(self) -> runs.Run:
        if self._run is None:
            raise LifecycleError("NotOpen", "no run is open")
        return self._run

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            raise LifecycleError("NotOpen", "no run is open")
        return self._journal

    # --- which run -------------------------------------------------------------------------------

    def own(self, args: Any) -> dict[str, Any]:
        """Hold a run for the owner, and say that it is accepted if it is new."""
        name, facts = authority.take("own", args, ("run",), ("facts",))
        if not isinstance(facts, dict | None):
            raise LifecycleError("InvalidArgument", "facts are not an object")
        if self._run is not None:
            raise LifecycleError("InvalidArgument", f"{self.run.id} is open already")
        self._hold(name, facts or {})
        self.has_owner = True
        run = self.run
        return {
            "seq": self.last_seq,
            "run": run.id,
            "directory": run.directory,
            "recovered": run.recovered,
        }

    def hold_for(self, stage: Stage) -> None:
        """Hold the run that a stage's device is opened for, if none is held yet."""
        if self._run is None:
            default = f"build-{self._engine.pid}-{self._engine.start_time or 0}"
            self._hold(os.environ.get("OSBUILD_PIKA_RUN") or stage.run or default, {})
            if self._kind == "requested":
                self.status("provisioning", "building", {"event": "build.started"})
        if not self.has_owner:
            self.word(stage, "stage.started", "the stage started")

    def _hold(self, name: Any, facts: dict[str, Any]) -> None:
        root = runs.root()
        runs.seal_dead(root)
        run = runs.join(root, runs.check_name(name), self._engine)
        try:
            journal = Journal(run.directory, strict=True)
            kind, _ = journal.ending()
            if kind is None:
                journal.reserve()
            self._run, self._journal = run, journal
            if kind is None:
                self.status("requested", "accepted", {**facts, "event": "build.accepted"})
            elif not os.path.exists(journal.paths.status):  # killed between the two
                self.status(kind, "going on", None)
            self._kind = kind or self._kind
        except BaseException:
            self._run = self._journal = None
            run.close()
            raise

    # --- events ----------------------------------------------------------------------------------

    def encode(self, events: Sequence[Event]) -> tuple[list[bytes], list[str]]:
        """Check events; returns their bodies and kinds, for `append`."""
        kinds = [event.kind or self._kind for event in events]
        bodies = [
            self.journal.encode(kind, event.message, event.details)
            for kind, event in zip(kinds, events, strict=True)
        ]
        size = size_of(bodies)
        if size > lifecycle.MAX_BATCH:
            raise LifecycleError("TooLarge", f"{size} bytes at once; at most {lifecycle.MAX_BATCH}")
        return bodies, kinds

    def charge(self, opening: Opening, size: int) -> None:
        """Count bytes of a stage's events; refuse what is beyond its share."""
        if opening.used + size > QUOTA:
            raise LifecycleError("Limit", f"a stage may write {QUOTA} bytes of events")
        if self._log_size is None:
            self._log_size = os.stat(self.journal.paths.events).st_size
        if self._log_size + size > lifecycle.MAX_LOG - OWNER_RESERVE:
            raise LifecycleError("Limit", "the log is full, but for the engine's own events")
        self._log_size += size
        opening.used += size

    def append(self, bodies: Sequence[bytes], kinds: Sequence[str]) -> int:
        """Write a batch; durable on return. Returns the first seq."""
        self._log_size = None
        first, self.last_seq = self.journal.append_encoded(bodies, kinds)
        self._kind = kinds[-1]
        return first

    def word(self, stage: Stage, name: str, message: str, exit_code: int | None = None) -> None:
        """Write what the service itself has to say of a stage."""
        facts = {} if exit_code is None else {"exit_code": exit_code}
        details = authority.stamp({**facts, "event": name}, stage, self.run.id)
        self.append(
            *self.encode([authority.Event(None, message, {**details, "source": "service"})])
        )

    def status(self, state: str, message: str, details: dict[str, Any] | None) -> None:
        """Replace status.json; if details name an event, that is written first."""
        facts = {**(details or {}), "run_id": self.run.id}
        if "event" in facts:
            self.append(*self.encode([authority.Event(state, message, facts)]))
        self.journal.write_status(state, message, facts)
        self._kind = state

    # --- results ---------------------------------------------------------------------------------

    def stage_result(self, args: Any, opening: Opening) -> None:
        """Keep a stage's result; that of a final stage without an owner ends the run."""
        status, code, message, details = authority.result_of(args)
        result = {"status": status, "exit_code": code, "message": message, "details": details}
        if opening.result not in (None, result):
            raise LifecycleError("AlreadyFinished", "the stage gave another result before")
        stamped = authority.stamp(details, opening.stage, self.run.id)
        if opening.result is None:
            name = "stage.finished" if status == "completed" else "stage.failed"
            event = authority.Event(None, message, {**stamped, "event": name, "exit_code": code})
            self.append(*self.encode([event]))
            opening.result = result
        if opening.stage.is_final and not self.has_owner:  # again if it failed before
            self.finish(status, code, message, {**stamped, "event": f"build.{status}"})

    def finish(self, status: str, code: int, message: str, details: dict[str, Any]) -> None:
        """End the run."""
        facts = {"event": f"build.{status}", **details, "run_id": self.run.id}
        self.last_seq = self.journal.finish(status, code, message, facts)
        self._drop_reserve()

    def has_ended(self) -> bool:
        """Whether there is nothing left to say of a run's end."""
        return self._run is None or os.path.exists(self.journal.paths.result)

    def end(self, end: End) -> None:
        """Write the end that nobody else was left to write, whatever became of our journal."""
        with Journal(self.run.directory) as journal:
            journal.recover()
            if not self.has_ended():
                details = {"event": end.event, "run_id": self.run.id, "source": "service"}
                journal.finish("failed", end.exit_code, end.message, details)
        self._drop_reserve()

    def _drop_reserve(self) -> None:
        """Give back the space that was kept for the last words."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.run.directory, ".reserve"))


def size_of(bodies: Sequence[bytes]) -> int:
    """Bytes that events take in the log."""
    return sum(map(len, bodies)) + 40 * len(bodies)
