"""What is known of a build at one moment: made of its records, read by who shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from osbuild_pika.monitor import Record, Sink, number, objects, text

QUEUED, RUNNING, CACHED, DONE, FAILED = "queued", "running", "cached", "done", "failed"


@dataclass
class Step:
    """A stage, or a source (its pipeline is ""). Times in Unix seconds. All texts are foreign."""

    pipeline: str
    type: str
    id: str
    state: str = QUEUED
    started: float = 0.0
    duration_s: float = 0.0
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    message: str = ""
    saved_s: float = 0.0  # what a cached one would have cost
    log: str = ""

    @property
    def name(self) -> str:
        """Where it stands: "rootfs/packages"."""
        kind = self.type.removeprefix("org.osbuild-pika.").removeprefix("org.osbuild.")
        return f"{self.pipeline}/{kind}" if self.pipeline else f"source {kind}"

    @property
    def has_ended(self) -> bool:
        return self.state in (CACHED, DONE, FAILED)

    def how_far(self) -> str:
        """The progress it told: "3/8 steps"; "" if none, or its message has the numbers."""
        has_it = self.total and f"{self.done:g} of {self.total:g}" in self.message
        if has_it or not (self.done or self.total):
            return ""
        total = f"/{self.total:g}" if self.total else ""
        return f"{self.done:g}{total} {self.unit}".rstrip()


@dataclass
class Board(Sink):
    """The steps of a build in their order, and how it ended.

    estimates: seconds that a stage took before, by its id, else its type.
    """

    estimates: Mapping[str, float] = field(default_factory=dict)
    manifest: str = ""
    run: str = ""
    directory: str = ""
    started: float = 0.0
    now: float = 0.0  # of the last record
    steps: list[Step] = field(default_factory=list)
    current: Step | None = None  # what began last, and has not ended
    news: str = ""  # the last thing that a stage said
    is_over: bool = False
    success: bool = False
    message: str = ""

    def take(self, record: Record) -> None:
        self.now = number(record, "time") or self.now
        super().take(record)

    def on_build_started(self, record: Record) -> None:
        self.manifest, self.run, self.directory = (
            text(record, name) for name in ("manifest", "run", "directory")
        )
        self.started = self.now
        for pipeline in objects(record, "pipelines"):
            for stage in objects(pipeline, "stages"):
                at = (text(pipeline, "name"), text(stage, "type"), text(stage, "id"))
                self.steps.append(Step(*at))

    def on_source_started(self, record: Record) -> None:
        step = self._begin(record)
        step.total, step.unit = number(record, "items"), "items"

    def on_source_progress(self, record: Record) -> None:
        self._advance(self.step(record), record)

    def on_source_finished(self, record: Record) -> None:
        self._end(record)

    def on_stage_cached(self, record: Record) -> None:
        step = self.step(record)
        step.state, step.saved_s = CACHED, self.estimate(step)

    def on_stage_started(self, record: Record) -> None:
        self._begin(record)

    def on_stage_progress(self, record: Record) -> None:
        key = text(record, "id")
        named = [each for each in self.steps if key and each.id == key]
        step = named[-1] if named else self.current
        if step is not None and step.state == RUNNING:
            self._advance(step, record)
            if step.message:
                self.news = f"{step.name}  {step.message}"

    def on_stage_output(self, record: Record) -> None:
        lines = text(record, "text").rstrip().rpartition("\n")
        if self.current is not None and lines[2].strip():
            self.current.message = lines[2]

    def on_stage_finished(self, record: Record) -> None:
        self._end(record)

    def on_build_finished(self, record: Record) -> None:
        self.is_over, self.success = True, bool(record.get("success"))
        self.message = text(record, "message") or text(record, "reason")
        self.current = None

    def step(self, record: Record) -> Step:
        """The step that a record is about; a new one if it was not announced."""
        kind = text(record, "stage") or text(record, "source")
        at = (text(record, "pipeline"), kind, text(record, "id"))
        for step in self.steps:
            if (step.pipeline, step.type, step.id) == at:
                return step
        step = Step(*at)
        sources = sum(not each.pipeline for each in self.steps)
        self.steps.insert(len(self.steps) if step.pipeline else sources, step)
        return step

    def _begin(self, record: Record) -> Step:
        step = self.step(record)
        step.state, step.started = RUNNING, self.now
        step.log = text(record, "log")
        self.current = step
        return step

    def _advance(self, step: Step, record: Record) -> None:
        step.done = number(record, "done")
        step.total = number(record, "total") or step.total
        step.unit = text(record, "unit") or step.unit
        step.message = text(record, "message") or step.message

    def _end(self, record: Record) -> None:
        step = self.step(record)
        step.state = DONE if record.get("success") else FAILED
        step.duration_s = number(record, "duration_s")
        step.log = text(record, "log") or step.log
        running = [each for each in self.steps if each.state == RUNNING]
        self.current = running[-1] if running else None

    def estimate(self, step: Step) -> float:
        """Seconds that it took before; 0 if that is not known."""
        return self.estimates.get(step.id) or self.estimates.get(step.type) or 0.0

    def left_s(self, now: float) -> float | None:
        """Seconds until the end, as far as earlier runs tell; None if a step is unknown."""
        open_ = [step for step in self.steps if not step.has_ended]
        if self.is_over or not open_ or not all(map(self.estimate, open_)):
            return None
        spent = [now - step.started if step.state == RUNNING else 0.0 for step in open_]
        return sum(max(0.0, self.estimate(s) - t) for s, t in zip(open_, spent, strict=True))

    def counts(self) -> tuple[int, int, int]:
        """Steps that have ended, all of them, and those of the ended that were cached."""
        ended = sum(step.has_ended for step in self.steps)
        return ended, len(self.steps), sum(step.state == CACHED for step in self.steps)


def spell(seconds: float) -> str:
    """A duration for people: "0.4s", "1m12s", "2h05m"."""
    if seconds < 59.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
