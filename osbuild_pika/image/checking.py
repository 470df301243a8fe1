"""A document against a JSON schema (2020-12), in words for who wrote it.

The schema's `title` says what a value is ("a package's name"); its `description` may say more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from osbuild_pika.datadir import data_folder
from osbuild_pika.image.reading import Document, Path, shown

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "object": "a mapping of keys to values",
    "string": "text",
}


def check(document: Document, schema: str) -> bool:
    """Note what a document has against schemas/<schema>.schema.json; returns whether nothing."""
    before = len(document.faults)
    for error in _validator(schema).iter_errors(document.value):
        path = tuple(error.absolute_path)
        for at, message, is_key in _told(error, path, document):
            document.fault(at, message, is_key)
    return len(document.faults) == before


def violations(value: object, schema: str) -> Iterator[str]:
    """What a value has against a schema, for files that no person writes."""
    for error in _validator(schema).iter_errors(value):
        place = "".join(f"[{each!r}]" for each in error.absolute_path)
        yield f"{place} {error.message}".strip()[:300]


@cache
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator, validators  # 0.1 s, for who reads one only
    from referencing import Registry

    path = data_folder("schemas") / f"{schema}.schema.json"
    registry: Registry[Any] = Registry()  # without one a `$ref` to a URL would be fetched
    extend: Any = validators.extend  # untyped
    kind = extend(Draft202012Validator, {"pattern": _pattern})
    return kind(json.loads(path.read_text()), registry=registry)


def _pattern(_: Any, pattern: str, value: object, __: Any) -> Iterator[Any]:
    """A pattern as editors understand it: `$` is the end, for Python also before a last \\n."""
    from jsonschema import ValidationError

    exact = pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and not re.search(exact, value):
        yield ValidationError("does not match")


def _told(error: Any, path: Path, document: Document) -> Iterator[tuple[Path, str, bool]]:
    """What an error of the validator is about, in words: (path, message, whether at the key)."""
    kind, given = error.validator, error.instance
    if kind == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in given:
            if key and key not in known:
                yield (*path, key), _unknown_key(key, known), True
    elif kind == "propertyNames":
        yield path, f"the key {shown(given)} is not {_noun(error.schema)}", False
    elif kind == "required":
        missing = error.message.split("'")[1]
        yield path, f"the key '{missing}' is missing", False
    elif kind == "type":
        yield path, _wrong_type(error, document.texts.get(path)), False
    elif kind == "enum":
        words = ", ".join(map(str, error.validator_value))
        text = document.texts.get(path, given)
        yield path, f"{shown(text)} is none of: {words}{did_you_mean(text, words)}", False
    elif kind == "uniqueItems":
        for index, each in enumerate(given):
            if each in given[:index]:
                yield (*path, index), f"{shown(each)} stands here twice", False
    elif kind in ("minItems", "minProperties", "minLength"):
        yield path, f"is empty; leave it out or write {_noun(error.schema)}", False
    else:
        yield path, f"{shown(given)} is not {_noun(error.schema)}", False


def _noun(schema: Any) -> str:
    """What a value should be: the schema's title, and the rule if it says one."""
    title = schema.get("title", _TYPES.get(str(schema.get("type")), "what is allowed here"))
    rule = schema.get("description")
    return f"{title}: {rule}" if rule else str(title)


def _unknown_key(key: str, known: Iterable[str]) -> str:
    near = did_you_mean(key, known)
    return f"unknown key {shown(key)}{near or '; there are: ' + ', '.join(known)}"


def did_you_mean(word: object, known: str | Iterable[str]) -> str:
    """ ", did you mean 'x'?" or nothing. known: words, or a text with commas between them."""
    words = known.split(", ") if isinstance(known, str) else list(known)
    near = get_close_matches(str(word), words, n=1)
    return f", did you mean {shown(near[0])}?" if near else ""


def _wrong_type(error: Any, text: str | None) -> str:
    wanted = error.validator_value
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if "string" in wanted and text is not None and error.instance is not None:
        return f'{shown(text)} is no text in YAML: write it in quotes, "{shown(text)[1:-1]}"'
    kinds = " or ".join(_TYPES.get(each, each) for each in wanted)
    title = error.schema.get("title")
    what = f"{title} ({kinds})" if title else kinds
    if error.instance is None:
        return f"is empty; write {what}"
    return f"should be {what}, not {_kind(error.instance)}"


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return _TYPES["object"]
    return _TYPES["array"] if isinstance(value, list) else shown(value)
