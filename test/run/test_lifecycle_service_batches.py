"""Calls that are written in one batch: each has its answer, in order, and nobody is held up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import messages
from services import Lifecycle, lifecycle

from osbuild_pika import wire

CALLS = 40


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Iterator[Lifecycle]:
    with lifecycle(tmp_path) as service:
        service.own("web")
        service.open()
        yield service
        service.kill()


def test_answers_come_in_the_order_of_the_calls(service: Lifecycle) -> None:
    with service.connect() as stage, service.connect() as other:
        for number in range(CALLS):
            stage.send("event", {"message": str(number)})
            stage.send("event", {})
            other.send("event", {"message": "x"})
        errors = [stage.error_of_next() for _ in range(2 * CALLS)]
        assert errors == ["", "InvalidArgument"] * CALLS
        seqs = [other.answer()["seq"] for _ in range(CALLS)]
    assert seqs == sorted(set(seqs))
    said = [message for message in messages(service.run) if message != "x"]
    assert said == ["accepted", *map(str, range(CALLS))]


def test_who_never_stops_to_call_holds_nobody_up(service: Lifecycle) -> None:
    with service.connect() as stage, service.connect() as other:
        stage.socket.setblocking(False)
        packet = wire.encode(wire.Method("event", {}))
        for _ in range(CALLS):
            try:
                while True:
                    stage.send_raw(packet)
            except BlockingIOError:
                pass
            assert other.call("event", message="x")["seq"] > 0


def test_what_the_owner_said_last_is_written(service: Lifecycle) -> None:
    said = wire.encode(wire.Method("event", {"message": "last"}))
    connection = service.service._connection
    connection.send(said)
    service.service.stop()
    assert messages(service.run)[1] == "last"
