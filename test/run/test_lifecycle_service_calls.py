"""A stage may send anything: what is no good call is refused by a stable name, and nothing of it
is written."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from journals import messages
from services import Client, Lifecycle, lifecycle, names, verdict

from osbuild_pika import wire

Args = dict[str, Any]
KIB = 1024
METHOD = b'{"type": "method", "data": {"name": "event", "args": %s}}'
DEEP = b"[" * 900 + b"]" * 900  # deeper than is allowed, not so deep that it cannot be parsed
RESERVED = ["build.completed", "build.x", "engine.x", "engine.lost", "source.x"]
RESERVED += [f"stage.{word}" for word in ("started", "finished", "failed", "cached", "ended")]
RESERVED += ["interrupted", "timeout"]


@pytest.fixture(name="service", scope="module")
def fixture_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lifecycle]:
    """A service with an owned run and an open device; after all calls it still does its work."""
    with lifecycle(tmp_path_factory.mktemp("calls")) as service:
        service.own()
        service.open()
        yield service
        service.call("event", message="the owner")
        service.call("result", status="failed", exit_code=3, message="the end")
        assert service.stop() == 0
    assert messages(service.run)[-2:] == ["the owner", "the end"]
    assert verdict(service.run) == ("failed", 3, "build.failed")
    assert set(names(service.run)) == {"build.accepted", "stage.note", "", "build.failed"}


@pytest.fixture(name="stage")
def fixture_stage(service: Lifecycle) -> Iterator[Client]:
    with service.connect() as stage:
        yield stage


def is_served(stage: Client) -> bool:
    """Whether a connection still does its work after what was done to it."""
    before = stage.call("flush")["durable_seq"]
    return bool(stage.call("event", message="still here") == {"seq": before + 1})


# --- packets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"x",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"null",
        b"[]",
        b"{}",
        b'{"type": "method"',
        b'{"type": "method"}',
        b'{"type": "method", "data": null}',
        b'{"type": "method", "data": {"args": {}}}',
        b'{"type": "method", "data": {"name": 1, "args": {}}}',
        b'{"type": "reply", "data": {"reply": 1}}',
        b'{"type": "signal", "data": {"reply": 1}}',
        b'{"type": "exception", "data": {"name": "a", "value": "b", "backtrace": "c"}}',
        b'{"type": "news", "data": {"a": 1}}',
        b'{"type": ["method"], "data": {"a": 1}}',
        b'{"type": %s, "data": {"a": 1}}' % DEEP,
        wire.VIA_FD,
        b"[" * 100_000,
        METHOD % (b"1" * 5000),
        pytest.param(os.urandom(4096), id="noise"),
        b"x" * (129 * KIB),
        b"x" * (KIB * KIB),
    ],
    ids=lambda packet: repr(packet[:40]),
)
def test_what_is_no_call_is_a_protocol_error(packet: bytes, stage: Client) -> None:
    for _ in range(2):
        assert stage.raw_error(packet) == "ProtocolError"
    assert is_served(stage)


def test_a_document_in_a_memfd_is_refused_unseen(stage: Client) -> None:
    call = wire.encode(wire.Method("event", {"message": "m", "x": "y" * 5 * KIB * KIB}))
    stage.connection.send(call)
    assert stage.error_of_next() == "ProtocolError"
    assert is_served(stage)


def test_a_call_that_is_too_large_is_refused_and_the_connection_survives(stage: Client) -> None:
    call = wire.encode(wire.Method("event", {"message": "m", "details": {"x": "y" * 130 * KIB}}))
    assert stage.raw_error(call) in ("ProtocolError", "TooLarge")
    assert is_served(stage)


@pytest.mark.parametrize("packet", [wire.VIA_FD, wire.encode(wire.Method("flush", {})), b"x", b""])
def test_descriptors_are_refused_and_do_not_stay_open(
    packet: bytes, service: Lifecycle, stage: Client
) -> None:
    is_served(stage)
    before = open_descriptors(service.pid)
    memfd = os.memfd_create("payload")
    os.write(memfd, wire.encode(wire.Method("event", {"message": "smuggled"})))
    with socket.socket() as other:
        for _ in range(20):
            fds = [memfd, other.fileno()] * 100
            assert stage.raw_error(packet, fds) == "ProtocolError"
    os.close(memfd)
    assert is_served(stage)
    assert open_descriptors(service.pid) == before


def open_descriptors(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"))


# --- calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["", "x", "close", "\ud800", "__class__", "event\0", "n" * 9999])
def test_an_unknown_method_is_refused(method: str, stage: Client) -> None:
    assert stage.error(method, message="m") in ("InvalidArgument", "ProtocolError")
    assert is_served(stage)


@pytest.mark.parametrize("args", [None, 1, "x", [], [{"message": "m"}], True], ids=repr)
@pytest.mark.parametrize("method", ["event", "events", "progress", "artifact", "result"])
def test_arguments_that_are_no_object_are_refused(method: str, args: Any, stage: Client) -> None:
    stage.send(method, args)
    assert stage.error_of_next() == "InvalidArgument"


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"message": None},
        {"message": 1},
        {"message": "\ud800"},
        {"message": "m", "more": 1},
        {"message": "m", "kind": "completed"},
        {"message": "m", "kind": None},
        {"message": "m", "status": "completed"},
        {"message": "m", "source": "engine"},
        {"message": "m", "details": []},
        {"message": "m", "details": "x"},
        {"message": "m", "details": {"a": "\udfff"}},
        {"message": "m", "details": {"\udfff": 1}},
        {"message": "m", "details": {"a": float("nan")}},
        {"message": "m", "details": {"a": float("inf")}},
        {"message": "m", "details": {"a": 2**64}},
        {"message": "m", "details": {"a": -(2**63) - 1}},
        {"message": "m", "details": {"a": 10**4000}},
        {"message": "m", "details": {"a": json.loads(DEEP)}},
        {"message": json.loads(DEEP)},
        {"message": "m", "name": json.loads(DEEP)},
        {"message": "m", "name": 10**4000},
        {"message": "m", "name": "Upper"},
        {"message": "m", "name": ""},
        {"message": "m", "name": "n" * 65},
        {"message": "m", "name": "a\n"},
        *({"message": "m", "name": name} for name in RESERVED),
    ],
    ids=lambda args: ascii(args)[:50],
)
def test_an_event_that_is_wrong_is_refused(args: Args, stage: Client) -> None:
    before = stage.call("flush")
    stage.send("event", args)
    assert stage.error_of_next() == "InvalidArgument"
    stage.send("events", {"items": [{"message": "good"}, args]})
    assert stage.error_of_next() == "InvalidArgument"
    assert stage.call("flush") == before


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("events", {"items": []}),
        ("events", {"items": {}}),
        ("events", {"items": [[]]}),
        ("events", {"items": [{"message": "m"}], "more": 1}),
        ("progress", {}),
        ("progress", {"done": -1}),
        ("progress", {"done": True}),
        ("progress", {"done": "1"}),
        ("progress", {"done": float("nan")}),
        ("progress", {"done": float("inf")}),
        ("progress", {"done": 10**4000}),
        ("progress", {"done": 1, "total": -1}),
        ("progress", {"done": 1, "unit": 1}),
        ("progress", {"done": 1, "unit": "\ud800"}),
        ("progress", {"done": 1, "details": {}}),
        ("artifact", {}),
        ("artifact", {"path": ""}),
        ("artifact", {"path": "/etc/passwd"}),
        ("artifact", {"path": "../x"}),
        ("artifact", {"path": "a/../../x"}),
        ("artifact", {"path": "a//b"}),
        ("artifact", {"path": "a\0b"}),
        ("artifact", {"path": "\ud800"}),
        ("artifact", {"path": 1}),
        ("result", {}),
        ("result", {"status": "ready", "message": "m"}),
        ("result", {"status": ["failed"], "message": "m"}),
        ("result", {"status": "failed", "message": 1}),
        ("result", {"status": "failed", "message": "m", "exit_code": 2**31}),
        ("result", {"status": "failed", "message": "m", "exit_code": True}),
        ("result", {"status": "failed", "message": "m", "exit_code": 1.0}),
        ("result", {"status": "failed", "message": "m", "details": [1]}),
        ("result", {"status": "failed", "message": "m", "details": {"a": json.loads(DEEP)}}),
        ("result", {"status": json.loads(DEEP), "message": "m"}),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_a_call_that_is_wrong_is_refused(method: str, args: Args, stage: Client) -> None:
    before = stage.call("flush")
    stage.send(method, args)
    assert stage.error_of_next() == "InvalidArgument"
    assert stage.call("flush") == before


@pytest.mark.parametrize(
    "args",
    [
        {"message": "m" * 17 * KIB},
        {"message": "m", "details": {"a": "x" * 65 * KIB}},
        {"message": "m", "details": {"a": "é" * 11 * KIB}},
    ],
    ids=["message", "details", "details when they are encoded"],
)
def test_an_event_that_is_too_large_is_refused(args: Args, stage: Client) -> None:
    assert stage.error("event", **args) == "TooLarge"
    assert is_served(stage)


def test_a_key_that_is_given_twice_is_refused(stage: Client) -> None:
    stage.send_raw(METHOD % b'{"message": "m", "details": {"a": 1, "a": 2, "source": 1}}')
    assert stage.error_of_next() == "InvalidArgument"
    assert is_served(stage)
