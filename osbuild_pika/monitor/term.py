"""Progress on a terminal: a picture of the whole build that is drawn anew in its place.

Its own characters are ASCII, and a state is always also a word, so it reads the same without
colours and in every locale. Imports rich: 0.1 s, for who asks only.
"""

import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from osbuild_pika.monitor import Record, Sink
from osbuild_pika.monitor.board import CACHED, DONE, FAILED, QUEUED, RUNNING, Board, Step, spell
from osbuild_pika.monitor.lines import fit
from osbuild_pika.monitor.plain import ending, failure
from osbuild_pika.text import one_line

REDRAW_S = 0.1  # at most that often
BAR_CELLS = 40
NARROW, TINY = 60, 36  # columns: less has no details, no pipelines
MARKS = {QUEUED: ".", RUNNING: ">", CACHED: "v", DONE: "v", FAILED: "x"}
STYLES = {QUEUED: "dim", RUNNING: "bold", CACHED: "green", DONE: "green", FAILED: "bold red"}

Clock = Callable[[], float]
Row = tuple[str, str]  # a line, and its style


class TermSink(Sink):
    """Draws the build; what stays in the end is its last picture, and why it failed.

    Call `tick` some times a second: no thread does it.
    """

    def __init__(
        self, out: TextIO, estimates: Mapping[str, float] | None = None, clock: Clock = time.time
    ) -> None:
        """estimates: seconds that a stage took before, by its id, else its type."""
        self._out = out
        self._clock = clock
        self._board = Board(estimates or {})
        self._console = Console(file=out, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._drawn = 0.0
        self._failures: list[str] = []

    def take(self, record: Record) -> None:
        self._board.take(record)
        super().take(record)
        self.tick()

    def tick(self) -> None:
        now = self._clock()
        if self._drawn <= now < self._drawn + REDRAW_S:
            return
        self._draw(now)

    def on_stage_finished(self, record: Record) -> None:
        if not record.get("success"):
            step = self._board.step(record)
            self._failures += failure(step, record, self._board.directory)

    def close(self) -> None:
        self._draw(self._clock())
        self._live.stop()
        style = "" if self._board.success else "bold red"
        for line in self._failures:
            self._print(line, "")
        if self._board.is_over:
            self._print(one_line(ending(self._board)), style)

    def _draw(self, now: float) -> None:
        self._drawn = now
        if not self._board.steps:
            return
        self._live.start()
        rows = picture(self._board, now, self._console.width, self._console.height)
        lines = [Text(fit(line, self._out), style, no_wrap=True) for line, style in rows]
        self._live.update(Text("\n").join(lines), refresh=True)

    def _print(self, line: str, style: str) -> None:
        self._console.print(Text(fit(line, self._out), style), soft_wrap=True)


def picture(board: Board, now: float, width: int, height: int) -> list[Row]:
    """What to draw: lines of at most `width` - 1 cells, and at most `height` - 1 of them."""
    width = max(width - 1, 1)
    room = max(height - 6, 1)
    foot = [_bar(board, width)]
    if board.news:
        foot.append((f" {one_line(board.news)}", "dim"))
    columns = _columns(board.steps, width)
    steps = visible(board.steps, room)
    rows = [(_headline(board, now), "bold"), (_heads(columns), "dim")]
    rows += [(_row(board, step, now, columns), STYLES[step.state]) for step in steps]
    hidden = len(board.steps) - len(steps)
    if hidden:
        rows.append((f"    and {hidden} more", "dim"))
    return [(cut(line, width), style) for line, style in (rows + foot)[: max(height - 1, 1)]]


def visible(steps: list[Step], room: int) -> list[Step]:
    """The steps to show if there is room for so many: around the first that has not ended."""
    if len(steps) <= room:
        return steps
    at = next((index for index, step in enumerate(steps) if not step.has_ended), len(steps))
    start = max(0, min(at - room // 3, len(steps) - room))
    return steps[start : start + room]


def cut(line: str, width: int) -> str:
    """A line that fits; what is cut ends with "..."."""
    if cell_len(line) <= width:
        return line.rstrip()
    return set_cell_size(line, width - 3) + "..." if width > 6 else set_cell_size(line, width)


def _headline(board: Board, now: float) -> str:
    end = board.now if board.is_over else now
    parts = [f"{one_line(board.manifest, 60)}  run {one_line(board.run, 100)}"]
    parts.append(f"{spell(end - board.started if board.started else 0.0)} elapsed")
    if (left := board.left_s(now)) is not None:
        parts.append(f"~{spell(left)} left")
    return "  ".join(parts)


def _columns(steps: list[Step], width: int) -> list[int]:
    """Cells for pipeline, stage, state, time, details; 0: the column is left out."""
    pipeline = min(max([cell_len(_pipeline(step)) for step in steps] + [8]), 16)
    stage = min(max([cell_len(_stage(step)) for step in steps] + [5]), max(8, width // 3))
    if width < TINY:
        return [0, max(width - 21, 4), 7, 7, 0]
    if width < NARROW:
        return [pipeline, max(min(stage, width - pipeline - 23), 4), 7, 7, 0]
    return [pipeline, stage, 8, 7, max(width - pipeline - stage - 27, 8)]


def _pipeline(step: Step) -> str:
    return one_line(step.pipeline) or "sources"


def _stage(step: Step) -> str:
    return one_line(step.name.removeprefix(f"{step.pipeline}/").removeprefix("source "))


def _heads(columns: list[int]) -> str:
    return _join(["PIPELINE", "STAGE", "STATE", "TIME", "DETAIL"], columns, "  ")


def _row(board: Board, step: Step, now: float, columns: list[int]) -> str:
    state, took, detail = step.state, step.duration_s, ""
    clock = spell(took)
    if step.state == RUNNING:
        clock = spell(now - step.started)
        state = f"{100 * step.done / step.total:.0f}%" if step.total and step.pipeline else state
        detail = " ".join(filter(None, (one_line(step.message, 200), step.how_far())))
    elif step.state == QUEUED:
        guess = board.estimate(step)
        clock = f"~{spell(guess)}" if guess else ""
    elif step.state == CACHED and step.saved_s:
        detail = f"saved ~{spell(step.saved_s)}"
    elif step.state == FAILED:
        detail = one_line(step.message, 200)
    cells = [_pipeline(step), _stage(step), state, clock, detail]
    return _join(cells, columns, f" {MARKS[step.state]}")


def _join(cells: list[str], columns: list[int], mark: str) -> str:
    shown = [
        cell.rjust(size) if name == "time" else set_cell_size(cut(cell, size), size)
        for name, cell, size in zip(
            ("pipeline", "stage", "state", "time", "detail"), cells, columns, strict=True
        )
        if size
    ]
    return f"{mark}  {'  '.join(shown)}".rstrip()


def _bar(board: Board, width: int) -> Row:
    ended, total, cached = board.counts()
    tail = f"{ended}/{total} steps   cache {cached} hit {ended - cached} miss"
    cells = min(BAR_CELLS, width - len(tail) - 3)
    if cells < 8:
        return f" {tail}", ""
    full = cells * ended // max(total, 1)
    return f" {'=' * full}{'>' if full < cells else ''}{'-' * (cells - full - 1)}  {tail}", ""
