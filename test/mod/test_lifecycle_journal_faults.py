"""Journal on a system whose calls fail or are interrupted: nothing half there, nothing leaked."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import (
    UNSYNCED,
    FailsAt,
    System,
    Watched,
    events,
    line,
    messages,
    raises,
    seqs,
    snapshot,
)

from osbuild_pika.lifecycle import Journal, LifecycleError, Paths

Work = Callable[[Journal], Any]
SEQ = "events.jsonl.seq"


def failing(work: Work, journal: Journal) -> LifecycleError:
    with pytest.raises(LifecycleError) as caught:
        work(journal)
    assert "\n" not in str(caught.value)
    return caught.value


def append(journal: Journal) -> int:
    return journal.append("ready", "m")


def append_two(journal: Journal) -> int:
    return journal.append_many([("ready", "m", None)] * 2)[1]


def write_status(journal: Journal) -> None:
    journal.write_status("failed", "new")


def write_result(journal: Journal) -> None:
    journal.write_result("failed", 1, "new")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- one failure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1])
def test_a_failed_sync_is_final(at: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path, system=FailsAt("fdatasync", OSError(errno.EIO, "broken"), at))
    assert failing(append, journal).name == "IOFailed"
    before = snapshot(tmp_path)
    for work in (append, append_two, lambda j: j.finish("failed", 1, "m"), lambda j: j.recover()):
        refusal = failing(work, journal)
        assert (refusal.name, "new writer" in str(refusal)) == ("IOFailed", True)
    assert snapshot(tmp_path) == before
    assert append(Journal(tmp_path)) == at + 1
    assert seqs(tmp_path) == list(range(1, at + 2))


@pytest.mark.parametrize("work", [append, append_two])
@pytest.mark.parametrize("kept", [0, 1, 100, 150, 299])
def test_a_short_write_is_cut_back(kept: int, work: Work, tmp_path: Path) -> None:
    append(Journal(tmp_path))
    before = snapshot(tmp_path)
    system = System(write=lambda fd, data: os.write(fd, data[:kept]))
    journal = Journal(tmp_path, system=system)
    for _ in range(2):
        assert failing(lambda j: j.append_many([("ready", "x" * 300, None)] * 2), journal).name == (
            "NoSpace"
        )
        assert snapshot(tmp_path) == before
    del system.write
    assert work(journal) == len(events(tmp_path))
    assert seqs(tmp_path) == list(range(1, len(events(tmp_path)) + 1))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (errno.ENOSPC, "NoSpace"),
        (errno.EDQUOT, "NoSpace"),
        (errno.EFBIG, "NoSpace"),
        (errno.EIO, "IOFailed"),
        (errno.EROFS, "IOFailed"),
        (errno.ESTALE, "IOFailed"),
    ],
)
@pytest.mark.parametrize("function", ["write", "pwrite", "open", "fstat", "lstat", "replace"])
def test_a_refused_call_changes_nothing(
    function: str, code: int, name: str, tmp_path: Path
) -> None:
    append(Journal(tmp_path))
    Journal(tmp_path).write_status("ready", "m")
    before = snapshot(tmp_path)
    work: Work = append if function != "replace" else lambda j: j.write_status("failed", "n")
    refusal = failing(work, Journal(tmp_path, system=System(**{function: raises(code)})))
    assert refusal.name == name
    assert str(tmp_path) in str(refusal)
    assert snapshot(tmp_path) == before
    assert append(Journal(tmp_path)) == 2


def test_a_torn_event_that_cannot_be_cut_ends_the_journal(tmp_path: Path) -> None:
    append(Journal(tmp_path))
    system = System(write=lambda fd, data: os.write(fd, data[:9]), ftruncate=raises(errno.EIO))
    journal = Journal(tmp_path, system=system)
    assert [failing(append, journal).name for _ in range(2)] == ["IOFailed", "IOFailed"]
    assert append(Journal(tmp_path)) == 2
    assert seqs(tmp_path) == [1, 2]


@pytest.mark.parametrize("work", [write_status, write_result])
@pytest.mark.parametrize("function", ["write", "fsync", "replace", "ftruncate", "fchmod"])
def test_a_document_is_never_half_there(function: str, work: Work, tmp_path: Path) -> None:
    Journal(tmp_path).write_status("ready", "old")
    Journal(tmp_path).write_result("failed", 2, "old")
    before, is_open = snapshot(tmp_path), open_files()
    system = FailsAt(function, OSError(errno.EIO, "broken"))
    assert failing(work, Journal(tmp_path, system=system)).name == "IOFailed"
    assert snapshot(tmp_path) == before
    assert open_files() == is_open
    work(Journal(tmp_path))
    assert sorted(snapshot(tmp_path)) == sorted(before)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("work", [append, lambda j: j.write_status("ready", "m"), Journal.reserve])
def test_a_path_that_cannot_be_is_a_lifecycle_error(text: str, work: Work, tmp_path: Path) -> None:
    with pytest.raises(LifecycleError) as caught:
        work(Journal(tmp_path / text))
    assert str(caught.value).isprintable()
    assert not snapshot(tmp_path)


@pytest.mark.parametrize("spelling", ["{}/events.jsonl", "{}/./events.jsonl"])
def test_a_log_cannot_be_its_own_sequence_file(spelling: str, tmp_path: Path) -> None:
    append(Journal(tmp_path))
    (tmp_path / SEQ).unlink()
    before = snapshot(tmp_path)
    with pytest.raises(LifecycleError) as caught:
        append(Journal(Paths(tmp_path, seq=spelling.format(tmp_path))))
    assert caught.value.name == "InvalidArgument"
    assert snapshot(tmp_path) == before


# --- a failure at any place -----------------------------------------------------------------------


def finish(journal: Journal) -> object:
    return journal.finish("failed", 1, "over")


def append_behind_torn(journal: Journal) -> object:
    with open(journal.paths.events, "ab") as log:
        log.write(b"torn")
    return append(journal)


def append_after_removal(journal: Journal) -> object:
    os.unlink(journal.paths.seq)
    return append(journal)


def append_after_rotation(journal: Journal) -> object:
    os.rename(journal.paths.events, f"{journal.paths.events}.1")
    return append(journal)


WORKS = [
    append,
    finish,
    append_behind_torn,
    append_after_removal,
    append_after_rotation,
    lambda journal: journal.recover("lost"),
    write_status,
    Journal.reserve,
]
BROKEN = OSError(errno.EIO, "broken")
FAULTS = [(KeyboardInterrupt(), True), (BROKEN, False), (BROKEN, True)]  # True: done nevertheless


def after_a_fault(work: Work, directory: Path, system: FailsAt) -> Journal:
    """An open journal that did a work in which the system failed, if it came so far."""
    at, system.left = system.left, -1
    journal = Journal(directory, system=system, lock_timeout_s=0.1)
    append_two(journal)
    system.left = at
    with contextlib.suppress(KeyboardInterrupt, LifecycleError):
        work(journal)
    return journal


def go_on(journal: Journal, directory: Path) -> None:
    """A new writer, and the old one if it is willing, go on with the next seqs."""
    new = Journal(directory, system=UNSYNCED, lock_timeout_s=0.1)
    given = [new.append("stopped", "new")]
    with contextlib.suppress(LifecycleError):
        given.append(journal.append("stopped", "old"))
    given.append(new.append("stopped", "new again"))
    assert given == list(range(given[0], given[0] + len(given)))
    found = seqs(directory)
    assert found == list(range(found[0], given[-1] + 1)), "a gap, or a seq twice"
    assert given[0] > 2


@pytest.mark.parametrize(("fault", "is_done"), FAULTS)
@pytest.mark.parametrize("work", WORKS)
def test_the_next_append_is_right_after_a_fault_anywhere(
    work: Work, fault: BaseException, is_done: bool, tmp_path: Path
) -> None:
    system = FailsAt("any", fault, is_done=is_done)
    for at in range(200):
        system.left = at
        journal = after_a_fault(work, tmp_path / str(at), system)
        is_over, system.left = system.left >= 0, -1
        go_on(journal, tmp_path / str(at))
        journal.close()
        if is_over:
            break
    assert is_over
    assert at > 5


# --- nothing leaks --------------------------------------------------------------------------------


def test_failing_calls_leak_no_file(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + line(1))
    (tmp_path / "status.json").mkdir()
    works: list[tuple[Work, dict[str, Any]]] = [
        (append, {}),
        (lambda journal: journal.append("odd", "m"), {}),
        (write_status, {}),
        (write_result, {"system": System(write=lambda *_: 0)}),
        (write_result, {"system": System(replace=raises(errno.EIO))}),
        (Journal.reserve, {"system": System(posix_fallocate=raises(errno.ENOSPC))}),
        (append, {"system": System(open=raises(errno.EMFILE))}),
        (append, {"system": System(fstat=raises(errno.EIO))}),
        (append, {"system": System(pread=raises(errno.EIO))}),
        (lambda journal: journal.recover(), {"system": System(pread=raises(errno.EIO))}),
    ]
    before = open_files()
    for _ in range(1000 // len(works)):  # 1000 calls in all
        for work, options in works:
            with Journal(tmp_path, **options) as journal:
                failing(work, journal)
    assert open_files() == before


def test_a_journal_that_fails_again_and_again_holds_no_more_files(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"bad\n" + line(1))
    journal = Journal(tmp_path)
    failing(append, journal)
    before = open_files()
    for _ in range(200):
        failing(append, journal)
        failing(lambda journal: journal.append("odd", "m"), journal)
    assert open_files() == before


def test_a_closed_journal_holds_no_file_and_may_go_on(tmp_path: Path) -> None:
    before = open_files()
    with Journal(tmp_path) as journal:
        append(journal)
        finish(journal)
    assert open_files() == before
    journal.close()
    assert append(journal) == 3
    journal.close()
    assert messages(tmp_path) == ["m", "over", "m"]


def test_files_are_not_given_to_children(tmp_path: Path) -> None:
    given: list[int] = []
    finish(Journal(tmp_path, system=Watched(["open"], lambda _, call: given.append(call[1]))))
    assert {flags & os.O_CLOEXEC for flags in given} == {os.O_CLOEXEC}
