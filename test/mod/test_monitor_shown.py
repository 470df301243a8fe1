"""What people see of a build: plain lines, and the picture on a terminal."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import NAMES, records
from rich.cells import cell_len

from osbuild_pika.errors import InputError
from osbuild_pika.lifecycle import Journal
from osbuild_pika.monitor import RECORDS, Sink, Tee
from osbuild_pika.monitor.board import Board, Step, spell
from osbuild_pika.monitor.choose import MODES, progress_sink, upstream_sink
from osbuild_pika.monitor.jsonseq import JsonSeqSink
from osbuild_pika.monitor.lines import Lines
from osbuild_pika.monitor.live import LiveProgress
from osbuild_pika.monitor.log import LogSink
from osbuild_pika.monitor.plain import HEARTBEAT_S, PlainSink
from osbuild_pika.monitor.result import ResultCollector
from osbuild_pika.monitor.term import TermSink, picture, visible

EVIL = "\x1b[2J\x1b]0;title\x07\x9b1A\r\x08::error::no\u202e ##[group]x\n"
TERMINAL = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}


class Screen(io.StringIO):
    """Takes what a terminal would get."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(stream: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    told(PlainSink(out), stream)
    return out.getvalue()


def told(sink: Sink, stream: list[dict[str, Any]]) -> None:
    for record in stream:
        sink.take(record)
        sink.tick()
    sink.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in TERMINAL.items():
        monkeypatch.setenv(name, value)


def stage(record: str, **fields: Any) -> dict[str, Any]:
    at = {"pipeline": "os", "stage": "org.osbuild.copy", "id": "1"}
    return {"record": record, "time": 1000.0, **at, **fields}


STARTED = {
    "record": "build.started",
    "time": 1000.0,
    "manifest": "web",
    "run": "r1",
    "directory": "/runs/r1",
    "sources": 0,
    "pipelines": [{"name": "os", "id": "1", "stages": [{"type": "org.osbuild.copy", "id": "1"}]}],
}
FAILED = stage(
    "stage.finished",
    success=False,
    output="".join(f"line {n}\n" for n in range(50)),
    reason="exited with status 3",
    duration_s=2.0,
    log="log/01-copy.log",
)
LOST = {"record": "build.finished", "time": 1002.0, "success": False, "message": "no"}


def test_plain_lines_tell_each_start_and_end() -> None:
    lines = re.sub(
        r"^[0-9:]{8} |[0-9.]+(?=s\b)", "", plain(records("08-fail-error-stage")), flags=re.M
    )
    assert lines.split("\n") == [
        "manifest.json: 4 stages in 2 pipelines, 0 sources; run /runs/run",
        "image/mkdir: started, 1 of 4",
        "image/mkdir: done in s",
        "image/error: started, 2 of 4",
        "image/error: FAILED after s: Error stage will now return error: 3",
        "    | Error stage will now return error: 3",
        "    all of its output: /runs/run/log",
        "manifest.json: FAILED after s",
        "",
    ]


def test_a_failed_stage_shows_its_last_lines_and_its_log() -> None:
    lines = plain([STARTED, stage("stage.started"), FAILED, LOST]).split("\n")
    start = next(index for index, line in enumerate(lines) if "FAILED" in line)
    assert lines[start].endswith("os/copy: FAILED after 2.0s: exited with status 3")
    assert lines[start + 1 : start + 31] == [f"    | line {n}" for n in range(20, 50)]
    assert lines[start + 31] == "    all of its output: /runs/r1/log/01-copy.log"


def test_silence_is_broken_every_30_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    sink = PlainSink(out, clock)
    for record in (STARTED, stage("stage.started")):
        sink.take(record)
    sink.take(stage("stage.progress", done=3, total=8, unit="files", message="copying"))
    said = out.getvalue()
    for _ in range(100):
        clock.now += 1
        sink.tick()
    beats = out.getvalue().removeprefix(said).split("\n")[:-1]
    assert len(beats) == 100 // HEARTBEAT_S
    assert "os/copy: still running, 30.0s, 3/8 files, copying" in beats[0]


def test_a_source_tells_what_was_cached_and_what_failed() -> None:
    text = plain(records("16-fail-source-own"))
    assert "source golden.src: FAILED" in text
    assert "    no such thing ü\n    second\n" in text


