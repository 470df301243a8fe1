"""The sinks for upstream's consumers say what upstream said: its records of real builds."""

import io
import json
import re
from typing import Any

import pytest
from recorded import BUILDS, NAMES, entries, read, records, said

from osbuild_pika.monitor import Sink
from osbuild_pika.monitor.jsonseq import MAX_OUTPUT, JsonSeqSink
from osbuild_pika.monitor.log import LogSink, closing
from osbuild_pika.monitor.result import ResultCollector

WITH_LOG = [name for name in NAMES if (BUILDS / name / "log.txt").exists()]
DURATION = re.compile(r"Duration: [0-9.]+s")


def told(sink: Sink, stream: list[dict[str, Any]]) -> None:
    for record in stream:
        sink.take(record)
    sink.close()


def streamed(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = io.StringIO()
    told(JsonSeqSink(out), stream)
    return entries(out.getvalue())


def collected(stream: list[dict[str, Any]]) -> dict[str, Any]:
    collector = ResultCollector()
    told(collector, stream)
    return collector.result()


def logged(stream: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    told(LogSink(out), stream)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_the_stream_is_upstreams(name: str) -> None:
    # Upstream also ends each stage's output with an entry that has no message.
    wanted = [entry for entry in said(name) if "message" in entry]
    found = streamed(records(name))
    for entry in (*wanted, *found):
        del entry["timestamp"]
    assert found == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_upstreams(name: str) -> None:
    wanted = read(name, "result.json")
    stream = records(name)
    # Upstream cuts a long output in its result, too, if its stream is asked for.
    whole = {each["id"]: each["output"] for each in stream if each["record"] == "stage.finished"}
    for entry in [entry for log in wanted["log"].values() for entry in log]:
        if "bytes hidden" in entry["output"]:
            entry["output"] = whole[entry["id"]]
    assert collected(stream) == wanted


@pytest.mark.parametrize("name", WITH_LOG)
def test_the_log_is_upstreams(name: str) -> None:
    wanted = (BUILDS / name / "log.txt").read_text()
    manifest = read(name, "manifest.json")
    if read(name, "result.json")["success"]:
        start = wanted.index("\nPipelines\n")
        ids = dict(re.findall(r"^  (\S+): +\t(\S+)$", wanted[start:], re.MULTILINE))
        names = [(pipeline["name"], ids[pipeline["name"]]) for pipeline in manifest["pipelines"]]
        assert closing(names) == wanted[start:]
        wanted = wanted[:start]
    else:
        wanted = wanted.removesuffix("Failed\n")
    found = logged(records(name))
    wanted = wanted.replace("\0", "\ufffd")  # ours writes no control characters
    assert DURATION.sub("Duration", found) == DURATION.sub("Duration", wanted)


FAILED = {
    "record": "stage.finished",
    "pipeline": "image",
    "stage": "org.osbuild.error",
    "id": "1",
    "success": False,
    "output": "",
    "error": None,
    "reason": "exited with status 3",
}


def test_a_failure_that_upstream_does_not_explain_has_a_reason() -> None:
    error = collected([FAILED])["error"]["details"]["stage"]["error"]
    assert error["data"]["value"] == "exited with status 3"
    assert streamed([FAILED])[0]["result"]["error"]["type"] == error["type"]


def test_a_build_that_was_interrupted_has_a_result() -> None:
    end = {"record": "build.finished", "success": False, "message": "m", "reason": "interrupted"}
    error = {
        "type": "org.osbuild-pika.error",
        "details": {"message": "m", "reason": "interrupted"},
    }
    assert collected([end])["error"] == error


def test_a_long_list_of_sources_is_left_out_of_the_stream() -> None:
    item = {"checksum": f"sha256:{'0' * 64}", "is_cached": False, "error": None}
    record = {
        "record": "source.finished",
        "source": "org.osbuild.curl",
        "success": True,
        "results": [item] * 400,
    }
    result = streamed([record])[0]["result"]
    assert result["results"] == []
    assert len(json.dumps(result)) < MAX_OUTPUT
    assert len(collected([record])["sources"]["org.osbuild.curl"]) == 400


def test_parallel_pipelines_each_have_their_progress() -> None:
    stages = [{"type": "t", "id": "s", "is_cached": False}] * 2
    stream: list[dict[str, Any]] = [
        {
            "record": "build.started",
            "pipelines": [{"name": n, "id": n, "stages": stages} for n in "ab"],
        },
        {"record": "pipeline.started", "pipeline": "a", "id": "a"},
        {"record": "pipeline.started", "pipeline": "b", "id": "b"},
        {
            "record": "stage.finished",
            "pipeline": "a",
            "stage": "t",
            "id": "s",
            "success": True,
        },
    ]
    last = streamed(stream)[-1]
    assert last["whole"]["pipeline"]["name"] == "a"
    assert last["progress"]["progress"] == {"name": "pipeline: a", "total": 2, "done": 1}
