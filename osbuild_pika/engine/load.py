"""From the bytes of a manifest to a Manifest, or to all that is wrong with it."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from osbuild_pika.engine import rules, schema
from osbuild_pika.engine.known import Known, fingerprint
from osbuild_pika.engine.manifest import Json, Manifest
from osbuild_pika.engine.modules import Module, Modules
from osbuild_pika.engine.resolve import Resolver
from osbuild_pika.errors import ManifestError, ManifestFault

LARGE = 4096  # characters of an entry that is known by itself
MAX_DEPTH = 200  # of nested arrays and objects; upstream dies at about 1000


class Document(NamedTuple):
    """JSON, and what a parser hides: keys that an object had twice (the last one counts)."""

    value: Json
    repeated: list[tuple[dict[str, Json], str]]


def load(
    data: bytes, modules: Modules, is_strict: bool = True, known: Known | None = None
) -> Manifest:
    """Read a manifest of format 2. Raises ManifestError with everything that is wrong with it.

    is_strict: also refuse what upstream accepts but nobody can build, or not safely. Lenient
    reading, for `--inspect`, takes what upstream takes. known: has what need not be checked again.
    """
    document = parse(data)
    _check_format(document.value)
    checked = [_fingerprint(data, document.value, modules, is_strict)] if known else []
    faults: list[ManifestFault] = []
    is_sound = True

    def is_known(entry: schema.Entry, module: Module | None) -> bool:
        text = json.dumps(entry.value) if known else ""
        if known is None or len(text) < LARGE:
            return False
        checked.append(fingerprint(text.encode(), is_strict, [module]))
        return known.has(checked[-1])

    if known is None or not known.has(checked[0]):
        structure = schema.check_structure(document.value)
        is_sound = structure.is_sound
        faults += structure.faults
        faults += schema.check_entries(document.value, modules, is_strict, is_known)
    if is_strict:
        faults += _corners(document)
    resolver = Resolver(document.value, modules, is_strict)
    # What is of a wrong type cannot be followed any further.
    if is_sound:
        faults += rules.check(document.value) if is_strict else []
        manifest = resolver.manifest()
        faults += resolver.faults
    if faults:
        raise ManifestError(faults)
    if known is not None:
        known.note(*checked)
    return manifest


def _fingerprint(data: bytes, document: dict[str, Json], modules: Modules, is_strict: bool) -> str:
    used = sorted({(each.kind, each.type) for each in schema.entries(document)})
    return fingerprint(data, is_strict, (modules.find(*each) for each in used))


def parse(data: bytes) -> Document:
    """Parse JSON as Python does: NaN, Infinity and lone surrogates pass. Raises ManifestError."""
    repeated: list[tuple[dict[str, Json], str]] = []

    def make_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated.extend((made, key) for key in made if counts[key] > 1)
        return made

    try:
        value = json.loads(data.decode(), object_pairs_hook=make_object)
    except RecursionError:
        raise _error("nested too deep") from None
    except UnicodeDecodeError as error:
        raise _error(f"not UTF-8: byte {error.start} is {data[error.start]:#04x}") from None
    except ValueError as error:
        raise _error(f"not JSON: {error}") from None
    if _is_deep(value):
        raise _error(f"nested deeper than {MAX_DEPTH} arrays and objects")
    return Document(value, repeated)


def _error(message: str) -> ManifestError:
    return ManifestError([ManifestFault((), message)])


def _is_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [each for outer in level for each in _values(outer)]
    return bool(level)


def _values(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_format(document: Json) -> None:
    if not isinstance(document, dict):
        raise _error("a manifest is a JSON object")
    version = document.get("version", "1")
    if version == "1":
        at: tuple[str, ...] = ("version",) if "version" in document else ()
        message = 'this is a manifest of format 1; only format 2 ("version": "2") is supported'
        raise ManifestError([ManifestFault(at, message)])
    if version != "2":
        raise ManifestError([ManifestFault(("version",), 'not supported: write "2", in quotes')])


def _corners(document: Document) -> Iterator[ManifestFault]:
    """Find keys that an object has twice, and numbers that are none in JSON."""
    repeated: dict[int, list[str]] = {}
    for holder, key in document.repeated:
        repeated.setdefault(id(holder), []).append(key)
    todo: list[tuple[tuple[str | int, ...], Json]] = [((), document.value)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, float) and not math.isfinite(value):
            yield ManifestFault(path, f"{value} is no number in JSON, or too large")
        if isinstance(value, dict):
            for key in repeated.get(id(value), ()):
                yield ManifestFault((*path, key), "the object has this key more than once")
            todo += [((*path, key), each) for key, each in value.items()]
        elif isinstance(value, list):
            todo += [((*path, index), each) for index, each in enumerate(value)]
