"""Every verdict of the pika-cloud guests' Rust reader on a document is ours, too."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import lifecycle
from osbuild_pika.follow import Follower, read_result, read_status
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.verify import verify

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads(
    (Path(__file__).parents[1] / "data/lifecycle/vectors.json").read_text()
)["vectors"]
FILES = {
    "status": "status.json",
    "result": "result.json",
    "event": "events.jsonl",
    "events": "events.jsonl",
}
READERS = {"status": read_status, "result": read_result}


def named(vectors: Iterable[Vector]) -> pytest.MarkDecorator:
    chosen = list(vectors)
    ids = [f"{vector['kind']}-{vector['name']}" for vector in chosen]
    return pytest.mark.parametrize("vector", chosen, ids=ids)


def canonical(fields: dict[str, Any]) -> Any:
    """A decoded document as the Rust reader writes it again.

    It drops nulls and fields that it does not know, and reads integers beyond 64 bits as floats.
    """
    known = {name: fields[name] for name in fields.keys() - {"x_extra"} if fields[name] is not None}
    text = json.dumps(known)
    return json.loads(text, parse_int=lambda d: int(d) if abs(int(d)) < 2**64 else float(d))


def put(directory: Path, vector: Vector) -> None:
    """Write a vector where it belongs; an event becomes one line."""
    end = "\n" if vector["kind"] == "event" else ""
    text = vector["text"] + end
    (directory / FILES[vector["kind"]]).write_bytes(text.encode())


def test_all_vectors_are_here() -> None:
    assert len(VECTORS) == 152


@named(vector for vector in VECTORS if vector["kind"] != "events" and vector["valid"])
def test_what_the_reader_takes_is_decoded_to_the_same(vector: Vector) -> None:
    fields = lifecycle.decode(vector["kind"], vector["text"].encode())
    assert canonical(fields) == vector["canonical"]


@named(vector for vector in VECTORS if vector["kind"] != "events" and not vector["valid"])
def test_what_the_reader_refuses_is_corrupt(vector: Vector) -> None:
    with pytest.raises(LifecycleError) as raised:
        lifecycle.decode(vector["kind"], vector["text"].encode())
    assert raised.value.name == "Corrupt"
    assert str(raised.value).isprintable()


@named(vector for vector in VECTORS if vector["kind"] == "events" and vector["valid"])
def test_a_stream_that_the_reader_takes_is_followed(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    with Follower(tmp_path) as follower:
        assert [canonical(event.raw) for event in follower.poll()] == vector["canonical"]
        assert follower.skipped == 0


@named(vector for vector in VECTORS if not vector["valid"] and vector["text"].strip())
def test_what_the_reader_refuses_check_reports(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    name = FILES[vector["kind"]]
    assert name in {fault.file for fault in verify(tmp_path).faults}


@named(v for v in VECTORS if not v["valid"] and not v["text"] and v["kind"] != "event")
def test_an_empty_document_is_reported(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    assert {fault.file for fault in verify(tmp_path).faults} == {FILES[vector["kind"]]}


@named(vector for vector in VECTORS if vector["kind"] in ("event", "events"))
def test_no_stream_makes_the_follower_fail(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    with Follower(tmp_path) as follower:
        given = follower.poll()
        assert follower.poll() == []
        assert follower.skipped + len(given) > 0 or not vector["text"].strip()


@named(vector for vector in VECTORS if vector["kind"] in READERS and not vector["valid"])
def test_a_document_that_the_reader_refuses_is_named(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    with pytest.raises(LifecycleError, match=FILES[vector["kind"]]) as raised:
        READERS[vector["kind"]](tmp_path)
    assert raised.value.name == "Corrupt"


@named(vector for vector in VECTORS if vector["kind"] in READERS and vector["valid"])
def test_a_document_that_the_reader_takes_is_read(vector: Vector, tmp_path: Path) -> None:
    put(tmp_path, vector)
    assert READERS[vector["kind"]](tmp_path) is not None
