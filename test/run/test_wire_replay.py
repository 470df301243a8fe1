"""What osbuild and services of every kind said, said again packet for packet by our classes.

How the values are made that inputs, mounts and sources send is not looked at here: the calls are
made with what was recorded. Devices' own rules are in test_wire_transcripts.py.
"""

import _socket
import json
import os
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import wire
from osbuild_pika.errors import RemoteError
from osbuild_pika.host import ServiceClient, ServiceManager

DATA = Path(__file__).parents[1] / "data/osbuild"
PEER = str(DATA / "modules/scripted-peer")
SERVICE = str(DATA / "modules/scripted-service")
# Answers that no service of our class gives: they are made by hand, or the service dies.
RAW = sorted(path.stem for path in (DATA / "wire").glob("device-raw-*.json"))
NOT_REPLAYED = {*RAW, "device-dies", "device-huge-options"}
NAMES = sorted(
    path.stem
    for path in (DATA / "wire").glob("*.json")
    if not path.stem.startswith("peer-") and path.stem not in NOT_REPLAYED
)
Event = dict[str, Any]


def parts_of(name: str) -> list[list[Event]]:
    """The packets of a transcript, parted where a service of the same id starts again."""
    parts: list[list[Event]] = [[]]
    started: set[str] = set()
    for event in json.loads((DATA / "wire" / f"{name}.json").read_text())["events"]:
        if event.get("event") == "start":
            if event["service"] in started:
                parts.append([])
                started = set()
            started.add(event["service"])
        if "channel" not in event:
            parts[-1].append(event)
    return parts


def script(path: Path, events: list[Event]) -> dict[str, str]:
    """The environment in which the scripted modules play these events."""
    path.write_text(json.dumps({"events": events}))
    return {**os.environ, "TRANSCRIPT": str(path)}


def answers_to(events: list[Event], index: int) -> list[Event]:
    """The packets that a service sent after the request at this index."""
    service = events[index]["service"]
    later = [event for event in events[index + 1 :] if event["service"] == service]
    return [event for event in later if event.get("dir") == "service->osbuild"]


def outcome(client: ServiceClient, call: Event) -> tuple[list[Any], Any]:
    """(signals, reply or (name, value) of the exception) of a call to a client."""
    signals: list[Any] = []
    client.on_signal(signals.append)
    try:
        return signals, client.call(call["name"], call["args"], timeout_s=20)
    except RemoteError as error:
        return signals, (error.name, error.value)


def recorded_outcome(answers: list[Event]) -> tuple[list[Any], Any]:
    *signals, last = [event["json"] for event in answers]
    data = last["data"]
    failed = last["type"] == "exception"
    return [signal["data"]["reply"] for signal in signals], (
        (data["name"], data["value"]) if failed else data["reply"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_our_client_says_the_recorded_requests_and_hears_the_answers(
    name: str, tmp_path: Path
) -> None:
    for events in parts_of(name):
        lines: list[tuple[str, str]] = []
        environment = script(tmp_path / "transcript", events)
        with ServiceManager(
            lambda *line, to=lines: to.append(line), environment=environment
        ) as manager:
            for index, event in enumerate(events):
                if event.get("event") == "start":
                    manager.start(event["service"], PEER)
                elif event.get("dir") == "osbuild->service":
                    client = manager.services[event["service"]]
                    answers = answers_to(events, index)
                    assert outcome(client, event["json"]["data"]) == recorded_outcome(answers)
        started = [event["service"] for event in events if event.get("event") == "start"]
        assert started
        assert lines == [(service, "end") for service in reversed(started)]


@pytest.mark.parametrize("name", NAMES)
def test_our_service_answers_packet_for_packet(name: str, tmp_path: Path) -> None:
    for events in parts_of(name):
        with ServiceManager(environment=script(tmp_path / "transcript", events)) as manager:
            for index, event in enumerate(events):
                if event.get("event") == "start":
                    manager.start(event["service"], SERVICE)
                elif event.get("dir") == "osbuild->service":
                    sock = manager.services[event["service"]]._connection.socket
                    sock.settimeout(20)
                    sock.send(event["raw"].encode())
                    check_answers(sock, answers_to(events, index))


def check_answers(sock: _socket.socket, answers: list[Event]) -> None:
    for wanted in answers:
        packet = sock.recv(1 << 20)
        if wanted["json"]["type"] == "exception":  # its backtrace is of other files
            told = wire.decode(packet)
            data = wanted["json"]["data"]
            assert isinstance(told, wire.Failure)
            assert told[:2] == (data["name"], data["value"])
        else:
            assert packet.decode() == wanted["raw"]


def test_inputs_mounts_and_sources_are_among_them() -> None:
    services = {event["service"] for name in NAMES for part in parts_of(name) for event in part}
    kinds = {service.partition("/")[0] for service in services}
    assert kinds == {"device", "input", "mount", "source"}
