"""Journal: the end of a run whose details are beyond the limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash.original import Original
from journals import document

from osbuild_pika.lifecycle import Journal, LifecycleError

LONG = {"log": "y" * 70_000}


def test_a_result_that_is_too_long_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LifecycleError) as caught:
        Journal(tmp_path).finish("failed", 1, "m", LONG)
    assert caught.value.name == "TooLarge"
    assert not list(tmp_path.iterdir())


@pytest.fixture(name="theirs")
def fixture_theirs(tmp_path: Path) -> Path:
    """A run with an older helper's event that looks like a verdict, which no result.json takes."""
    Original(tmp_path).append("failed", "theirs", {"exit_code": 1, **LONG})
    return tmp_path


def test_an_event_that_is_too_long_is_no_verdict(theirs: Path) -> None:
    assert Journal(theirs).ending() == ("failed", None)
    assert Journal(theirs).finish("failed", 137, "ours") == 2
    assert document(theirs, "result")["message"] == "ours"


def test_a_run_that_ends_with_such_an_event_is_ended(theirs: Path) -> None:
    done = Journal(theirs).recover(lost="the engine is gone")
    assert done["completed"] == ["events.jsonl", "result.json", "status.json"]
    assert document(theirs, "result")["exit_code"] == 137