@pytest.mark.parametrize("make", [PlainSink, LogSink, JsonSeqSink, TermSink])
def test_orders_to_the_terminal_never_reach_it(make: Any, terminal: None) -> None:
    out = Screen()
    names = {"pipeline": EVIL, "stage": EVIL, "id": EVIL}
    pipelines = [{"name": EVIL, "id": EVIL, "stages": [{"type": EVIL, "id": EVIL}]}]
    stream: list[dict[str, Any]] = [
        {**STARTED, "manifest": EVIL, "run": EVIL, "directory": EVIL, "pipelines": pipelines},
        {"record": "source.started", "source": EVIL, "id": EVIL, "items": 1},
        {"record": "source.finished", "source": EVIL, "results": [{"error": EVIL}]},
        stage("stage.started", **names, options={EVIL: EVIL}, log=EVIL),
        *[stage("stage.output", text=piece) for piece in (EVIL, *EVIL, EVIL)],
        {"record": "service.output", "service": EVIL, "module": EVIL, "line": EVIL},
        stage("stage.progress", done=1, total=2, unit=EVIL, message=EVIL),
        stage("stage.finished", **names, success=False, output=EVIL * 3, reason=EVIL),
        {"record": "build.finished", "success": False, "message": EVIL, "reason": EVIL},
    ]
    told(make(out), stream)
    # What rich itself writes: colours, the cursor up, to the start and on and off, lines erased.
    own = re.sub(r"\x1b\[(\?25[hl]|[0-9;]*m|[0-9]*[AK])|\r", "", out.getvalue())
    assert not re.search("[\x00-\x09\x0b-\x1d\x1f\x7f-\x9f\u202e]", own)
    assert make is JsonSeqSink or not re.search(r"^\s*::|##\[", own, re.MULTILINE)


def test_the_picture_is_as_designed() -> None:
    board = Board({"debian": 41.0, "pack": 9.0, "packages": 100.0})
    kinds = ("debian", "packages", "pack")
    stages = [{"type": f"org.osbuild-pika.{kind}", "id": kind} for kind in kinds]
    board.take({**STARTED, "pipelines": [{"name": "rootfs", "id": "pack", "stages": stages}]})
    at = {"pipeline": "rootfs", "time": 1000.0}
    cached = {"stage": "org.osbuild-pika.debian", "id": "debian"}
    running = {"stage": "org.osbuild-pika.packages", "id": "packages"}
    progress = {"done": 96, "total": 154, "message": "unpacking"}
    for record in (
        {"record": "stage.cached", **at, **cached},
        {"record": "stage.started", **at, **running},
        {"record": "stage.progress", **progress},
    ):
        board.take(record)
    assert [line for line, _ in picture(board, 1072.0, 80, 24)] == [
        "web  run r1  1m12s elapsed  ~37.0s left",
        "    PIPELINE  STAGE     STATE        TIME  DETAIL",
        " v  rootfs    debian    cached       0.0s  saved ~41.0s",
        " >  rootfs    packages  62%         1m12s  unpacking 96/154",
        " .  rootfs    pack      queued      ~9.0s",
        " =============>--------------------------  1/3 steps   cache 1 hit 0 miss",
        " rootfs/packages  unpacking",
    ]


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.lists(st.text(max_size=30), max_size=40),
    st.integers(0, 40),
)
def test_a_picture_fits_the_terminal(width: int, height: int, names: list[str], at: int) -> None:
    board = Board()
    board.take({**STARTED, "manifest": "日本" * 20})
    for name in names:
        board.take(stage("stage.started" if len(names) > at else "stage.cached", stage=name))
    rows = picture(board, 1e9, width, height)
    assert len(rows) <= max(height - 1, 1)
    assert all(cell_len(line) <= max(width - 1, 1) for line, _ in rows)


@pytest.mark.parametrize("running", [0, 1, 30, 49, 50])
def test_of_many_steps_those_at_work_are_seen(running: int) -> None:
    steps = [Step("p", "t", str(n), "done" if n < running else "queued") for n in range(50)]
    seen = visible(steps, 10)
    assert len(seen) == 10
    assert steps[min(running, 49)] in seen


@pytest.mark.parametrize("name", NAMES)
def test_the_terminal_ends_with_the_verdict(name: str, terminal: None) -> None:
    out = Screen()
    stream = records(name)
    told(TermSink(out), stream)
    last = out.getvalue().rstrip().rpartition("\n")[2]
    assert ("done in" in last) == stream[-1]["success"]
    assert ("FAILED" in last) != stream[-1]["success"]


