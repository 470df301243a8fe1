"""What upstream and its services said to one another, said again by our manager and our service."""

import _socket
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import wire
from osbuild_pika.devices import Device, DeviceManager, parents_first
from osbuild_pika.errors import PikaError, RemoteError, ServiceDied
from osbuild_pika.host import ServiceManager

DATA = Path(__file__).parents[1] / "data/osbuild"
GOLDEN = str(DATA / "modules/org.osbuild.golden.dev")
PEER = str(DATA / "modules/scripted-peer")
# The recorded names of what was another directory in each run: the manager only passes them on.
DEVPATH, TREE = "@RUNDIR@/osbuild-dev-@TMP@", "@STORE@/stage/uuid-@TMP@/data/tree"
Lines = list[tuple[str, str]]


def transcript(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "wire" / f"{name}.json").read_text())
    return document


def devices_of(recorded: dict[str, Any]) -> list[Device]:
    (stage,) = recorded["manifest"]["pipelines"][0]["stages"]
    entries = stage["devices"]
    made: dict[str, Device] = {}
    for name in sorted(entries, key=lambda name: "parent" in entries[name]):
        parent = made.get(entries[name].get("parent"))
        made[name] = Device(name, entries[name]["type"], entries[name].get("options", {}), parent)
    return parents_first([made[name] for name in entries])


def replay(name: str, lines: Lines, executable: str, devpath: str, tree: str) -> dict[str, Any]:
    """Open a transcript's devices; returns what the stage finds in its arguments."""
    environment = {**os.environ, "TRANSCRIPT": str(DATA / "wire" / f"{name}.json")}
    arguments = {}
    with ServiceManager(lambda *line: lines.append(line), environment=environment) as services:
        manager = DeviceManager(services, devpath, tree)
        for device in devices_of(transcript(name)):
            arguments[device.name] = manager.argument(device, manager.open(device, executable))
    return arguments


GOLDEN0 = {"path": "/dev/golden0", "parent-seen": None}
LEAF = {"node": "golden1", "print": "hello from leaf", "signal": {"progress": 1}}
SUCCESSES = {
    "device-open-close": {
        "disk": {**GOLDEN0, "echo": {"node": "golden0", "signal": ["a", None]}},
        "leaf": {"path": "/dev/golden1", "parent-seen": "golden0", "echo": LEAF},
    },
    "device-absolute-path": {"d": {**GOLDEN0, "echo": {"abs": True}}},
    "device-no-path": {"d": {"parent-seen": None, "echo": {"no-path": True}}},
    "device-stage-fails": {"d": {**GOLDEN0, "echo": {}}},
    # Ours is better: upstream dies of an AttributeError.
    "device-reply-none": {"d": {}},
}
RAW_SUCCESSES = {
    "device-raw-reply-twice": {"d": {"path": "/dev/null"}},
    "device-raw-unknown-type": {"d": {"path": "/dev/null"}},
}
# All of these are tracebacks of upstream; its own words stand beside ours.
FAILURES = {
    "device-exception": (RemoteError, "device/d: ValueError: no such disk ü"),
    "device-second-fails": (RemoteError, "device/b: ValueError: boom"),
    # "message empty"
    "device-dies": (ServiceDied, "exited with status 7"),
    # "AttributeError: 'list' object has no attribute 'get'"
    "device-reply-list": (PikaError, "device d: the service replied no object"),
    # "KeyError: 'path'"
    "device-no-path-but-parent": (PikaError, "device e: its parent d has no node"),
}
RAW_FAILURES = {
    # "message empty"
    "device-raw-end-of-file": (ServiceDied, "without an answer"),
    # "BufferError"
    "device-raw-not-json": (RemoteError, "device/d: ProtocolError: its answer: not JSON"),
    "device-raw-no-data": (RemoteError, "'data' field missing"),
    "device-raw-empty-data": (RemoteError, "'data' field missing"),
    "device-raw-no-reply-key": (RemoteError, "'reply' field missing"),
    "device-raw-exception": (RemoteError, "device/d: DiskError: bad ü"),
    # "KeyError: 'backtrace'"
    "device-raw-exception-incomplete": (RemoteError, "'backtrace' field missing"),
}


def recorded_arguments(name: str) -> dict[str, Any]:
    """What upstream put into the stage's arguments, where the stage showed them."""
    (stage,) = transcript(name)["osbuild"]["stdout_json"]["log"]["image"]
    arguments: dict[str, Any] = json.loads(stage["output"])["devices"]
    return arguments


def recorded_lines(name: str) -> Lines:
    """What upstream's services printed, with its origin."""
    lines = []
    for line in transcript(name)["monitor_lines_of_services"]:
        origin, _, text = line.rstrip("\n").partition(": ")
        lines.append((origin.partition(" ")[0], text))
    return lines


@pytest.mark.parametrize("name", ["device-absolute-path", "device-no-path"])
def test_arguments_of_stages_are_those_that_upstream_gave(name: str) -> None:
    assert SUCCESSES[name] == recorded_arguments(name)


@pytest.mark.parametrize("name", [*SUCCESSES, *RAW_SUCCESSES])
def test_our_manager_says_the_recorded_requests(name: str) -> None:
    lines: Lines = []
    arguments = replay(name, lines, PEER, DEVPATH, TREE)
    assert arguments == {**SUCCESSES, **RAW_SUCCESSES}[name]
    assert lines == [(f"device/{each}", "end") for each in reversed(arguments)]


@pytest.mark.parametrize("name", [*FAILURES, *RAW_FAILURES])
def test_our_manager_tells_recorded_failures_apart(name: str) -> None:
    lines: Lines = []
    kind, said = {**FAILURES, **RAW_FAILURES}[name]
    with pytest.raises(kind) as caught:
        replay(name, lines, PEER, DEVPATH, TREE)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert {line for _, line in lines} <= {"end"}


