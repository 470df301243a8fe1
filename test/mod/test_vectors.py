"""Every verdict of the pika-cloud guests' Rust reader on a document is ours, too."""

import json
from collections.abc import Callable
from functools import partial
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


def name_of(vector: Vector) -> str:
    return f"{vector['kind']}-{vector['name']}"


def canonical(fields: dict[str, Any]) -> Any:
    """A decoded document as the Rust reader writes it again.

    It drops nulls and fields that it does not know, and reads integers beyond 64 bits as floats.
    """
    known = {name: fields[name] for name in fields.keys() - {"x_extra"} if fields[name] is not None}
    text = json.dumps(known)
    return json.loads(text, parse_int=lambda d: int(d) if abs(int(d)) < 2**64 else float(d))


def put(top: Path, vector: Vector) -> Path:
    """Write a vector where it belongs, in a directory of its own; an event becomes one line."""
    end = "\n" if vector["kind"] == "event" else ""
    text = vector["text"] + end
    directory = top / name_of(vector)
    directory.mkdir()
    (directory / FILES[vector["kind"]]).write_bytes(text.encode())
    return directory


def refusal(work: Callable[[], object]) -> str:
    """The name of what is raised, and whether it can be shown; what else is raised is."""
    try:
        return f"none: {work()}"
    except LifecycleError as error:
        return f"{error.name}, {'printable' if str(error).isprintable() else 'not printable'}"


def test_all_vectors_are_here() -> None:
    assert len(VECTORS) == 152
    assert len({name_of(vector) for vector in VECTORS}) == 152


def test_what_the_reader_takes_is_decoded_to_the_same() -> None:
    taken = [each for each in VECTORS if each["kind"] != "events" and each["valid"]]
    found = {
        name_of(each): canonical(lifecycle.decode(each["kind"], each["text"].encode()))
        for each in taken
    }
    assert found == {name_of(each): each["canonical"] for each in taken}


def test_what_the_reader_refuses_is_corrupt() -> None:
    refused = [each for each in VECTORS if each["kind"] != "events" and not each["valid"]]
    found = {
        name_of(each): refusal(partial(lifecycle.decode, each["kind"], each["text"].encode()))
        for each in refused
    }
    assert found == {name_of(each): "Corrupt, printable" for each in refused}


def test_a_stream_that_the_reader_takes_is_followed(tmp_path: Path) -> None:
    taken = [each for each in VECTORS if each["kind"] == "events" and each["valid"]]
    found = {}
    for each in taken:
        with Follower(put(tmp_path, each)) as follower:
            given = [canonical(event.raw) for event in follower.poll()]
            found[name_of(each)] = (given, follower.skipped)
    assert found == {name_of(each): (each["canonical"], 0) for each in taken}


def test_what_the_reader_refuses_check_reports(tmp_path: Path) -> None:
    refused = [each for each in VECTORS if not each["valid"] and each["text"].strip()]
    found = [
        (name_of(each), FILES[each["kind"]], {f.file for f in verify(put(tmp_path, each)).faults})
        for each in refused
    ]
    assert [(name, file, files) for name, file, files in found if file not in files] == []


def test_an_empty_document_is_reported(tmp_path: Path) -> None:
    empty = [
        each
        for each in VECTORS
        if not each["valid"] and not each["text"] and each["kind"] != "event"
    ]
    found = {
        name_of(each): {fault.file for fault in verify(put(tmp_path, each)).faults}
        for each in empty
    }
    assert found == {name_of(each): {FILES[each["kind"]]} for each in empty}


def test_no_stream_makes_the_follower_fail(tmp_path: Path) -> None:
    streams = [each for each in VECTORS if each["kind"] in ("event", "events")]
    lost, unsteady = [], []
    for each in streams:
        with Follower(put(tmp_path, each)) as follower:
            given = follower.poll()
            unsteady += [(name_of(each), event) for event in follower.poll()]
            is_seen = follower.skipped + len(given) > 0
            lost += [name_of(each)] * bool(each["text"].strip() and not is_seen)
    assert lost == []
    assert unsteady == []


def test_a_document_that_the_reader_refuses_is_named(tmp_path: Path) -> None:
    refused = [each for each in VECTORS if each["kind"] in READERS and not each["valid"]]
    assert len(refused) > 30
    for each in refused:
        with pytest.raises(LifecycleError, match=FILES[each["kind"]]) as raised:
            READERS[each["kind"]](put(tmp_path, each))
        assert raised.value.name == "Corrupt", name_of(each)


def test_a_document_that_the_reader_takes_is_read(tmp_path: Path) -> None:
    taken = [each for each in VECTORS if each["kind"] in READERS and each["valid"]]
    found = {name_of(each): READERS[each["kind"]](put(tmp_path, each)) for each in taken}
    assert [name for name, document in found.items() if document is None] == []
    assert len(found) == len(taken) > 30
