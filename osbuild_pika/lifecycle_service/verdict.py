"""What is written when the manager has closed its end. Pure.

Upstream never says `close`, and an end of file looks the same whether a build went well, failed,
was interrupted or was killed. What tells them apart is who still lives.
"""

from __future__ import annotations

from collections import namedtuple

from osbuild_pika.errors import describe_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What is known of one stage whose device is open. sandbox: "alive", "ended", or "unknown" if it
# never connected. status: in subprocess's form, None if it cannot be known.
Seen = namedtuple("Seen", "is_final has_result sandbox status")
# An event of that stage; index: which one.
Word = namedtuple("Word", "index name message exit_code")
# The run's end.
End = namedtuple("End", "exit_code event message")

KILLED = 137  # what a shell says of a process that was ended by SIGKILL
INTERRUPTED = 130


def code_of(status: int | None, unknown: int) -> int:
    """An exit status of subprocess's form as a shell's; for a failure, so never 0."""
    if not status:
        return unknown
    return 128 - status if status < 0 else status


def judge(
    has_owner: bool, engine_ended: bool, engine_status: int | None, stages: Sequence[Seen]
) -> tuple[list[Word], End | None]:
    """The stages' last words and the end of a run that has no verdict. None: it goes on.

    has_owner: an engine of ours drives the run, and closed without saying how it ended.
    engine_status: in subprocess's form, None if it is not known.
    """
    if engine_ended:
        how = "ended" if engine_status is None else describe_status(engine_status)
        code = code_of(engine_status, KILLED)
        return [], End(code, "engine.lost", f"the engine {how} before the end of the build")
    if has_owner:
        return [], End(KILLED, "engine.lost", "the engine left without saying how the build ended")
    words: list[Word] = []
    end = None
    for index, seen in enumerate(stages):
        if seen.has_result:
            continue
        words.append(_last_word(index, seen))
        if seen.is_final:
            _, name, message, code = words[-1]
            end = End(code or 1, name, message)
    return words, end


def _last_word(index: int, seen: Seen) -> Word:
    if seen.sandbox == "alive":
        return Word(index, "interrupted", "the stage was interrupted", INTERRUPTED)
    how = "ended" if seen.status is None else describe_status(seen.status)
    code = None if seen.status is None else code_of(seen.status, 0)
    return Word(index, "stage.ended", f"the stage {how} without a result", code)
