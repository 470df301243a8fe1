"""Upstream's LogMonitor: a build as text, with the stages' output in between."""

import json
import time
from collections.abc import Iterable
from typing import TextIO

from osbuild_pika.monitor import Record, Sink, is_cached, number, objects, service_line, text
from osbuild_pika.monitor.lines import Lines, fit, shown


class LogSink(Sink):
    """Writes upstream's text, but no control characters, and whole lines of a stage's output.

    A stage's last line may lack its end; it is written when the stage has finished.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._manifest = ""
        self._needed: dict[str, Record] = {}
        self._output = Lines()

    def on_build_started(self, record: Record) -> None:
        self._manifest = text(record, "manifest")
        self._needed = {text(each, "name"): each for each in objects(record, "pipelines")}
        self._write(f"starting {shown(self._manifest)}")

    def on_source_started(self, record: Record) -> None:
        name = f"source {text(record, 'source')}"
        self._write(f"Pipeline {shown(name)}: {shown(text(record, 'id'))}\nBuild\n  root: <host>\n")

    def on_pipeline_started(self, record: Record) -> None:
        name = text(record, "pipeline")
        pipeline = self._needed.get(name, {})
        if is_cached(pipeline):
            return
        lines = [
            f"Pipeline {shown(name)}: {shown(text(record, 'id'))}",
            "Build",
            f"  root: {shown(text(pipeline, 'build')) or '<host>'}",
        ]
        if runner := shown(text(pipeline, "runner")):
            lines.append(f"  runner: {runner} ({runner})")
        if pipeline.get("source_epoch") is not None:
            epoch = int(number(pipeline, "source_epoch"))
            lines.append(f"  source-epoch: {_date(epoch)} [{epoch}]")
        self._write("\n".join(lines) + "\n")

    def on_stage_started(self, record: Record) -> None:
        options = record.get("options")
        dumped = json.dumps(options if isinstance(options, dict) else {}, indent=2)
        dumped = "\n".join(map(shown, dumped.split("\n")))
        self._write(f"{shown(text(record, 'stage'))}: {shown(text(record, 'id'))} {dumped}\n")

    def on_stage_output(self, record: Record) -> None:
        lines = self._output.take(text(record, "text"))
        self._write("".join(f"{shown(line)}\n" for line in lines))

    def on_service_output(self, record: Record) -> None:
        self._write(f"{shown(service_line(record))}\n")

    def on_stage_finished(self, record: Record) -> None:
        self.close()
        self._write(f"\n⏱  Duration: {number(record, 'duration_s'):.2f}s\n")

    def on_build_finished(self, record: Record) -> None:
        self.close()
        how = "finished successfully" if record.get("success") else "failed"
        self._write(f"manifest {shown(self._manifest)} {how}\n")

    def close(self) -> None:
        self._write(shown(self._output.rest()))

    def _write(self, words: str) -> None:
        if words:
            self._out.write(fit(words, self._out))
            self._out.flush()


def _date(epoch: int) -> str:
    try:
        return time.strftime("%c", time.localtime(epoch))
    except (OverflowError, OSError, ValueError):
        return "?"


def closing(pipelines: Iterable[tuple[str, str | None]], checkpoints: Iterable[str] = ()) -> str:
    """What upstream's command line prints after a build that succeeded.

    pipelines: name and id of all in the manifest. checkpoints: names of those that were kept.
    """
    of = {name: key or "" for name, key in pipelines}
    lines = [f"  {shown(name) + ':':<10}\t{key}" for name, key in of.items()]
    kept = [f"  {shown(name) + ':':<10}\t{of.get(name, '')}" for name in checkpoints]
    return "\n".join(["", "Pipelines", *lines, "", "Checkpoints", *kept]) + "\n"