@pytest.mark.parametrize("name", SUCCESSES)
def test_our_service_under_our_manager_does_as_recorded(name: str, tmp_path: Path) -> None:
    lines: Lines = []
    assert replay(name, lines, GOLDEN, str(tmp_path), TREE) == SUCCESSES[name]
    assert lines == recorded_lines(name)


@pytest.mark.parametrize("name", FAILURES)
def test_our_service_under_our_manager_fails_as_recorded(name: str, tmp_path: Path) -> None:
    lines: Lines = []
    kind, said = FAILURES[name]
    with pytest.raises(kind) as caught:
        replay(name, lines, GOLDEN, str(tmp_path), TREE)
    assert said in str(caught.value)
    assert lines == recorded_lines(name)


def test_every_transcript_of_a_device_is_replayed() -> None:
    replayed = {*SUCCESSES, *RAW_SUCCESSES, *FAILURES, *RAW_FAILURES, "device-huge-options"}
    assert replayed == {path.stem for path in (DATA / "wire").glob("device-*.json")}


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Iterator[tuple[_socket.socket, ServiceManager]]:
    """The golden device, and the socket to it: no client of ours in between."""
    (tmp_path / "dev").mkdir()
    with ServiceManager() as services:
        client = services.start("device/d", GOLDEN)
        sock = client._connection.socket
        sock.settimeout(20)
        yield sock, services


def test_huge_options_go_as_recorded(
    service: tuple[_socket.socket, ServiceManager], tmp_path: Path
) -> None:
    _, asked, answered, *_ = transcript("device-huge-options")["events"]
    frame = {"path": "golden0", "parent-seen": None, "echo": {"big": ""}}
    size = answered["via_fd"]["size"] - len(wire.encode(wire.Reply(frame)))
    arguments = {"dev": DEVPATH, "tree": TREE, "parent": None, "options": {"big": "x" * size}}
    request = wire.encode(wire.Method("open", arguments)).decode()
    assert request.startswith(asked["via_fd"]["head"])
    assert request.endswith(asked["via_fd"]["tail"])
    connection = wire.Connection(service[0])
    there = wire.Method("open", {**arguments, "dev": str(tmp_path / "dev")})
    connection.send(wire.encode(there))
    packet, rights, _, _ = service[0].recvmsg(100, socket.CMSG_SPACE(4))
    assert packet.decode() == answered["raw"]
    memfd = int.from_bytes(rights[0][2], "little")
    assert os.readlink(f"/proc/self/fd/{memfd}") == answered["via_fd"]["link"]
    assert os.lseek(memfd, 0, os.SEEK_CUR) == answered["via_fd"]["offset"]
    reply = os.read(memfd, answered["via_fd"]["size"] + 1).decode()
    os.close(memfd)
    assert len(reply) == answered["via_fd"]["size"]
    assert reply.startswith(answered["via_fd"]["head"])
    assert reply.endswith(answered["via_fd"]["tail"])


NO_OBJECT = "message is not an object"
# Where our answer is another one: what was sent -> our error. Upstream's service names the Python
# error that befell it, and ends at what is falsy or no JSON.
BETTER = {
    '{"type": "method", "data": {"name": "open"}}': "the arguments of open are not an object",
    '{"type": "method", "data": {"name": "open", "args": []}}': "arguments of open are not an",
    '{"type": "method", "data": {"name": "open", "args": null}}': "arguments of open are not an",
    '{"type": "method", "data": {"name": "open", "args": {"dev": "@WORK@", "tree": "x"}}}': (
        "the argument parent of open is missing"
    ),
    **dict.fromkeys(["1", "[1]", "true", '"x"', "null", "[]", "0", "false", '""'], NO_OBJECT),
    "{}": "'type' field missing",
    "nope": "not JSON",
    "\ufffd\ufffd": "not JSON",
}


def expected(exchange: dict[str, Any]) -> dict[str, Any]:
    better = BETTER.get(exchange["sent"])
    if better is None:
        return without_backtrace(exchange["received_json"])
    return {"type": "exception", "data": {"name": "ProtocolError", "value": better}}


def without_backtrace(message: dict[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in message["data"].items() if key != "backtrace"}
    return {**message, "data": data}


def shortened(answer: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The answer; its error text reduced to the expected part if that is in it."""
    part = like["data"].get("value", "")
    if part and part in answer["data"].get("value", ""):
        return {**answer, "data": {**answer["data"], "value": part}}
    return answer


@pytest.mark.parametrize(
    "path", sorted((DATA / "wire").glob("peer-device*.json")), ids=lambda p: p.stem
)
def test_our_service_answers_the_recorded_requests(
    path: Path, service: tuple[_socket.socket, ServiceManager], tmp_path: Path
) -> None:
    sock, services = service
    recorded = transcript(path.stem)
    for exchange in recorded["exchange"]:
        text = exchange["sent"].replace("@WORK@", str(tmp_path))
        sock.send(text.encode("utf-8").replace(b"\xef\xbf\xbd", b"\xff"))
        answer = json.loads(sock.recv(1 << 20))
        assert set(answer["data"]) in ({"reply"}, {"name", "value", "backtrace"})
        wanted = expected(exchange)
        assert shortened(without_backtrace(answer), wanted) == wanted, exchange["sent"]
    client = services.services["device/d"]
    assert client.stop() == 0
    # Upstream printed a traceback where a packet was no JSON.
    printed = recorded["after_end_of_file"]["output"].split("\n")
    assert list(client.lines) == [line for line in printed if line.startswith("closing")]
