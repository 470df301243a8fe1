"""Messages are upstream's, byte for byte, and no bytes of a peer do harm."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from osbuild_pika import wire

RECORDED = Path(__file__).parents[1] / "data/osbuild/wire"

texts = st.text(st.characters())  # lone surrogates included
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)
messages = st.one_of(
    st.builds(wire.Method, texts.filter(bool), values),
    st.builds(wire.Reply, values),
    st.builds(wire.Signal, values),
    st.builds(wire.Failure, texts, texts, texts),
)
KINDS = (wire.Method, wire.Reply, wire.Signal, wire.Failure, wire.Unknown)


@given(messages)
def test_a_message_survives_the_wire(message: wire.Message) -> None:
    assert wire.decode(wire.encode(message)) == message
    assert type(wire.decode(wire.encode(message))) is type(message)


def is_message_or_protocol_error(packet: bytes) -> bool:
    try:
        return isinstance(wire.decode(packet), KINDS)
    except wire.ProtocolError as error:
        return len(str(error)) <= 200


@given(st.binary())
@example(b"")
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 200_000)
@example(b'{"type":' * 50_000)
@example(b"1" * 10_000)
@example(b'{"type": "reply", "data": {"reply": %s}}' % (b"9" * 5000))
@example(b'"\\ud800"')
@example(b'{"type": "\\ud800", "data": {"\\ud800": 1}}')
@example(b"nope" * 10_000)
def test_any_bytes_are_a_message_or_a_protocol_error(packet: bytes) -> None:
    assert is_message_or_protocol_error(packet)


parts = st.sampled_from(
    ["type", "data", "name", "args", "reply", "value", "backtrace", "method", "signal", "exception"]
)
nearly = st.recursive(
    parts | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(parts, inner),
    max_leaves=20,
)


@given(nearly | st.fixed_dictionaries({"type": parts | values, "data": nearly}))
def test_any_document_is_a_message_or_a_protocol_error(document: object) -> None:
    assert is_message_or_protocol_error(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        ("null", "message is not an object"),
        ("[]", "message is not an object"),
        ("0", "message is not an object"),
        ("false", "message is not an object"),
        ('""', "message is not an object"),
        ("{}", "'type' field missing"),
        ('{"data": {"name": "open"}}', "'type' field missing"),
        ('{"type": "method"}', "'data' field missing"),
        ('{"type": "method", "data": {}}', "'data' field missing"),
        ('{"type": "method", "data": [1]}', "'data' field missing"),
        ('{"type": "method", "data": {"args": []}}', "'name' field missing"),
        ('{"type": "method", "data": {"name": ""}}', "'name' field missing"),
        ('{"type": "method", "data": {"name": 5}}', "'name' field missing"),
        ('{"type": "reply", "data": {"x": 1}}', "'reply' field missing"),
        ('{"type": "signal", "data": {"x": 1}}', "'reply' field missing"),
        ('{"type": "exception", "data": {"name": "E", "value": "v"}}', "'backtrace' field missing"),
        ('{"type": "exception", "data": {"name": 1, "value": "v"}}', "'name' field missing"),
    ],
)
def test_what_is_wrong_is_said_as_upstream_does(packet: str, said: str) -> None:
    with pytest.raises(wire.ProtocolError, match=said):
        wire.decode(packet.encode())


def test_a_method_without_arguments_has_an_empty_list() -> None:
    packet = b'{"type": "method", "data": {"name": "close"}}'
    assert wire.decode(packet) == wire.Method("close", [])


def test_an_unknown_type_is_no_error() -> None:
    assert wire.decode(b'{"type":"hello","data":{"x":1}}') == wire.Unknown("hello")
    assert wire.kind_of(wire.decode(b'{"type":5,"data":{"x":1}}')) == "5"


def test_numbers_that_json_lacks_come_through_as_upstream() -> None:
    reply = wire.decode(b'{"type": "reply", "data": {"reply": NaN}}')
    assert isinstance(reply, wire.Reply)
    assert math.isnan(reply.value)
    assert wire.encode(wire.Reply(math.inf)) == b'{"type": "reply", "data": {"reply": Infinity}}'


@pytest.mark.parametrize("value", [{1, 2}, b"x", object()])
def test_values_that_are_not_json_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        wire.encode(wire.Reply(value))


def recorded_packets() -> list[str]:
    """What upstream itself sent, in all transcripts: not what raw services made up."""
    packets = []
    for path in sorted(RECORDED.glob("*.json")):
        transcript = json.loads(path.read_text())
        events: list[dict[str, Any]] = transcript.get("events", [])
        packets += [e["raw"] for e in events if e.get("raw", "").startswith('{"type": ')]
        packets += [e["received"] for e in transcript.get("exchange", [])]
    return [packet for packet in packets if packet.startswith("{")]


def test_encoding_gives_the_recorded_bytes() -> None:
    packets = recorded_packets()
    assert len(packets) > 40
    for packet in packets:
        assert wire.encode(wire.decode(packet.encode())).decode() == packet
