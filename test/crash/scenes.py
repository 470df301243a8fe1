"""Calls of the helper's command line, and what they find: whole files, or what the dead left."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crash import Event, Finish, Result, Status, Work, is_original
from crash.original import Original
from osbuild_pika.lifecycle import Journal

ROOT = Path(__file__).parents[2]
# As a script the helper would be compiled each time, which is most of its run time.
HELPER_CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from osbuild_pika.lifecycle import main
sys.exit(main())
"""
ORIGINAL_CODE = """
import sys
sys.path[:0] = sys.argv[1:3]
from crash.original import Original
Original(sys.argv[3]).append("ready", sys.argv[4])
"""
PYTHON = (sys.executable, "-I", "-S", "-c")
HELPER = (*PYTHON, HELPER_CODE, str(ROOT))
ORIGINAL = (*PYTHON, ORIGINAL_CODE, str(ROOT), str(ROOT / "test"))


@dataclass(frozen=True)
class Scene:
    """A call of the command line.

    build: makes, in a directory that is not there yet, what living writers wrote.
    work: what the call asks for; None: `recover`.
    damage: does to the directory what dead writers did, who had begun with `pending`.
    """

    name: str
    build: Callable[[Path], None]
    work: Event | Status | Result | None
    damage: Callable[[Path], None] = lambda _: None
    pending: Work | None = None

    def argv(self, directory: Path) -> list[str]:
        work = self.work
        log = ["--events-path", str(directory / "events.jsonl")]
        if work is None:
            return [*HELPER, "recover", *log]
        if is_original(work):
            return [*ORIGINAL, str(directory), work.message]
        if isinstance(work, Event):
            words = ["event", *log, "--kind", work.kind]
        elif isinstance(work, Status):
            words = ["status", "--status-path", str(directory / "status.json")]
            words += ["--state", work.state]
        else:
            words = ["result", "--result-path", str(directory / "result.json")]
            words += ["--status", work.status, "--exit-code", str(work.exit_code)]
        return [*HELPER, *words, "--message", work.message]


# --- what living writers wrote --------------------------------------------------------------------


def no_directory(directory: Path) -> None:
    pass


def nothing(directory: Path) -> None:
    directory.mkdir()


def events(directory: Path) -> None:
    with Journal(directory) as journal:
        for n in range(3):
            journal.append("booted", f"before {n}")


def originals_events(directory: Path) -> None:
    directory.mkdir()
    for n in range(3):
        Original(directory).append("booted", f"before {n}")


def documents(directory: Path) -> None:
    with Journal(directory) as journal:
        journal.write_status("booted", "before")
        journal.write_result("completed", 0, "before")


# --- what dead writers left -----------------------------------------------------------------------

TORN = b'{"schema_version": 1, "kind": "rea'
END = Finish(Result("failed", 7, "the end", {"n": 1}))


def torn_tail(directory: Path) -> None:
    log = directory / "events.jsonl"
    (directory / "events.jsonl.seq").write_bytes(b"+0000000000000000004\n")
    log.write_bytes(log.read_bytes() + TORN)


def temporary_files(directory: Path) -> None:
    (directory / ".status.json.tmp").write_bytes(TORN)
    (directory / ".result.json.tmp").write_bytes(TORN)


def ruins(directory: Path) -> None:
    """A finish was killed behind its event, and lines of the log are bad."""
    with Journal(directory) as journal:
        journal.finish(*dataclasses.astuple(END.result))
    (directory / "result.json").unlink()
    (directory / "status.json").write_bytes(TORN)
    log = directory / "events.jsonl"
    first, second, *rest = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join([first, bytes(8), TORN + second, *rest]) + TORN)


EVENT = Event("ready", "the event")
STATUS = Status("ready", "the status")
RESULT = Result("failed", 1, "the result")
SCENES = (
    Scene("first event", nothing, EVENT),
    Scene("first event, no directory", no_directory, EVENT),
    Scene("later event", events, EVENT),
    Scene("event behind the original's", originals_events, EVENT),
    Scene("event onto a torn tail", events, EVENT, torn_tail),
    Scene("first status", nothing, STATUS),
    Scene("later status", documents, STATUS, temporary_files),
    Scene("first result", nothing, RESULT),
    Scene("later result", documents, RESULT, temporary_files),
    Scene("recover from ruins", events, None, ruins, END),
    Scene("recover what is whole", events, None),
)

ORIGINAL_EVENT = Event("ready", "the event", writer="original")
BY_ORIGINAL = Scene("event of the original", originals_events, ORIGINAL_EVENT)
