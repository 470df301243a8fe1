"""Who still lives tells success from failure, interruption and kill."""

import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle_service.verdict import End, Seen, Word, code_of, judge

ALIVE = Seen(is_final=True, has_result=False, sandbox="alive", status=None)
SILENT = ALIVE._replace(sandbox="unknown")
ENDED = ALIVE._replace(sandbox="ended")
SEEN = st.builds(
    Seen,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["alive", "ended", "unknown"]),
    st.none() | st.integers(-64, 255),
)


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, 99), (0, 99), (1, 1), (255, 255), (-signal.SIGKILL, 137), (-signal.SIGTERM, 143)],
)
def test_an_exit_status_is_told_as_a_shell_does(status: int | None, code: int) -> None:
    assert code_of(status, 99) == code


@pytest.mark.parametrize("has_owner", [True, False])
@pytest.mark.parametrize(
    ("status", "code", "how"),
    [
        (None, 137, "ended"),
        (0, 137, "exited with status 0"),
        (2, 2, "exited with status 2"),
        (-signal.SIGKILL, 137, "SIGKILL"),
        (-signal.SIGTERM, 143, "SIGTERM"),
    ],
)
def test_an_engine_that_ended_is_lost(
    status: int | None, code: int, how: str, has_owner: bool
) -> None:
    words, end = judge(has_owner, True, status, [ALIVE, ENDED])
    assert words == []
    assert end is not None
    assert end[:2] == (code, "engine.lost")
    assert how in end.message


def test_an_owner_that_leaves_alive_without_a_result_is_lost() -> None:
    words, end = judge(True, False, None, [ALIVE])
    assert (words, end and end[:2]) == ([], (137, "engine.lost"))


@pytest.mark.parametrize(
    ("seen", "name", "word_code", "code"),
    [
        (ALIVE, "interrupted", 130, 130),
        (SILENT, "stage.ended", None, 1),
        (ENDED, "stage.ended", None, 1),
        (ENDED._replace(status=0), "stage.ended", 0, 1),
        (ENDED._replace(status=7), "stage.ended", 7, 7),
        (ENDED._replace(status=-9), "stage.ended", 137, 137),
    ],
)
def test_the_last_words_of_a_stage_without_a_result(
    seen: Seen, name: str, word_code: int | None, code: int
) -> None:
    (word,), end = judge(False, False, None, [seen])
    assert (word.index, word.name, word.exit_code) == (0, name, word_code)
    assert end == End(code, name, word.message)
    assert judge(False, False, None, [seen._replace(is_final=False)]) == ([word], None)


def test_a_stage_with_a_result_has_said_its_last_word() -> None:
    said = ENDED._replace(has_result=True, is_final=False)
    words, end = judge(False, False, None, [said, ENDED._replace(is_final=False), said])
    assert [word.index for word in words] == [1]
    assert end is None


@given(st.booleans(), st.booleans(), st.none() | st.integers(-64, 255), st.lists(SEEN, max_size=5))
def test_every_end_is_a_failure_that_can_be_written(
    has_owner: bool, engine_ended: bool, status: int | None, stages: list[Seen]
) -> None:
    words, end = judge(has_owner, engine_ended, status, stages)
    if end is not None:
        lifecycle.check_result("failed", end.exit_code)
    for told in itertools.chain(words, [end] if end else []):
        assert isinstance(told, Word | End)
        assert told.message.isprintable()
    assert (end is None) <= (not has_owner and not engine_ended)
    assert [word.index for word in words] == sorted({word.index for word in words})
