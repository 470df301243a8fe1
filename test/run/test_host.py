"""Services are real processes here: each outcome of a call is its own, and nothing is left."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osbuild_pika.errors import PikaError, RemoteError, ServiceDied, ServiceTimeout
from osbuild_pika.host import ServiceClient, ServiceManager

SERVICE = Path(__file__).parents[1] / "data/osbuild/modules/any-service"
RAW = Path(__file__).parents[1] / "data/osbuild/modules/raw-service"
REPLY = '{"type": "reply", "data": {"reply": %s}}'
SIGNAL = '{"type": "signal", "data": {"reply": "s"}}'
Lines = list[tuple[str, str]]


def descriptors_and_children() -> tuple[list[str], str]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return sorted(os.listdir("/proc/self/fd")), children


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before, threads = descriptors_and_children(), threading.active_count()
    yield
    assert descriptors_and_children() == before
    assert threading.active_count() == threads


@pytest.fixture(name="lines")
def fixture_lines() -> Lines:
    return []


@pytest.fixture(name="manager")
def fixture_manager(nothing_is_left: None, lines: Lines) -> Iterator[ServiceManager]:
    with ServiceManager(lambda *line: lines.append(line), stop_timeout_s=5) as manager:
        yield manager


@pytest.fixture(name="service")
def fixture_service(manager: ServiceManager) -> ServiceClient:
    return manager.start("device/d", str(SERVICE))


@pytest.fixture(name="raw")
def fixture_raw(manager: ServiceManager) -> ServiceClient:
    return manager.start("device/raw", str(RAW))


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_reply_is_returned(service: ServiceClient) -> None:
    assert service.call("echo", {"x": [1, None, "ü"]}) == {"x": [1, None, "ü"]}
    assert service.call("echo", timeout_s=20) == []


def test_an_exception_is_a_remote_error_and_the_service_goes_on(service: ServiceClient) -> None:
    with pytest.raises(RemoteError, match="device/d: ValueError: no disk") as caught:
        service.call("raise", "no disk")
    assert (caught.value.name, caught.value.value) == ("ValueError", "no disk")
    assert "in dispatch" in caught.value.backtrace
    assert service.call("echo", 1) == 1


def test_a_stable_error_name_travels_instead_of_the_class(service: ServiceClient) -> None:
    with pytest.raises(RemoteError) as caught:
        service.call("raise-lifecycle", "full")
    assert caught.value.name == "NoSpace"


@pytest.mark.parametrize("name", ["reply-set", "reply-deep", "reply-bad-fds", "reply-nothing"])
def test_a_reply_that_cannot_be_sent_is_a_remote_error(service: ServiceClient, name: str) -> None:
    with pytest.raises(RemoteError):
        service.call(name)
    assert service.call("count-fds") == service.call("count-fds")


def test_a_death_has_its_status_and_the_last_lines(service: ServiceClient, lines: Lines) -> None:
    with pytest.raises(ServiceDied, match=r"exited with status 7 .* one \| two") as caught:
        service.call("die", 7)
    assert caught.value.status == 7
    assert caught.value.lines == ("one", "two")
    assert lines == [("device/d", "one"), ("device/d", "two")]
    with pytest.raises(ServiceDied, match="status 7"):
        service.call("echo")


def test_a_death_by_a_signal_is_named(service: ServiceClient) -> None:
    with pytest.raises(ServiceDied, match="was killed by SIGKILL") as caught:
        service.call("kill")
    assert caught.value.status == -signal.SIGKILL


def test_a_closed_socket_of_a_running_service_is_a_death_without_status(raw: ServiceClient) -> None:
    with pytest.raises(ServiceDied, match="closed its socket") as caught:
        raw.call("close", {"then_s": 2})
    assert caught.value.status is None


def test_a_service_that_prints_and_dies_before_the_call(
    manager: ServiceManager, tmp_path: Path
) -> None:
    path = executable(tmp_path / "dies", "#!/bin/sh\necho no such module; exit 3\n")
    service = manager.start("device/x", path)
    service.process.wait()
    with pytest.raises(ServiceDied, match=r"exited with status 3 .*: no such module"):
        service.call("open")


def test_a_timeout_is_its_own_outcome(service: ServiceClient) -> None:
    with pytest.raises(ServiceTimeout, match=r"no answer to sleep within 0\.2 s") as caught:
        service.call("sleep", 60, timeout_s=0.2)
    assert caught.value.exit_code == 124
    service.process.kill()


def test_a_late_answer_is_not_taken_for_that_of_the_next_call(service: ServiceClient) -> None:
    with pytest.raises(ServiceTimeout):
        service.call("sleep", 0.5, timeout_s=0.1)
    assert service.call("echo", "mine") == "mine"
    assert service.call("echo", "again") == "again"


def test_a_late_exception_is_not_taken_for_that_of_the_next_call(service: ServiceClient) -> None:
    with pytest.raises(ServiceTimeout):
        service.call("sleep", "x", timeout_s=0)
    time.sleep(0.3)
    assert service.call("echo", "mine") == "mine"


def test_signals_without_end_do_not_hold_off_the_timeout(raw: ServiceClient) -> None:
    with pytest.raises(ServiceTimeout):
        raw.call("send", {"send": [SIGNAL], "times": 10**6}, timeout_s=0.3)
    raw.process.kill()


def test_a_second_reply_is_not_taken_for_that_of_the_next_call(raw: ServiceClient) -> None:
    assert raw.call("send", {"send": [REPLY % 1, REPLY % 2, SIGNAL, REPLY % 3]}) == 1
    time.sleep(0.3)
    assert raw.call("send", {"send": [REPLY % 4]}) == 4


def test_unknown_types_and_methods_are_skipped(raw: ServiceClient) -> None:
    unknown = '{"type": "hello", "data": {"x": 1}}'
    method = '{"type": "method", "data": {"name": "x"}}'
    assert raw.call("send", {"send": [unknown, method, REPLY % 5]}) == 5


@pytest.mark.parametrize("packet", ["nope", "", '{"type":"reply","data":{}}', "[" * 5000])
def test_an_answer_that_is_none_is_a_remote_error(raw: ServiceClient, packet: str) -> None:
    with pytest.raises(RemoteError, match="device/raw: ProtocolError: its answer: "):
        raw.call("send", {"send": [packet]})
    assert raw.call("send", {"send": [REPLY % 6]}) == 6


def test_signals_come_before_the_reply(service: ServiceClient) -> None:
    seen: list[object] = []
    service.on_signal(seen.append)
    assert service.call("signals", [1, {"two": 2}, None]) == "done"
    assert seen == [1, {"two": 2}, None]
    service.on_signal(None)
    assert service.call("signals", [1]) == "done"


def test_a_callback_that_fails_is_no_outcome_of_the_service(service: ServiceClient) -> None:
    def fail(_: object) -> None:
        raise BrokenPipeError("of the callback")

    service.on_signal(fail)
    with pytest.raises(BrokenPipeError, match="of the callback"):
        service.call("signals", [1])
    assert service.call("echo", "mine") == "mine"


def test_descriptors_go_both_ways(service: ServiceClient) -> None:
    fd = os.memfd_create("x")
    os.write(fd, b"content")
    value, fds = service.call_with_fds("upper", fds=[fd])
    assert value == 1
    assert os.pread(fds[0], 100, 0) == b"CONTENT"
    for each in (fd, *fds):
        os.close(each)
    assert service.call("count-fds") == service.call("count-fds")


def test_five_megabytes_go_both_ways(service: ServiceClient) -> None:
    assert service.call("echo", "x" * 5_000_000) == "x" * 5_000_000


def test_lines_come_with_their_origin(manager: ServiceManager, lines: Lines) -> None:
    for name in ("device/a", "device/b"):
        manager.start(name, str(SERVICE)).call("print", ["one", "two\r", "partial"])
    manager.stop()
    assert sorted(lines) == [
        (name, line) for name in ("device/a", "device/b") for line in ("one", "partial", "two")
    ]


def test_output_that_is_not_utf_8_is_shown(service: ServiceClient, lines: Lines) -> None:
    service.call("print-bytes", [0xFF, 0xC3, 0x0A, 0xC3, 0xBC, 0x0A, 0xE2, 0x82])
    service.stop()
    assert [line for _, line in lines] == ["\ufffd\ufffd", "ü", "\ufffd"]


def test_a_character_across_two_pieces_of_a_line_is_whole(
    service: ServiceClient, lines: Lines
) -> None:
    service.call("print-euros", 100_000)
    service.stop()
    assert "".join(line for _, line in lines) == "€" * 100_000


def test_a_hundred_megabytes_of_output_do_not_block(manager: ServiceManager) -> None:
    service = manager.start("device/loud", str(SERVICE))
    assert service.call("shout", 100, timeout_s=120) == "done"
    service.stop()
    assert len(service.lines) == 20


def test_stop_is_idempotent_and_gives_the_status(service: ServiceClient) -> None:
    assert service.stop() == 0
    assert service.stop() == 0


def test_services_stop_in_reverse_order(manager: ServiceManager, lines: Lines) -> None:
    for name in ("a", "b", "c"):
        manager.start(name, str(SERVICE)).call("announce-stop")
    manager.stop()
    manager.stop()
    assert lines == [("c", "stopped"), ("b", "stopped"), ("a", "stopped")]


def test_services_stop_when_the_block_fails(lines: Lines) -> None:
    def fail() -> None:
        with ServiceManager(lambda *line: lines.append(line)) as manager:
            manager.start("a", str(SERVICE)).call("announce-stop")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert lines == [("a", "stopped")]


def test_a_service_that_ignores_the_end_is_killed(manager: ServiceManager) -> None:
    service = manager.start("device/deaf", str(SERVICE))
    service.call("be-deaf")
    started = time.monotonic()
    assert service.stop(timeout_s=0.3) == -signal.SIGKILL
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_leave_services_to_their_manager(
    service: ServiceClient, number: signal.Signals
) -> None:
    service.call("echo")
    service.process.send_signal(number)
    assert service.call("echo", 1) == 1
    assert service.stop() == 0


def test_a_child_of_a_service_does_not_keep_its_socket(service: ServiceClient) -> None:
    with pytest.raises(ServiceDied):
        service.call("leave-child", timeout_s=20)


@pytest.mark.parametrize(
    ("name", "text", "mode", "said"),
    [
        ("none", "", 0o755, "No such file"),
        ("x", "#!/bin/sh\n", 0o400, "Permission denied"),
        ("x", "#!/does/not/exist\n", 0o755, "its first line names does not exist"),
        ("x", "just text\n", 0o755, "Exec format error"),
        ("x\0y", "", 0o755, "null byte"),
    ],
)
def test_what_cannot_be_started_is_one_clear_error(
    manager: ServiceManager, tmp_path: Path, name: str, text: str, mode: int, said: str
) -> None:
    executable(tmp_path / "x", text)
    (tmp_path / "x").chmod(mode)
    with pytest.raises(PikaError, match="device/x: cannot start ") as caught:
        manager.start("device/x", f"{tmp_path}/{name}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not manager.services


def test_an_id_is_used_once(manager: ServiceManager, service: ServiceClient) -> None:
    with pytest.raises(PikaError, match="device/d: a service of this id runs already"):
        manager.start(service.service_id, str(SERVICE))


def test_a_service_is_started_as_upstream_does(manager: ServiceManager, tmp_path: Path) -> None:
    path = executable(
        tmp_path / "show",
        f"#!{sys.executable}\nimport os, sys\n"
        "print(sys.argv[1:4:2], sys.argv[2], sys.argv[5:], os.environ['PYTHONUNBUFFERED'])\n"
        "print(sorted(os.environ), sys.stdin.read(), os.path.samefile(1, 2))\n"
        "os.chdir('/proc/self/fd')\n"
        "fds = {fd for fd in os.listdir() if os.path.exists(fd)}\n"
        "print(fds == {'0', '1', '2', sys.argv[4]})\n",
    )
    service = manager.start("input/x", path, "more")
    service.process.wait()
    service.stop()
    names = sorted({*os.environ, "PYTHONPATH", "PYTHONUNBUFFERED"})
    assert list(service.lines) == [
        "['--service-id', '--service-fd'] input/x ['more'] 1",
        f"{names}  True",
        "True",
    ]


def test_the_environment_may_be_empty(tmp_path: Path) -> None:
    path = executable(tmp_path / "show", "#!/usr/bin/env -S /bin/sh\nexport -p\n")
    with ServiceManager(environment={}) as manager:
        service = manager.start("input/x", path)
        service.process.wait()
        service.stop()
    assert "HOME" not in "".join(service.lines)
    assert "PYTHONUNBUFFERED" in "".join(service.lines)


def test_a_service_started_by_hand_says_how_it_is_used(
    manager: ServiceManager, tmp_path: Path
) -> None:
    service = manager.start("x", executable(tmp_path / "hand", f"#!/bin/sh\nexec {SERVICE}\n"))
    service.process.wait()
    assert service.stop() == 1
    assert service.lines[-1].endswith("a manager starts this, with --service-id ID --service-fd N")
