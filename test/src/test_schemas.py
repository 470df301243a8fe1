"""The schemas say what the code does: its words, its limits, what it reads and what it writes."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from osbuild_pika import lifecycle
from osbuild_pika.datadir import data_folder
from osbuild_pika.lifecycle import Journal, LifecycleError

KINDS = ("status", "event", "result")
SCHEMAS = {
    kind: json.loads((data_folder("schemas") / f"{kind}.schema.json").read_text()) for kind in KINDS
}
VECTORS = json.loads((Path(__file__).parents[1] / "data/lifecycle/vectors.json").read_text())[
    "vectors"
]
# What JSON Schema cannot say, or what no JSON parser brings to it.
BEYOND = {"schema_version_1.0", "seq_1.0", "duplicate_key", "deep_details_200"}
RFC_3339 = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"

Schema = dict[str, Any]


def strict(kind: str) -> Schema:
    """The schema of what may be written, made from that of what is read."""
    schema: Schema = copy.deepcopy(SCHEMAS[kind])
    fields = schema["properties"]
    schema["additionalProperties"] = False
    fields["schema_version"] = {"const": lifecycle.SCHEMA_VERSION}
    fields["message"]["maxLength"] = lifecycle.MAX_MESSAGE
    for name in fields.keys() & {"updated_at", "timestamp", "finished_at"}:
        fields[name]["pattern"] = RFC_3339
    for name in fields.keys() & {"boot_id", "exit_code"}:
        fields[name]["type"] = fields[name]["type"][0]
    fields["details"]["not"] = {"type": "null"}
    fields.get("seq", {})["minimum"] = 1
    if kind == "result":
        schema["required"].append("exit_code")
        schema["if"] = {"properties": {"status": {"const": "completed"}}}
        schema["then"] = {"properties": {"exit_code": {"const": 0}}}
        schema["else"] = {"properties": {"exit_code": {"not": {"const": 0}}}}
    return schema


def accepts(schema: Schema, document: Any) -> bool:
    return Draft202012Validator(schema).is_valid(document)


def reads(kind: str, document: Any) -> bool:
    """Say whether the code takes this document."""
    try:
        lifecycle.decode(kind, json.dumps(document).encode())
    except LifecycleError:
        return False
    return True


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def parsed(is_valid: bool) -> Iterator[Any]:
    """The documents of the vectors that a JSON parser takes, with the Rust reader's verdict."""
    for vector in VECTORS:
        if vector["kind"] not in KINDS or vector["valid"] is not is_valid:
            continue
        try:
            document = json.loads(vector["text"], parse_constant=refuse_constant)
            json.dumps(document, ensure_ascii=False).encode()
        except ValueError:
            continue
        if vector["name"] not in BEYOND:
            yield pytest.param(vector["kind"], document, id=f"{vector['kind']}-{vector['name']}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one(kind: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind])
    Draft202012Validator.check_schema(strict(kind))


def test_the_words_are_those_of_the_code() -> None:
    assert SCHEMAS["status"]["properties"]["state"]["enum"] == list(lifecycle.STATES)
    assert SCHEMAS["event"]["properties"]["kind"]["enum"] == list(lifecycle.STATES)
    assert SCHEMAS["result"]["properties"]["status"]["enum"] == list(lifecycle.RESULT_STATUSES)


@pytest.mark.parametrize(("kind", "document"), list(parsed(is_valid=True)))
def test_what_the_rust_reader_takes_is_allowed(kind: str, document: Any) -> None:
    assert accepts(SCHEMAS[kind], document)


@pytest.mark.parametrize(("kind", "document"), list(parsed(is_valid=False)))
def test_what_the_rust_reader_refuses_is_not_allowed(kind: str, document: Any) -> None:
    assert not accepts(SCHEMAS[kind], document)


GOOD: dict[str, dict[str, Any]] = {
    "status": {"schema_version": 1, "state": "ready", "updated_at": "t", "message": "m"},
    "event": {"schema_version": 1, "kind": "ready", "timestamp": "t", "message": "m", "seq": 1},
    "result": {"schema_version": 1, "status": "failed", "finished_at": "t", "message": "m"},
}
WORDS = st.sampled_from([*lifecycle.STATES, "passed", "", "Ready"])
EDGES = [0, -(2**31), 2**31 - 1, 2**32 - 1, 2**64 - 1]
NUMBERS = st.sampled_from([edge + step for edge in EDGES for step in (-1, 0, 1)])
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.just([]), st.just({}))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_schema_and_the_code_agree_on_every_field(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SCHEMAS[kind]["properties"], "unknown"]))
    document = {**GOOD[kind], name: data.draw(VALUES)}
    assert accepts(SCHEMAS[kind], document) == reads(kind, document)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in GOOD[kind]])
def test_a_schema_and_the_code_require_the_same(kind: str, name: str) -> None:
    document = {field: value for field, value in GOOD[kind].items() if field != name}
    assert not accepts(SCHEMAS[kind], document)
    assert not reads(kind, document)


def documents(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("status", "result"):
        yield kind, json.loads((directory / f"{kind}.json").read_bytes())
    for line in (directory / "events.jsonl").read_bytes().split(b"\n")[:-1]:
        yield "event", json.loads(line)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, Any]]]:
    """Documents that our writer really writes."""
    found: list[tuple[str, dict[str, Any]]] = []
    several: list[Any] = [{"event": "artifact"}, None, [], "text", 3, False]
    for details in several:
        directory = tmp_path_factory.mktemp("run")
        with Journal(directory) as journal:
            journal.write_status("requested", "accepted", details)
            journal.append_many([(state, "\u2028 m", details) for state in lifecycle.STATES])
            journal.write_result("completed", 0, "", details)
        found += documents(directory)
    directory = tmp_path_factory.mktemp("run")
    with Journal(directory) as journal:
        journal.append("requested", "m" * lifecycle.MAX_MESSAGE)
        journal.finish("failed", -(2**31), "no", {"event": "stage.failed"})
    return found + list(documents(directory))


def test_what_we_write_passes_the_strict_schemas(
    written: list[tuple[str, dict[str, Any]]],
) -> None:
    assert len(written) == 6 * 12 + 4
    for kind, document in written:
        Draft202012Validator(strict(kind)).validate(document)


def test_what_we_write_has_its_fields_in_the_order_of_the_schema(
    written: list[tuple[str, dict[str, Any]]],
) -> None:
    for kind, document in written:
        names = SCHEMAS[kind]["properties"]
        assert list(document) == [name for name in names if name in document]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("status", {"extra": 1}),
        ("status", {"schema_version": 2}),
        ("status", {"updated_at": "yesterday"}),
        ("status", {"boot_id": None}),
        ("event", {"seq": 0}),
        ("event", {"details": None}),
        ("event", {"timestamp": "2026-03-25 20:00:00"}),
        ("event", {"message": "m" * (lifecycle.MAX_MESSAGE + 1)}),
        ("result", {"status": "completed"}),
        ("result", {"exit_code": 0}),
        ("result", {"exit_code": None}),
    ],
)
def test_the_strict_schemas_refuse_what_we_never_write(
    kind: str, changes: dict[str, Any], written: list[tuple[str, dict[str, Any]]]
) -> None:
    good = [document for found, document in written if found == kind][-1]
    assert accepts(strict(kind), good)
    assert not accepts(strict(kind), {**good, **changes})
    assert accepts(SCHEMAS[kind], {**good, **changes})
