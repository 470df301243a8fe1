"""Stages that never stop, die or flood, and services that are killed: all others are served on, and
the artifacts are whole."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import messages
from services import (
    ROOT,
    SOON_S,
    STAGE,
    Client,
    Lifecycle,
    engine,
    lifecycle,
    verdict,
    whole,
)

KIB = 1024
BIG = {"message": "m", "details": {"text": "x" * 60 * KIB}}


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Iterator[Lifecycle]:
    """A service with an owned run and an open device; in the end it must still do its work."""
    with lifecycle(tmp_path) as service:
        service.own()
        service.open()
        yield service
        end(service)


def end(service: Lifecycle) -> None:
    """End a run; whatever was done to its service, it works, and the artifacts are whole."""
    service.call("event", message="the owner")
    service.call("result", status="failed", exit_code=3, message="the end")
    assert service.stop() == 0
    assert verdict(service.run) == ("failed", 3, "build.failed")
    assert messages(service.run)[-2:] == ["the owner", "the end"]


def descriptors(service: Lifecycle) -> list[str]:
    """Those that a service has open, after its first stage connected: it holds the sandbox."""
    with service.connect() as stage:
        stage.call("flush")
    service.call("flush")
    return sorted(os.listdir(f"/proc/{service.pid}/fd"))


def told(stage: Client, count: int) -> list[str]:
    """What the next answers are: "" or the name of an error."""
    return [stage.error_of_next() for _ in range(count)]


# --- too much ------------------------------------------------------------------------------------


def test_ten_thousand_events_at_once_are_taken_as_far_as_the_share_goes(
    service: Lifecycle,
) -> None:
    groups = [[f"{group}.{number}" for number in range(100)] for group in range(100)]
    with service.connect() as stage:
        answers: list[str] = []
        reader = threading.Thread(target=lambda: answers.extend(told(stage, len(groups))))
        reader.start()
        for group in groups:
            stage.send("events", {"items": [{"message": message} for message in group]})
        reader.join()
    taken = answers.count("")
    assert answers == [""] * taken + ["Limit"] * (len(groups) - taken)
    assert messages(service.run)[1:] == [message for group in groups[:taken] for message in group]
    assert 900 * KIB < (service.run / "events.jsonl").stat().st_size < 1025 * KIB


def test_a_client_that_never_reads_is_not_read_either(service: Lifecycle) -> None:
    with service.connect() as stage, service.connect() as other:
        stage.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 10_000:
                stage.send("event", {"message": f"{sent}"})
                sent += 1
        assert sent < 10_000
        assert other.call("event", message="other")
        assert service.call("event", message="owner")
        stage.socket.settimeout(SOON_S)
        seqs = [stage.answer()["seq"] for _ in range(sent)]
    assert seqs == sorted(seqs)
    by_seq = {event["seq"]: event["message"] for event in whole(service.run)}
    assert [by_seq[seq] for seq in seqs] == [str(number) for number in range(sent)]


def test_a_stages_share_is_its_own(service: Lifecycle) -> None:
    with service.connect() as stage:
        answers = [stage.error("event", **BIG) for _ in range(34)]
        assert stage.error("result", status="failed", message="m") == ""
        with service.connect() as again:
            assert again.error("events", items=[BIG]) == "Limit", "the share is the device's"
    taken = answers.count("")
    assert answers == [""] * taken + ["Limit"] * (34 - taken)
    assert 15 <= taken <= 17
    service.open({"stage": "other"})
    with service.connect() as other:
        assert other.error("event", **BIG) == ""


def test_the_log_keeps_room_for_the_owner(service: Lifecycle) -> None:
    for _ in range(17):
        service.open({})
        with service.connect() as stage:
            while not (error := stage.error("event", **BIG)):
                pass
        assert error == "Limit"
    assert (service.run / "events.jsonl").stat().st_size > 15 * KIB * KIB - 64 * KIB
    assert (service.run / "events.jsonl").stat().st_size <= 15 * KIB * KIB
    assert service.error("event", **BIG) == ""


def test_a_connection_more_than_there_may_be_is_closed(service: Lifecycle) -> None:
    before = descriptors(service)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(service.connect()) for _ in range(256)]
        assert clients[-1].call("event", message="last") == {"seq": 2}
        more = stack.enter_context(service.connect())
        with pytest.raises((EOFError, ConnectionError)):
            more.call("flush")
        assert clients[0].call("event", message="first") == {"seq": 3}
        assert service.call("event", message="owner") == {"seq": 4}
    assert descriptors(service) == before


def test_two_thousand_connections_leave_nothing_behind(service: Lifecycle) -> None:
    before = descriptors(service)
    for number in range(2000):
        with service.connect() as stage:
            if number % 100 == 0:
                stage.call("event", message=f"{number}")
    assert descriptors(service) == before
    assert len(whole(service.run)) == 21


CONNECTS = """
import contextlib, socket, sys
print("ready", flush=True)
while True:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(sys.argv[1])
"""
WRITES = """
import os, sys
from services import Client
stage = Client(sys.argv[1])
print("ready", flush=True)
while True:
    stage.send("event", {"message": "m"})
    stage.error_of_next()
