"""Tells what a build does: as records to whoever watches, as events to the lifecycle, as logs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from osbuild_pika.engine.fetching import Fetched, first_error
from osbuild_pika.engine.manifest import Source, Stage
from osbuild_pika.engine.owner import Owner, event
from osbuild_pika.engine.plan import Plan, PlannedPipeline, Step
from osbuild_pika.engine.running import Limits
from osbuild_pika.engine.stagework import Done
from osbuild_pika.errors import ExitCode, PikaError, describe_status
from osbuild_pika.text import one_line

MAX_MESSAGE = 4000  # characters
MAX_LOG = 256 * 1024 * 1024  # characters of a stage's output that are kept
MAX_OUTPUT = 4 * 1024 * 1024  # characters of a stage's output that its last record holds
SIGNALLED = 128  # what a shell adds to the number of a signal


class Failure(NamedTuple):
    """Why a stage failed. name: of the event that is told. error: what it told the engine."""

    reason: str
    exit_code: int
    name: str = "stage.failed"
    error: Mapping[str, str] | None = None


class StageFailed(PikaError):
    """A stage failed; the rest of the build was not tried."""

    def __init__(self, pipeline: str, stage: Stage, failure: Failure) -> None:
        super().__init__(f"{pipeline}/{stage.type}: {failure.reason}")
        self.failure = failure
        self.exit_code = ExitCode(failure.exit_code)


def explain(done: Done, limits: Limits) -> Failure | None:
    """Say why a stage failed; None if it did not. It always says something."""
    outcome = done.outcome
    if outcome.ended_by == "stop":
        return Failure("interrupted", ExitCode.INTERRUPTED, "interrupted")
    if outcome.ended_by == "total timeout":
        text = f"took longer than {limits.total_s:g} s"
        return Failure(text, ExitCode.TIMED_OUT, "timeout")
    if outcome.ended_by == "idle timeout":
        text = f"printed nothing for {limits.idle_s:g} s"
        return Failure(text, ExitCode.TIMED_OUT, "timeout")
    if outcome.status == 0:
        return Failure(done.fault, ExitCode.FAILED) if done.fault else None
    if not outcome.started:
        return Failure("its sandbox could not be made", ExitCode.FAILED)
    error = outcome.exception._asdict() if outcome.exception else None
    if error is not None:
        first = error["value"].strip().partition("\n")[0]
        return Failure(one_line(f"{error['type']}: {first}"), ExitCode.FAILED, error=error)
    return Failure(describe_status(_signed(outcome.status)), ExitCode.FAILED)


def _signed(status: int) -> int:
    """A shell's status in subprocess's form, if it is likely that of a signal."""
    number = status - SIGNALLED
    return -number if number in set(signal.Signals) else status


class Reporting:
    """The one voice of a build. emit: takes a record. directory: the run's."""

    def __init__(self, emit: Callable[[dict[str, Any]], None], owner: Owner) -> None:
        self._emit = emit
        self._owner = owner
        self._lock = threading.Lock()
        self._output: list[str] = []
        self._size = self._logged = 0
        self._log: TextIO | None = None
        self._number = 0
        self._begun: list[dict[str, Any]] = []  # an event that goes with the next ones
        self.stages: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []

    def tell(self, record: str, **fields: Any) -> None:
        """Send a record; from any thread."""
        with self._lock:
            self._emit({"record": record, "time": time.time(), **fields})

    def service_output(self, service: str, module: str, line: str) -> None:
        self.tell("service.output", service=service, module=module, line=line)

    def build_started(self, name: str, plan: Plan, runners: Mapping[str | None, str]) -> None:
        """runners: of build pipelines, by id; of the host under None."""
        pipelines = [
            {
                "name": each.pipeline.name,
                "id": each.pipeline.id,
                "build": each.pipeline.build,
                "runner": runners[each.pipeline.build],
                "source_epoch": each.pipeline.stages[0].source_epoch if each.steps else None,
                "stages": [
                    {"type": step.stage.type, "id": step.stage.id, "is_cached": step.is_cached}
                    for step in each.steps
                ],
            }
            for each in plan.pipelines
        ]
        run = {"run": self._owner.run, "directory": self._owner.directory, "manifest": name}
        self.tell("build.started", **run, sources=len(plan.sources), pipelines=pipelines)
        self._owner.begin(f"building {name}")

    # --- sources ---------------------------------------------------------------------------------

    def source_started(self, source: Source, count: int) -> None:
        self.tell("source.started", source=source.type, id=source.id, items=count)

    def source_progress(self, source: Source, value: Any) -> None:
        if isinstance(value, dict):
            known = {name: value.get(name) for name in ("done", "total", "unit")}
            self.tell("source.progress", source=source.type, id=source.id, **known)
            if isinstance(known["done"], int | float):
                details = {"source_type": source.type, **known}
                self._owner.tell("source.progress", f"{source.type}", **details)

    def source_finished(self, source: Source, fetched: Fetched) -> None:
        """source: the whole of it, of which perhaps a part was fetched."""
        results = [
            {
                "checksum": _metadata(each).get("checksum"),
                "is_cached": bool(_metadata(each).get("cached")),
                "error": each.get("error") or "",
            }
            for each in fetched.results
            if isinstance(each, dict)
        ]
        self.sources.append(
            {"type": source.type, "success": fetched.is_success, "items": len(fetched.source.items)}
        )
        self.tell(
            "source.finished",
            source=source.type,
            id=source.id,
            success=fetched.is_success,
            output=fetched.output,
            results=results,
            duration_s=fetched.duration_s,
        )
        name = "source.finished" if fetched.is_success else "source.failed"
        message = source.type if fetched.is_success else first_error(fetched)[:MAX_MESSAGE]
        self._owner.tell(name, one_line(message), duration_s=round(fetched.duration_s, 3))

    # --- pipelines and stages --------------------------------------------------------------------

    def pipeline_started(self, planned: PlannedPipeline) -> None:
        self.tell("pipeline.started", pipeline=planned.pipeline.name, id=planned.pipeline.id)

    def pipeline_finished(self, planned: PlannedPipeline) -> None:
        self._flush()
        self.tell("pipeline.finished", pipeline=planned.pipeline.name, id=planned.pipeline.id)

    def stages_cached(
        self, planned: PlannedPipeline, steps: Sequence[Step], metadata: Mapping[str, Any]
    ) -> None:
        """metadata: what these stages left when they ran, by id."""
        for index, step in enumerate(steps):
            left = metadata.get(step.stage.id)
            self.tell("stage.cached", **_place(planned, step), index=index, metadata=left)
            self._begun.append(event("stage.cached", "cached", **_identity(planned, step)))
            self._note(planned, step, True, 0.0)
        self._flush()

    def stage_started(self, planned: PlannedPipeline, step: Step) -> None:
        self._number += 1
        name = f"{self._number:02}-{step.stage.type}.log"
        directory = Path(self._owner.directory) / "log"
        directory.mkdir(exist_ok=True)
        self._log = open(directory / name, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._output, self._size, self._logged = [], 0, 0
        self.tell(
            "stage.started",
            **_place(planned, step),
            index=planned.steps.index(step),
            options=step.stage.options,
            log=os.path.join("log", name),
        )
        self._begun.append(
            event("stage.started", f"{step.stage.type} started", **_identity(planned, step))
        )
        self._flush()

    def stage_output(self, text: str) -> None:
        self._keep(text)
        if self._size < MAX_OUTPUT:
            self._output.append(text[: MAX_OUTPUT - self._size])
            self._size += len(text)
        self.tell("stage.output", text=text)

    def _keep(self, text: str) -> None:
        """Write output to the log; what finds no room there is lost, the build is not."""
        self._logged += len(text)
        if self._log is not None and self._logged <= MAX_LOG:
            with contextlib.suppress(OSError):
                self._log.write(text)
                self._log.flush()

    def stage_finished(
        self, planned: PlannedPipeline, step: Step, done: Done, failure: Failure | None
    ) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
        duration_s = done.outcome.duration_s
        name = failure.name if failure else "stage.finished"
        message = failure.reason if failure else f"{step.stage.type} finished"
        details = {**_identity(planned, step), "duration_s": round(duration_s, 3)}
        self._begun.append(event(name, message, **details))
        if failure is not None:
            self._flush()
        self.tell(
            "stage.finished",
            **_place(planned, step),
            index=planned.steps.index(step),
            success=failure is None,
            output="".join(self._output),
            error=failure.error if failure else None,
            reason=failure.reason if failure else None,
            metadata=done.metadata,
            duration_s=duration_s,
        )
        self._note(planned, step, failure is None, duration_s)

    def _note(
        self, planned: PlannedPipeline, step: Step, is_success: bool, duration_s: float
    ) -> None:
        self.stages.append(
            {
                "pipeline": planned.pipeline.name,
                "type": step.stage.type,
                "id": step.stage.id,
                "key": step.key,
                "is_cached": step.is_cached,
                "success": is_success,
                "duration_s": round(duration_s, 3),
                "log": None if step.is_cached else f"log/{self._number:02}-{step.stage.type}.log",
            }
        )

    def _flush(self) -> None:
        """Make events durable: what ended goes with what begins, in one go."""
        events, self._begun = self._begun, []
        self._owner.tell_all(events)

    # --- the end ---------------------------------------------------------------------------------

    def export_started(self, pipeline: str, path: str) -> None:
        self.tell("export.started", pipeline=pipeline, path=path)

    def export_finished(self, pipeline: str, path: str) -> None:
        self.tell("export.finished", pipeline=pipeline, path=path)
        self._owner.tell("artifact", f"exported {pipeline}", pipeline=pipeline, path=path)

    def build_finished(self, exit_code: int, message: str, name: str) -> None:
        """Say how the build ended, to the lifecycle first."""
        message = one_line(message, MAX_MESSAGE)
        self._flush()
        self._owner.end(exit_code, message, {"event": name})
        self.tell(
            "build.finished",
            success=not exit_code,
            exit_code=exit_code,
            message=message,
            reason=name,
        )


def _metadata(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of one item of a source's reply."""
    found = result.get("metadata")
    return found if isinstance(found, dict) else {}


def _place(planned: PlannedPipeline, step: Step) -> dict[str, Any]:
    return {"pipeline": planned.pipeline.name, "stage": step.stage.type, "id": step.stage.id}


def _identity(planned: PlannedPipeline, step: Step) -> dict[str, Any]:
    """A stage in the lifecycle's terms."""
    stage = step.stage
    return {"pipeline": planned.pipeline.name, "stage": stage.type, "stage_id": stage.id}