def test_without_colours_there_are_none(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Screen()
    told(TermSink(out), [STARTED, stage("stage.started"), FAILED, LOST])
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", out.getvalue())


def test_an_ascii_terminal_gets_ascii(terminal: None) -> None:
    class Ascii(Screen):
        encoding = "ascii"

    for make in (TermSink, PlainSink, LogSink):
        out = Ascii()
        told(make(out), [STARTED, stage("stage.started", pipeline="Größe", options={}), FAILED])
        assert out.getvalue().isascii()


def test_the_mode_follows_the_terminal(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_sink("auto", Screen()), TermSink)
    assert isinstance(progress_sink("auto", io.StringIO()), PlainSink)
    assert isinstance(progress_sink("jsonseq", io.StringIO()), JsonSeqSink)
    assert type(progress_sink("quiet", Screen())) is Sink
    monkeypatch.setenv("TERM", "dumb")
    assert {type(progress_sink(mode, Screen())) for mode in MODES[:3]} == {PlainSink}


def test_upstreams_names_are_known() -> None:
    assert isinstance(upstream_sink("LogMonitor", io.StringIO()), LogSink)
    with pytest.raises(InputError, match="unknown monitor Nope; there are NullMonitor, "):
        upstream_sink("Nope", io.StringIO())


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=5),
    st.just(["a"]),
    st.just({"a": "b"}),
    st.just([{"name": "os", "id": "1", "stages": [{"type": "t", "id": "1"}]}]),
)
REAL = [record for name in NAMES for record in records(name)]
KNOWN = {name for record in REAL for name in record} | {"total", "unit", "path", "reason"}
ANY_RECORD = st.builds(
    lambda name, fields: {"record": name, **fields},
    st.sampled_from([*sorted(RECORDS), "other", None]),
    st.dictionaries(st.sampled_from(sorted(KNOWN)), VALUES),
)


@given(st.lists(st.one_of(ANY_RECORD, st.sampled_from(REAL)), max_size=12))
def test_any_records_in_any_order_are_taken(stream: list[dict[str, Any]]) -> None:
    collector = ResultCollector()
    sinks = [make(io.StringIO()) for make in (PlainSink, LogSink, JsonSeqSink, TermSink)]
    told(Tee([*sinks, collector]), stream)
    assert json.loads(json.dumps(collector.result()))["type"] in ("result", "error")


@given(st.text(alphabet="ab\n", max_size=30), st.data())
def test_lines_are_whole_however_they_come(text: str, data: st.DataObject) -> None:
    lines, found, rest = Lines(), [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += lines.take(rest[:size])
        rest = rest[size:]
    assert [*found, lines.rest()] == text.split("\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0s"), (0.44, "0.4s"), (59.96, "1m00s"), (72, "1m12s"), (3599.6, "1h00m")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert spell(seconds) == words


def test_live_progress_is_what_stages_said(tmp_path: Path) -> None:
    details: dict[str, Any] = {"event": "stage.progress", "done": 3, "total": 8, "unit": "files"}
    live = LiveProgress(str(tmp_path))
    assert live.poll() == []
    with Journal(tmp_path) as journal:
        journal.append("provisioning", "forged", details)
        journal.append("provisioning", "copying", {**details, "source": "stage", "stage_id": "1"})
        journal.append("provisioning", "note", {"event": "stage.note", "source": "stage"})
    (record,) = live.poll()
    assert (record["message"], record["done"], record["id"]) == ("copying", 3, "1")
    assert live.poll() == []
    live.close()


def test_progress_that_comes_late_is_nobody_elses() -> None:
    board = Board()
    at = {"pipeline": "os", "stage": "t", "success": True}
    progress = {"record": "stage.progress", "id": "1", "done": 3}
    for record in (
        {"record": "stage.started", **at, "id": "1"},
        {"record": "stage.finished", **at, "id": "1"},
        {"record": "stage.started", **at, "id": "2"},
        progress,
    ):
        board.take(record)
    assert [step.done for step in board.steps] == [0, 0]
    board.take({**progress, "id": "unknown"})
    assert [step.done for step in board.steps] == [0, 3]


def test_live_progress_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    assert LiveProgress(str(tmp_path)).poll() == []


def test_rich_is_only_imported_for_a_terminal() -> None:
    code = """if 1:
        import io, sys
        from osbuild_pika.monitor.choose import progress_sink
        progress_sink("auto", io.StringIO())
        assert "rich" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
