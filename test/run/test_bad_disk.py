"""A disk that is really full or read-only: nothing half there, and the end of a run finds place.

See disks.py for how they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import NEEDS_MOUNT, fill, free, mounted, remount
from journals import complaint, document, events, helper, line, messages, seqs, snapshot

from osbuild_pika.lifecycle import Journal, LifecycleError

Work = Callable[[Journal], Any]
BIG = "x" * 16_000  # more than the rest of the page at the end of any of the files
OLD = ["old"]


pytestmark = NEEDS_MOUNT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB with a run on it, and a reserve for its end."""
    with mounted('mount -t tmpfs -o size=512k none "$1"', tmp_path / "disk") as disk:
        with Journal(disk / "run") as journal:
            journal.reserve()
            journal.append("ready", "old")
            journal.write_status("ready", "old")
        yield disk


def refused(work: Work, journal: Journal) -> None:
    with pytest.raises(LifecycleError) as caught:
        work(journal)
    assert caught.value.name == "NoSpace"
    assert str(caught.value).isprintable()


RUNNING: list[Work] = [
    lambda journal: journal.append("ready", BIG),
    lambda journal: journal.append_many([("ready", "m", None), ("ready", BIG, None)]),
    lambda journal: journal.write_status("starting", BIG),
]
ENDING: list[Work] = [
    lambda journal: journal.append("failed", BIG),
    lambda journal: journal.write_result("failed", 1, BIG),
    lambda journal: journal.finish("failed", 1, BIG),
]


@pytest.mark.parametrize("work", RUNNING)
def test_a_full_disk_refuses_what_is_not_the_end_and_keeps_the_reserve(
    work: Work, small_disk: Path
) -> None:
    run = small_disk / "run"
    journal = Journal(run)
    fill(small_disk)
    before = snapshot(run)
    for _ in range(2):
        refused(work, journal)
        assert snapshot(run) == before
    free(small_disk)
    work(journal)
    assert seqs(run) == list(range(1, len(events(run)) + 1))
    assert journal.append("ready", "next") == len(events(run))


@pytest.mark.parametrize("work", [*RUNNING, *ENDING])
def test_a_full_disk_without_a_reserve_changes_nothing(work: Work, small_disk: Path) -> None:
    run = small_disk / "run"
    (run / ".reserve").unlink()
    journal = Journal(run)
    fill(small_disk)
    before = snapshot(run)
    refused(work, journal)
    assert snapshot(run) == before
    free(small_disk)
    work(journal)
    assert seqs(run) == list(range(1, len(events(run)) + 1))


@pytest.mark.parametrize("work", ENDING)
def test_the_end_of_a_run_finds_the_reserve(work: Work, small_disk: Path) -> None:
    run = small_disk / "run"
    journal = Journal(run)
    fill(small_disk)
    work(journal)
    assert not (run / ".reserve").exists()
    assert messages(run)[:1] == OLD
    assert not [path for path in run.iterdir() if path.name.endswith((".tmp", ".torn"))]


def test_a_run_that_wrote_nothing_yet_ends_on_a_full_disk(small_disk: Path) -> None:
    run = small_disk / "new"
    Journal(run).reserve()
    fill(small_disk)
    assert Journal(run).finish("failed", 1, BIG) == 1
    said = [events(run)[0], document(run, "result"), document(run, "status")]
    assert [record["message"] for record in said] == [BIG] * 3


def test_a_torn_tail_does_not_keep_the_end_from_a_full_disk(small_disk: Path) -> None:
    run = small_disk / "run"
    with (run / "events.jsonl").open("ab") as log:
        log.write(b"x" * 100_000)
    fill(small_disk)
    assert Journal(run).finish("failed", 1, BIG) == 2
    assert messages(run) == ["old", BIG]
    assert document(run, "result")["message"] == BIG


def test_recover_ends_a_run_on_a_full_disk(small_disk: Path) -> None:
    run = small_disk / "run"
    fill(small_disk)
    Journal(run).recover(BIG)
    assert document(run, "result")["message"] == BIG
    assert messages(run) == ["old", BIG]


def test_recover_keeps_bad_lines_that_it_cannot_set_aside(small_disk: Path) -> None:
    run = small_disk / "run"
    (run / "events.jsonl").write_bytes(b"b" * 50_000 + b"\n" + line(1, message="old"))
    fill(small_disk)
    before = snapshot(run)
    refused(lambda journal: journal.recover(), Journal(run))
    assert {**snapshot(run), "events.jsonl.torn": b""} == {**before, "events.jsonl.torn": b""}
    free(small_disk)
    assert Journal(run).recover()["set_aside"] == 1
    assert messages(run) == OLD


def test_a_reserve_that_finds_no_space_leaves_nothing(small_disk: Path) -> None:
    fill(small_disk)
    refused(Journal.reserve, Journal(small_disk / "run/other"))
    assert not list((small_disk / "run").rglob("other/*"))


END = ("--message", BIG)
CALLS = [
    ("event", "--events-path", "events.jsonl", "--kind", "ready", *END),
    ("status", "--status-path", "status.json", "--state", "starting", *END),
    ("result", "--result-path", "result.json", "--status", "failed", "--exit-code", "1", *END),
]


@pytest.mark.parametrize("arguments", CALLS)
def test_the_helper_says_in_one_line_that_a_disk_is_full(
    arguments: tuple[str, ...], small_disk: Path
) -> None:
    run = small_disk / "run"
    (run / ".reserve").unlink()
    fill(small_disk)
    before = snapshot(run)
    done = helper(*arguments, cwd=run)
    assert done.returncode == 1
    assert "NoSpace" in complaint(done)
    assert snapshot(run) == before
    free(small_disk)
    assert helper(*arguments, cwd=run).returncode == 0


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A run in a directory that is mounted read-only."""
    script = 'mount -t tmpfs none "$1"; mkdir "$1/run"; mount --bind "$1/run" "$1/run"'
    with mounted(script, tmp_path / "disk") as disk:
        with Journal(disk / "run") as journal:
            journal.finish("failed", 1, "old")
        remount("bind,ro", disk / "run")
        yield disk / "run"


@pytest.mark.parametrize("arguments", [*CALLS, ("recover", "--events-path", "events.jsonl")])
@pytest.mark.parametrize("below", [".", "new/deep"])
def test_the_helper_says_in_one_line_that_a_disk_is_read_only(
    below: str, arguments: tuple[str, ...], read_only: Path
) -> None:
    before = snapshot(read_only)
    name = arguments[2]
    done = helper(*arguments, arguments[1], f"{below}/{name}", cwd=read_only)
    assert done.returncode == 1
    assert complaint(done)
    assert snapshot(read_only) == before


@pytest.mark.parametrize("work", [*RUNNING, *ENDING, Journal.reserve])
def test_a_journal_survives_a_time_of_read_only(work: Work, small_disk: Path) -> None:
    run = small_disk / "run"
    before = snapshot(run)
    with Journal(run) as journal:
        remount("ro", small_disk)
        with pytest.raises(LifecycleError) as caught:
            work(journal)
        assert caught.value.name == "IOFailed"
        assert snapshot(run) == before
        remount("rw", small_disk)
        work(journal)
    assert seqs(run) == list(range(1, len(events(run)) + 1))
