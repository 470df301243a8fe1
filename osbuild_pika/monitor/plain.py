"""Progress for logs of CI systems: one line at each start and end, and one in long silence."""

import os
import time
from collections.abc import Callable
from typing import TextIO

from osbuild_pika.monitor import Record, Sink, number, objects, text
from osbuild_pika.monitor.board import Board, Step, spell
from osbuild_pika.monitor.lines import fit, last_lines
from osbuild_pika.text import one_line

HEARTBEAT_S = 30.0
TAIL_LINES = 30  # of a failed stage's output

Clock = Callable[[], float]


class PlainSink(Sink):
    """Writes lines that begin with the time of day. All that is foreign in them is made safe."""

    def __init__(self, out: TextIO, clock: Clock = time.time) -> None:
        """clock: Unix seconds; for what no record tells, the silence."""
        self._out = out
        self._clock = clock
        self._board = Board()
        self._spoke = clock()

    def take(self, record: Record) -> None:
        self._board.take(record)
        super().take(record)
        self.tick()

    def tick(self) -> None:
        if self._clock() - self._spoke < HEARTBEAT_S or self._board.is_over:
            return
        step = self._board.current
        if step is None:
            self._say("still at work")
            return
        facts = (step.how_far(), one_line(step.message, 200))
        told = "".join(f", {fact}" for fact in facts if fact)
        self._say(f"{step.name}: still running, {spell(self._clock() - step.started)}{told}")

    def on_build_started(self, record: Record) -> None:
        pipelines, sources = objects(record, "pipelines"), int(number(record, "sources"))
        stages = sum(len(objects(each, "stages")) for each in pipelines)
        what = f"{stages} stages in {len(pipelines)} pipelines, {sources} sources"
        self._say(f"{self._board.manifest}: {what}; run {self._board.directory}")

    def on_source_started(self, record: Record) -> None:
        step = self._board.step(record)
        self._say(f"{step.name}: started, {step.total:g} items")

    def on_source_finished(self, record: Record) -> None:
        step = self._board.step(record)
        results = objects(record, "results")
        cached = sum(bool(each.get("is_cached")) for each in results)
        errors = [text(each, "error") for each in results if text(each, "error")]
        self._end(step, record, f", {cached} of {len(results)} cached")
        self._tell_lines(errors)

    def on_stage_cached(self, record: Record) -> None:
        self._say(f"{self._board.step(record).name}: cached")

    def on_stage_started(self, record: Record) -> None:
        ended, total, _ = self._board.counts()
        self._say(f"{self._board.step(record).name}: started, {ended + 1} of {total}")

    def on_stage_finished(self, record: Record) -> None:
        step = self._board.step(record)
        self._end(step, record, "")
        if not record.get("success"):
            for line in failure(step, record, self._board.directory):
                self._write(line)

    def on_export_started(self, record: Record) -> None:
        self._say(f"export of {text(record, 'pipeline')}: started")

    def on_export_finished(self, record: Record) -> None:
        self._say(f"export of {text(record, 'pipeline')}: done, {text(record, 'path')}")

    def on_build_finished(self, record: Record) -> None:
        self._say(ending(self._board))

    def _end(self, step: Step, record: Record, more: str) -> None:
        if record.get("success"):
            self._say(f"{step.name}: done in {spell(step.duration_s)}{more}")
            return
        why = text(record, "reason") or text(record, "output").rstrip().rpartition("\n")[2]
        self._say(f"{step.name}: FAILED after {spell(step.duration_s)}: {why}")

    def _tell_lines(self, lines: list[str]) -> None:
        for line in lines[:TAIL_LINES]:
            self._write(f"    {one_line(line)}")

    def _say(self, words: str) -> None:
        self._spoke = self._clock()
        clock = time.strftime("%H:%M:%S", time.localtime(self._board.now or self._spoke))
        self._write(f"{clock} {one_line(words)}")

    def _write(self, line: str) -> None:
        self._out.write(fit(line, self._out) + "\n")
        self._out.flush()


def failure(step: Step, record: Record, directory: str) -> list[str]:
    """The last words of a failed stage, and where all of them are, as safe lines."""
    lines = [f"    | {line}".rstrip() for line in last_lines(text(record, "output"), TAIL_LINES)]
    path = one_line(os.path.join(directory, step.log or "log"))
    return [*lines, f"    all of its output: {path}"]


def ending(board: Board) -> str:
    """How a build ended, in one line that is not safe yet."""
    _, total, cached = board.counts()
    took = spell(board.now - board.started if board.started else 0.0)
    if board.success:
        return f"{board.manifest}: done in {took}, {total} steps, {cached} of them cached"
    why = f": {board.message}" if board.message else ""
    return f"{board.manifest}: FAILED after {took}{why}"
