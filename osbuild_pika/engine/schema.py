"""Documents against JSON schemas: the format's own, and those of the modules that it names."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from osbuild_pika.engine.manifest import FROM_PIPELINE, FROM_SOURCE, Json
from osbuild_pika.engine.modules import Module, Modules
from osbuild_pika.errors import ManifestFault

MAX_MESSAGE = 400  # characters, about
MAX_FORMS = 3  # of a value that are told of
INPUT_NAME = r"^[a-zA-Z][a-zA-Z0-9_\-.]{0,254}"  # upstream's: not anchored at the end
Path = tuple[str | int, ...]
Schema = Mapping[str, Any]


class Structure(NamedTuple):
    """What is wrong with a manifest's structure.

    is_sound: everything that the format knows is of the right type and nothing is missing.
    """

    faults: list[ManifestFault]
    is_sound: bool


class Entry(NamedTuple):
    """A part of a manifest that a module has a schema for."""

    kind: str
    type: str
    value: dict[str, Json]
    path: Path


def check_structure(document: Json) -> Structure:
    """Check a manifest against format 2, which leaves options to the modules."""
    errors = list(_validator_of_format().iter_errors(document))
    # Keys that nobody knows hide nothing: they are not looked at.
    is_sound = all(error.validator == "additionalProperties" for error in errors)
    return Structure([_fault(error) for error in errors], is_sound)


def check_entries(
    document: Json,
    modules: Modules,
    is_strict: bool,
    is_known: Callable[[Entry, Module | None], bool] = lambda entry, module: False,
) -> list[ManifestFault]:
    """Check all that a manifest says of modules against their schemas.

    document: an object, whatever is in it. is_strict: options that are not given count as {}.
    is_known: whether an entry need not be checked again.
    """
    check = EntryCheck(is_strict)
    found = ((entry, modules.find(entry.kind, entry.type)) for entry in entries(document))
    return [
        ManifestFault((*entry.path, *fault.path), fault.message)
        for entry, module in found
        if not is_known(entry, module)
        for fault in check(module, entry)
    ]


def prepare(modules: Iterable[Module | None], is_over: Callable[[], bool]) -> None:
    """Load what checks manifests, a piece at a time until `is_over`: a check does it, too."""
    with contextlib.suppress(Exception):  # the check will say it
        if not is_over():
            _validator_of_format()
        for module in modules:
            if is_over():
                return
            if module is not None and module.schema is not None:
                _make_validator(module.schema)


def entries(document: dict[str, Json]) -> Iterator[Entry]:
    """The parts of a manifest that name a module. What is of a wrong type is passed over."""
    for name, source in _items(document.get("sources")):
        if isinstance(source, dict):
            yield Entry("sources", name, source, ("sources", name))
    for number, pipeline in _list(document.get("pipelines")):
        for index, stage in _list(pipeline.get("stages")):
            yield from _of_stage(stage, ("pipelines", number, "stages", index))


def _of_stage(stage: dict[str, Json], path: Path) -> Iterator[Entry]:
    mounts = {mount.get("name", index): mount for index, mount in _named(stage.get("mounts"))}
    parts = {
        "devices": dict(_items(stage.get("devices"))),
        "inputs": dict(_items(stage.get("inputs"))),
        "mounts": mounts,  # upstream's paths have a mount's name where the format's have its index
    }
    found = [("stages", stage, path)] + [
        (kind, value, (*path, kind, name))
        for kind, values in parts.items()
        for name, value in values.items()
    ]
    for kind, value, at in found:
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            yield Entry(kind, value["type"], value, at)


def _items(value: Json) -> list[tuple[str, Json]]:
    return list(value.items()) if isinstance(value, dict) else []


def _list(value: Json) -> list[tuple[int, dict[str, Json]]]:
    values = value if isinstance(value, list) else []
    return [(index, each) for index, each in enumerate(values) if isinstance(each, dict)]


def _named(value: Json) -> list[tuple[int, dict[str, Json]]]:
    return [(index, each) for index, each in _list(value) if isinstance(each.get("name", ""), str)]


class EntryCheck:
    """Checks entries against the schemas of modules, each of which is looked at once."""

    def __init__(self, is_strict: bool) -> None:
        self._is_strict = is_strict
        self._validators: dict[int, Any] = {}

    def __call__(self, module: Module | None, entry: Entry) -> list[ManifestFault]:
        """What is wrong with an entry; paths begin at the entry."""
        if module is None or module.schema is None:
            why = module.fault if module else "no module directory has it"
            message = f"could not find schema information for '{entry.type}': {why}"
            return [ManifestFault((), message[:MAX_MESSAGE])]
        try:
            validator = self._validator(module)
            faults = [_fault(error) for error in validator.iter_errors(entry.value)]
            if self._is_strict:
                faults += _check_absent(validator, module.schema, entry.value)
        except Exception as error:  # the schema is foreign: a `$ref` of null, a bad pattern, ...
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            message = f"the schema of '{entry.type}' cannot be used: {why}"
            return [ManifestFault((), message[:MAX_MESSAGE])]
        return faults

    def _validator(self, module: Module) -> Any:
        if id(module) not in self._validators:
            self._validators[id(module)] = _make_validator(module.schema or {})
        return self._validators[id(module)]


def _check_absent(validator: Any, schema: Schema, entry: Json) -> Iterator[ManifestFault]:
    """Find what a module requires inside of an object that the entry does not have at all.

    Upstream overlooks it. A stage gets {} for options that are not given, so they are checked as
    such; of inputs and devices only missing ones count.
    """
    known = schema.get("properties", {})
    absent = {key: {} for key in ("options", "inputs", "devices") if key in known} - entry.keys()
    if not absent:
        return
    for error in validator.iter_errors({**entry, **{key: {} for key in absent}}):
        at = error.absolute_path[0] if error.absolute_path else None
        if at in absent and (at == "options" or error.validator == "required"):
            yield _fault(error)


def _fault(error: Any) -> ManifestFault:
    """What a validator found. A message that begins with a large value keeps its end, too."""
    message = _why_no_form(error) if error.validator in ("anyOf", "oneOf") else error.message
    if len(message) > MAX_MESSAGE:
        message = f"{message[: MAX_MESSAGE // 2]} ... {message[-MAX_MESSAGE // 2 :]}"
    return ManifestFault(tuple(error.absolute_path), message)


def _why_no_form(error: Any) -> str:
    """Why a value has none of the forms that it may have, where the validator only shows it."""
    from jsonschema.exceptions import best_match

    nearest = best_match([error])
    reasons = error.context[:MAX_FORMS] if nearest is error else [nearest]
    told: dict[str, None] = {}  # each once
    for reason in reasons:
        inside = tuple(reason.absolute_path)[len(error.absolute_path) :]
        place = f"{ManifestFault(inside, '').place}: " if inside else ""
        told[f"{place}{reason.message}"] = None
    return f"it has no form that is allowed: {', or '.join(told)}" if told else str(error.message)


def _make_validator(schema: Schema) -> Any:
    """Raises SchemaError if that is no schema; using it can still raise anything."""
    import jsonschema  # 0.2 s: only for who checks a manifest
    from referencing import Registry

    _check_schema(json.dumps(schema))
    # A registry of our own: without one a `$ref` to a URL would be fetched.
    registry: Registry[Any] = Registry()
    return jsonschema.Draft4Validator(schema, registry=registry)


@lru_cache(maxsize=512)
def _check_schema(text: str) -> None:
    """Raises SchemaError. Of the same schema only once in a process: it takes most of the time."""
    import jsonschema

    jsonschema.Draft4Validator.check_schema(json.loads(text))


def _object(*required: str, **properties: Schema) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _map(schema: Schema) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


def _array(schema: Schema) -> dict[str, Any]:
    return {"type": "array", "items": schema}


@cache
def _validator_of_format() -> Any:
    text: Schema = {"type": "string"}
    anything: Schema = {"type": "object"}
    reference = _object("id", id=text, options=anything)
    references = {"oneOf": [_array(text), anything, _array(reference)]}
    device = _object("type", type=text, parent=text, options=anything)
    origin = {"enum": [FROM_SOURCE, FROM_PIPELINE]}
    given = _object(
        "type", "origin", "references", type=text, origin=origin, references=references,
        options=anything,
    )  # fmt: skip
    mount = _object(
        "name", "type", name=text, type=text, source=text, target=text, options=anything,
        partition={"type": "number"},
    )  # fmt: skip
    inputs = {**_object(), "patternProperties": {INPUT_NAME: given}}
    stage = _object(
        "type", type=text, options=anything, devices=_map(device), inputs=inputs,
        mounts=_array(mount),
    )  # fmt: skip
    pipeline = _object("name", build=text, runner=text, stages=_array(stage))
    # Any name that can be compared: upstream's schema does not look at it.
    pipeline["properties"]["name"] = {"type": ["string", "number", "boolean", "null"]}
    pipeline["properties"]["source-epoch"] = {"type": "integer"}
    generator = _object("name", name=text, version=text)
    exports = _array(_object("name", name=text))
    return _make_validator(
        _object(
            "version",
            version={"enum": ["2"]},
            pipelines=_array(pipeline),
            sources=_map(_object("items", items=references, options=anything)),
            metadata=_object(exports=exports, generators=_array(generator)),
        )
    )