"""


@contextlib.contextmanager
def running(script: str, *arguments: str | Path, count: int = 1) -> Iterator[list[int]]:
    """Run processes until the end of the block. Yields their pids."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/test"}
    command = [sys.executable, "-c", script, *arguments]
    with contextlib.ExitStack() as stack:
        pids = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            pids.append(process.pid)
        yield pids


@pytest.mark.parametrize("script", [CONNECTS, WRITES])
def test_stages_that_never_stop_do_not_keep_a_device_open(script: str, service: Lifecycle) -> None:
    with running(script, service.node, count=3):
        for _ in range(3):
            service.call("event", message="m")
        service.service.call("close", {"path": str(service.node)}, timeout_s=5)
    assert not service.node.exists()


@pytest.mark.parametrize("script", [CONNECTS, WRITES])
def test_stages_that_never_stop_do_not_keep_the_run_from_its_end(
    script: str, tmp_path: Path
) -> None:
    with (
        engine(tmp_path, "service.own('web'); service.open()") as build,
        running(script, build.node, count=3),
    ):
        build.end(signal.SIGKILL)
        assert verdict(build.run) == ("failed", 137, "engine.lost")


# --- half ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [b'{"type": "method", "data": {"name": "ev', b"", b"\xff" * 999])
def test_a_stage_that_dies_in_the_middle_of_a_word_harms_nobody(
    packet: bytes, service: Lifecycle
) -> None:
    before = descriptors(service)
    for _ in range(10):
        with service.connect() as stage:
            stage.send_raw(packet)
    with service.connect() as other:
        assert other.call("event", message="m") == {"seq": 2}
    assert descriptors(service) == before


def test_what_a_stage_sent_before_it_died_is_kept(service: Lifecycle) -> None:
    with service.connect() as stage:
        for number in range(50):
            stage.send("event", {"message": f"{number}"})
        stage.answer()  # the others find nobody
    service.call("close")
    assert messages(service.run)[1:] == [str(number) for number in range(50)]


HELD = """
import os, sys
from services import Client
stage = Client(sys.argv[1])
stage.call("event", message="m")
if os.fork() == 0:
    os.set_inheritable(stage.socket.fileno(), True)
    os.execlp("cat", "cat")  # until our input ends
print("ready", flush=True)
"""


def test_a_child_that_holds_a_stages_socket_does_not_keep_its_device(service: Lifecycle) -> None:
    with running(HELD, service.node):
        service.service.call("close", {"path": str(service.node)}, timeout_s=5)
    assert not service.node.exists()


# --- a service that is killed, and several of them -----------------------------------------------


def keep_writing(node: Path, name: str, acked: dict[int, str]) -> None:
    """Write events until the service is gone; keep what was acknowledged."""
    with contextlib.suppress(EOFError, OSError), Client(node) as stage:
        for number in range(100_000):
            message = f"{name}.{number}"
            acked[stage.call("event", message=message)["seq"]] = message


def write_and_kill(service: Lifecycle, name: str) -> dict[int, str]:
    """Have four clients write while the service is killed. Returns what was acknowledged."""
    acked: list[dict[int, str]] = [{} for _ in range(4)]
    writers = [
        threading.Thread(target=keep_writing, args=(service.node, f"{name}.{index}", each))
        for index, each in enumerate(acked)
    ]
    for writer in writers:
        writer.start()
    while not all(len(each) > 10 for each in acked):
        service.call("flush")
    service.kill()
    for writer in writers:
        writer.join(SOON_S)
    return {seq: message for each in acked for seq, message in each.items()}


def test_a_service_that_is_killed_loses_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    acked = {}
    for kill in range(3):
        with lifecycle(tmp_path) as service:
            assert service.own()["run"] == "web"
            service.open()
            acked.update(write_and_kill(service, f"{kill}"))
    with lifecycle(tmp_path) as service:
        service.own()
        end(service)
    by_seq = {event["seq"]: event["message"] for event in whole(service.run)}
    assert {seq: by_seq.get(seq) for seq in acked} == acked


def test_a_service_that_is_killed_with_its_engine_leaves_a_run_to_seal(tmp_path: Path) -> None:
    with engine(tmp_path, "service.own('web'); service.open()") as build:
        with running(WRITES, build.node, count=3):
            build.kill_service()
            build.end(signal.SIGKILL)
        with lifecycle(tmp_path) as service:
            service.own("next")
            assert verdict(build.run) == ("failed", 137, "engine.lost")


def test_two_services_write_one_run(tmp_path: Path) -> None:
    acked: list[dict[int, str]] = [{}, {}]
    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(lifecycle(tmp_path)) for _ in acked]
        for service in services:
            service.open({**STAGE, "run": "web"})
        writers = [
            threading.Thread(target=keep_writing, args=(service.node, f"{index}", acked[index]))
            for index, service in enumerate(services)
        ]
        for writer in writers:
            writer.start()
        while not all(len(each) > 50 for each in acked):
            assert all(writer.is_alive() for writer in writers)
        for service in services:
            service.kill()
        for writer in writers:
            writer.join(SOON_S)
    with lifecycle(tmp_path) as service:
        service.open({**STAGE, "run": "web", "final": True})
    by_seq = {event["seq"]: event["message"] for event in whole(service.run)}
    for each in acked:
        assert {seq: by_seq.get(seq) for seq in each} == each
    assert verdict(service.run) == ("failed", 1, "stage.ended")
