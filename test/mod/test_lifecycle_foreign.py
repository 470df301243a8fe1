"""What strangers put into a log costs the writer neither its time nor its memory."""

import json
import os
import time
from pathlib import Path

import pytest

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError


def test_a_key_given_twice_among_many_is_found_in_time() -> None:
    keys = ", ".join(f'"k{number}": 0' for number in range(50_000))
    started = time.process_time()
    with pytest.raises(LifecycleError, match="twice"):
        lifecycle.parse_details(f'{{{keys}, "k0": 1}}')
    assert time.process_time() - started < 5  # it took minutes


@pytest.mark.parametrize("work", [lambda j: j.append("ready", "m"), Journal.recover])
def test_a_log_with_a_huge_hole_is_refused_unread(work: object, tmp_path: Path) -> None:
    Journal(tmp_path).append("ready", "m")
    log = tmp_path / "events.jsonl"
    os.truncate(log, 3 * 1024**3)
    with pytest.raises(LifecycleError) as caught:
        work(Journal(tmp_path))  # type: ignore[operator]
    assert caught.value.name == "IOFailed"
    assert str(log) in str(caught.value)


def test_the_log_is_whole_again_once_the_hole_is_gone(tmp_path: Path) -> None:
    Journal(tmp_path).append("ready", "m")
    log = tmp_path / "events.jsonl"
    size = log.stat().st_size
    os.truncate(log, 3 * 1024**3)
    os.truncate(log, size)
    assert Journal(tmp_path).append("ready", "m") == 2
    assert [json.loads(line)["seq"] for line in log.read_text().split("\n")[:-1]] == [1, 2]
