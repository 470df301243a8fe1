"""JSON without the package json: the same values, the same text, the same refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika import lifecycle
from osbuild_pika.lifecycle import JsonReader, read_json, write_json, write_json_lines

ROOT = Path(__file__).parents[2]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
TEXTS = (
    *("", " ", "nul", "nulll", "1 2", "[1,]", '{"a":1,}', "{1: 2}", '{"a"}', "[", "01", "1e400"),
    *('"\n"', '"\\x"', '"\\ud800"', "\ufeff1", "\xa01", "NaN", "[-Infinity]", "'a'", "tru\ud800"),
    *(' \t\n\r{"a": [1, 2.5, -0, null, true]}\r\n', '{"a": 1, "a": 2}', "[" * 100_000, "9" * 5000),
)
ODD = (
    math.nan,
    -math.inf,
    {1},
    b"x",
    object(),
    {(1,): 2},
    {1: None, None: 2.5, False: 3},
    "\ud800",
)
# What is asked is how it is without CPython's module, whether it is there or not.
WITHOUT = f"""
import sys
sys.modules["_json"] = None
sys.path.insert(0, {str(ROOT)!r})
from osbuild_pika import lifecycle as ours
import json
value = {{"a": [1, -0.5, None, "\\u00e9"], "b": {{}}}}
text = ours.write_json(value)
assert text == json.dumps(value) and ours.read_json(text) == value
assert ours.write_json_lines(value) == json.dumps(value, indent=2)
try:
    ours.read_json("[1")
except ValueError:
    print("refused")
"""


def outcome(work: Callable[[Any], Any], given: Any) -> tuple[str, str]:
    """What comes of it, or what is raised, in a form that tells 1 from 1.0 and knows NaN."""
    try:
        return "", repr(work(given))
    except (TypeError, ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


@given(JSON)
def test_what_is_written_is_what_json_writes(value: Any) -> None:
    assert write_json(value) == json.dumps(value)
    assert write_json(value, is_ascii=False) == json.dumps(value, ensure_ascii=False)
    assert write_json_lines(value) == json.dumps(value, indent=2)


@given(JSON, st.sampled_from([None, 0, 3]))
def test_what_is_read_is_what_json_reads(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert repr(read_json(text)) == repr(json.loads(text))


@given(st.text('[]{}:,"\\/eE+-.0123 \nulntrfas\ud800'))
def test_any_text_is_taken_or_refused_as_json_does(text: str) -> None:
    assert outcome(read_json, text) == outcome(json.loads, text)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:20])
def test_what_is_wrong_is_refused_in_the_same_words(text: str) -> None:
    assert outcome(read_json, text) == outcome(json.loads, text)


@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20])
def test_an_odd_value_is_written_or_refused_as_json_does(value: Any) -> None:
    assert outcome(write_json, [value]) == outcome(json.dumps, [value])


def test_what_holds_itself_is_refused_as_json_does() -> None:
    value: list[Any] = []
    value.append(value)
    assert outcome(write_json, value) == outcome(json.dumps, value)


def test_what_a_reader_is_given_makes_its_objects_and_numbers() -> None:
    reader = JsonReader(tuple, lambda _: "float", lambda _: "int", lambda _: "constant")
    assert reader.read('{"a": [1, 1.0, NaN, true]}') == (("a", ["int", "float", "constant", True]),)


def test_what_making_an_object_raises_comes_through() -> None:
    def refuse(pairs: list[tuple[str, Any]]) -> None:
        raise lifecycle.LifecycleError("InvalidArgument", f"{len(pairs)} pairs")

    with pytest.raises(lifecycle.LifecycleError, match="1 pairs"):
        JsonReader(refuse).read('{"a": 1}')


def test_it_is_the_same_where_cpythons_module_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], check=True, stdout=subprocess.PIPE)
    assert done.stdout == b"refused\n"
