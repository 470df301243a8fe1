"""Whatever is in a definition or a lock: a value or faults, never a traceback."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, lock
from osbuild_pika.image.reading import DefinitionError

KEYS = st.sampled_from(
    ["name", "from", "packages", "files", "path", "content", "link", "mode", "users", "hooks",
     "ready", "unit", "within", "mirror", "url", "suites", "lifecycle", "outputs", "x", ""]
)  # fmt: skip
WORDS = st.sampled_from(["web", "debian/bookworm", "/etc/a", "0644", "http://[", "60s", "none"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)),
    max_leaves=5,
)


def is_read(data: bytes) -> bool:
    """Whether a definition comes out, or faults that say where; anything else is raised."""
    try:
        return bool(definition.parse(data, "image.yaml").name)
    except DefinitionError as error:
        return bool(error.lines) and all(line.startswith("image.yaml:") for line in error.lines)


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    assert is_read(data)


@given(st.text(st.sampled_from("a: -[]{},\n\t'\"&*!|>%@`#?~0<=\\ \u00e9\u2028\U0001f600")))
def test_any_yaml(text: str) -> None:
    assert is_read(text.encode())


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_mapping(value: Any) -> None:
    text = yaml.safe_dump({"name": "web", "from": "debian/bookworm", **value}, allow_unicode=True)
    assert is_read(text.encode("utf-8", "replace"))


@given(st.one_of(st.binary(), VALUES.map(lambda value: json.dumps(value, default=str).encode())))
def test_any_lock(data: bytes) -> None:
    with pytest.raises(InputError, match=r"image\.lock\.json"):
        lock.decode(data, "image.lock.json")
