"""Details: what is accepted can be written, read back equal, and is what a strict reader takes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import UNSYNCED

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import Journal, LifecycleError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
ODD = st.sampled_from([2**63, 2**64, -(2**63) - 1, 1j, int, {1}, "\ud800", math.nan, math.inf])
KEYS = st.text(max_size=3) | st.integers() | st.none()
WILD = st.recursive(
    JSON | ODD | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)
PIECES = r"""
    { } [ ] , : "a" "b" "\ud800" "\ud83d\ude00" "\u0000" 0 -0 1 -1 1.5 1e5 1e400 -1e400 1e-400
    NaN Infinity -Infinity true false null 9223372036854775808 18446744073709551615
    18446744073709551616 -9223372036854775809 01 +1 .5 1. 'a' // \ufeff {"a":1} {"a":2,"a":2}
"""
PIECE = st.sampled_from(PIECES.split())


# --- an opinion on what is JSON, formed without the writer's --------------------------------------


def is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_json, value.values())) and all(map(is_text, value))
    if isinstance(value, list | tuple):
        return all(map(is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    is_integer = isinstance(value, int) and -(2**63) <= value < 2**64
    return value is None or is_integer or is_text(value)


def once(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """An object; what is no JSON if a key stands in it twice."""
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {None: pairs}


def is_json_text(text: str) -> bool:
    try:
        return is_json(json.loads(text, object_pairs_hook=once))
    except ValueError:
        return False


def refusal(work: Callable[[], object]) -> str:
    """The name of the error with which a call is refused; "" if it is not."""
    try:
        work()
    except LifecycleError as error:
        return error.name
    return ""


# --- writing and reading back ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    directory = tmp_path_factory.mktemp("details")
    with Journal(directory, system=UNSYNCED) as journal:
        journal.append("ready", "m")
        journal.write_status("ready", "m")
        journal.write_result("failed", 1, "m")
        yield journal


def last_line(path: str) -> bytes:
    with open(path, "rb") as log:
        log.seek(max(0, os.path.getsize(path) - lifecycle.MAX_EVENT))
        return log.read().split(b"\n")[-2]


def records(journal: Journal) -> list[bytes]:
    """The last event, status.json and result.json."""
    documents = (journal.paths.status, journal.paths.result)
    return [last_line(journal.paths.events), *(Path(path).read_bytes() for path in documents)]


def written(journal: Journal, value: Any) -> list[str]:
    """Write a value into all three records. Returns what a strict reader finds in each, as JSON.

    The name of the error for each that was refused; nothing was changed then.
    """
    before = records(journal)
    names = [
        refusal(lambda: journal.append("ready", "m", value)),
        refusal(lambda: journal.write_status("ready", "m", value)),
        refusal(lambda: journal.write_result("failed", 1, "m", value)),
    ]
    after = records(journal)
    assert not any(name and old != new for name, old, new in zip(names, before, after, strict=True))
    kinds = ("event", "status", "result")
    found = [lifecycle.decode(*record).get("details") for record in zip(kinds, after, strict=True)]
    return [name or json.dumps(details) for name, details in zip(names, found, strict=True)]


@settings(max_examples=40, deadline=None)
@given(value=JSON)
def test_all_json_is_read_back_equal(journal: Journal, value: Any) -> None:
    assert written(journal, value) == [json.dumps(value)] * 3
    assert json.dumps(lifecycle.parse_details(json.dumps(value))) == json.dumps(value)


@settings(max_examples=100, deadline=None)
@given(value=WILD)
def test_a_value_is_read_back_equal_or_refused(journal: Journal, value: Any) -> None:
    expected = json.dumps(value) if is_json(value) else "InvalidArgument"
    assert written(journal, value) == [expected] * 3
    assert bool(refusal(lambda: lifecycle.check_details(value))) == (not is_json(value))


@settings(max_examples=150, deadline=None)
@given(text=st.lists(PIECE, max_size=9).map("".join) | st.text(max_size=12))
def test_a_text_is_parsed_or_refused(text: str) -> None:
    expected = "" if is_json_text(text) else "InvalidArgument"
    assert refusal(lambda: lifecycle.parse_details(text)) == expected


# --- by hand --------------------------------------------------------------------------------------


def deep(levels: int) -> Any:
    """A value in this many lists and objects, by turns."""
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


REFUSED = {
    "empty": "",
    "blank": " ",
    "not JSON": "{",
    "two values": "1 2",
    "a byte order mark": "\ufeff1",
    "NaN": "NaN",
    "minus infinity": '{"a": [-Infinity]}',
    "1e400": "1e400",
    "-1e400": "[-1e400]",
    "2^64": "18446744073709551616",
    "-2^63 - 1": "-9223372036854775809",
    "2^64 deep inside": '{"a": [{"b": 18446744073709551616}]}',
    "100 digits": "9" * 100,
    "302 digits": "1" + "0" * 301,
    "305 digits": "1" + "0" * 304,
    "400 digits": "9" * 400,
    "10,000 digits": "-" + "9" * 10_000,
    "an escaped lone surrogate": r'"\ud800"',
    "a lone surrogate as key": r'{"\udfff": 1}',
    "surrogates in the wrong order": r'"\ude00\ud83d"',
    "a raw lone surrogate": '"\ud800"',
    "a raw newline in a string": '"a\nb"',
    "depth 65": json.dumps(deep(65)),
    "depth 127": "[" * 127 + "]" * 127,
    "depth 10,000": "[" * 10_000 + "]" * 10_000,
    "depth 100,000": '{"a":' * 100_000,
    "a key given twice": '{"a": 1, "a": 1}',
    "a key given twice deep inside": '[{"b": {"a": 1, "c": 2, "a": null}}]',
    "a key given twice in two spellings": r'{"a": 1, "\u0061": 2}',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_strict_reader_rejects_is_refused(text: str) -> None:
    with pytest.raises(LifecycleError) as caught:
        lifecycle.parse_details(text)
    assert caught.value.name == "InvalidArgument"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value",
    [deep(64), 2**64 - 1, -(2**63), 2**63, 1e308, 5e-324, -0.0, "\0", "\U0001f600", {"": {}}],
)
def test_the_widest_details_are_read_back_equal(journal: Journal, value: Any) -> None:
    assert written(journal, value) == [json.dumps(value)] * 3
    assert repr(lifecycle.parse_details(json.dumps(value))) == repr(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert refusal(lambda: lifecycle.check_details(value)) == "InvalidArgument"


@pytest.mark.parametrize(("size", "name"), [(65_536, ""), (65_537, "TooLarge")])
def test_details_are_measured_as_they_are_written(size: int, name: str, journal: Journal) -> None:
    text = "é" * ((size - 2) // 6) + "x" * ((size - 2) % 6)
    assert len(json.dumps(text)) == size
    assert refusal(lambda: journal.append("ready", "m", text)) == name
    assert refusal(lambda: journal.write_status("ready", "m", text)) == name
