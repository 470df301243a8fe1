"""What a stage tells arrives as it is meant, and reporting never fails a build."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Peer, acknowledge

from osbuild_pika import wire
from osbuild_pika.inside import reporter
from osbuild_pika.inside.report import Reporter

Capture = pytest.CaptureFixture[str]


@pytest.fixture(name="peer")
def fixture_peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path / "device") as peer:
        yield peer


def test_every_call_arrives_as_the_contract_says(peer: Peer) -> None:
    with Reporter.connect(peer.path) as report:
        assert report.event("one") == 1
        assert report.event("two", {"n": [1]}, "demo.two") == 2
        assert report.events([{"message": "a"}, {"message": "b", "name": "x"}]) == 4
        assert report.progress(1, 3, "files", "unpacking") == 4
        assert report.artifact("boot/vmlinuz", size_bytes=3) == 5
        report.result("completed", "done", 0, {"n": 1})
        assert report.flush() == 7
    assert peer.calls == [
        ("event", {"message": "one"}),
        ("event", {"message": "two", "details": {"n": [1]}, "name": "demo.two"}),
        ("events", {"items": [{"message": "a"}, {"message": "b", "name": "x"}]}),
        ("progress", {"done": 1, "total": 3, "unit": "files", "message": "unpacking"}),
        ("artifact", {"path": "boot/vmlinuz", "details": {"size_bytes": 3}}),
        (
            "result",
            {"status": "completed", "message": "done", "exit_code": 0, "details": {"n": 1}},
        ),
        ("flush", {}),
    ]
    assert peer.connections == 1


def test_an_artifact_is_named_below_the_tree(peer: Peer) -> None:
    with Reporter({"path": peer.path}, tree="/run/osbuild/tree") as report:
        for path in ("/run/osbuild/tree/a/b", "/run/osbuild//tree/./a/b", "./a//b", Path("a/b")):
            report.artifact(path, message="the image")
        report.artifact("../a")
    artifact = {"path": "a/b", "details": None, "message": "the image"}
    assert peer.named("artifact") == [artifact] * 4 + [{"path": "../a", "details": None}]


@pytest.mark.parametrize(
    ("devices", "shown"),
    [
        ({}, "no lifecycle device"),
        ({"disk": {"path": "/dev/loop0"}, "odd": []}, "no lifecycle device"),
        ({"life": {"api": 2, "run": "web", "path": "/nowhere"}}, "no lifecycle device"),
        ({"life": {"api": 1, "degraded": "the disk\nis full"}}, "(the disk is full)"),
        ({"life": {"api": 1, "run": "web", "path": "/nowhere/x"}}, "no lifecycle device"),
    ],
)
def test_without_the_device_it_says_so_once_and_does_nothing(
    devices: dict[str, Any], shown: str, capfd: Capture
) -> None:
    with Reporter.from_devices(devices) as report:
        assert report.event("a") is None
        assert report.progress(1, 1) is None
        assert report.flush() is None
        report.result("completed", "done")
    said = capfd.readouterr().err
    assert shown in said
    assert said.count("\n") == 1
    assert not report.errors


def test_the_device_is_known_by_its_reply(peer: Peer) -> None:
    ours = {"path": peer.path, "api": 1, "run": "web", "limits": {"packet": 300}}
    with Reporter.from_devices({"disk": {"path": "/dev/loop0"}, "any-name": ours}) as report:
        report.event("a")
        report.event("b" * 300)
    assert peer.calls == [("event", {"message": "a"})]
    assert report.errors == ["TooLarge"]


def test_what_is_refused_is_said_once_per_name_and_the_stage_goes_on(
    tmp_path: Path, capfd: Capture
) -> None:
    names = iter(["Limit", "Limit", "NoSpace", "Limit"])

    def refuse(call: wire.Method, number: int) -> wire.Message:
        if number > 4:
            return acknowledge(call, number)
        return wire.Failure(next(names), f"why\n\x1b[31m{number}", "")

    with Peer(tmp_path / "device", refuse) as peer, Reporter.connect(peer.path) as report:
        assert [report.event("x") for _ in range(5)] == [None] * 4 + [5]
    assert capfd.readouterr().err.split("\n") == [
        "osbuild-pika: Limit: event: why \ufffd[31m1",
        "osbuild-pika: NoSpace: event: why \ufffd[31m3",
        "",
    ]


def hang_up(call: wire.Method, number: int) -> None:
    return None


def test_a_call_back_is_no_answer(tmp_path: Path) -> None:
    def call_back(call: wire.Method, number: int) -> wire.Message:
        return wire.Method("hello", {})

    with Peer(tmp_path / "device", call_back) as peer, Reporter.connect(peer.path) as report:
        assert report.event("x") is None
    assert report.errors == ["Lost"]


@pytest.mark.parametrize("answer", [b"no json", b'{"type": "reply", "data": {}}'])
def test_garbage_is_a_loss(answer: bytes, tmp_path: Path, capfd: Capture) -> None:
    with (
        Peer(tmp_path / "device", lambda *_: answer) as peer,
        Reporter.connect(peer.path) as report,
    ):
        assert report.event("x") is None
    assert report.errors == ["Lost"]
    assert capfd.readouterr().err.count("\n") == 1


def test_the_loss_of_the_service_is_said_once_and_the_stage_goes_on(
    tmp_path: Path, capfd: Capture
) -> None:
    with Peer(tmp_path / "device", hang_up) as peer, Reporter.connect(peer.path) as report:
        assert [report.event("x") for _ in range(3)] == [None] * 3
        report.result("completed", "done")
    assert len(peer.calls) == 1
    assert report.errors == ["Lost"]
    assert not report.has_result
    said = capfd.readouterr().err
    assert "Lost: the lifecycle service is gone" in said
    assert said.count("\n") == 1


def test_a_service_that_hangs_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    was_left = threading.Event()

    def hang(call: wire.Method, number: int) -> None:
        was_left.wait(30)

    monkeypatch.setattr(reporter, "ANSWER_TIMEOUT_S", 1)
    with Peer(tmp_path / "device", hang) as peer, Reporter.connect(peer.path) as report:
        assert report.event("x") is None
        assert report.event("y") is None
        was_left.set()
    assert report.errors == ["Lost"]
    assert "gave no answer for 1 s" in capfd.readouterr().err


def test_a_service_that_died_between_calls_costs_no_signal(peer: Peer) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with Reporter.connect(peer.path) as report:
            report.event("x")
            peer.end()
            assert report.event("y") is None
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert report.errors == ["Lost"]


def test_signals_and_unknown_types_before_an_answer_are_skipped(tmp_path: Path) -> None:
    one, other = wire.Connection.pair()
    for message in (wire.Signal(1), wire.Unknown("news"), wire.Reply({"seq": 7})):
        other.send(wire.encode(message))
    assert reporter._receive(one) == wire.Reply({"seq": 7})
    one.close()
    other.close()


def test_text_is_made_safe(peer: Peer) -> None:
    with Reporter.connect(peer.path) as report:
        report.event("a\udcff\u20ac", {"k\udc80": ["\udcfe", "\U0001f600", 1, (2,)]})
        report.artifact(b"caf\xe9")
        report.event("\\ud plain")
        assert not report.errors
    assert peer.named("event") == [
        {
            "message": "a\\udcff\u20ac",
            "details": {"k\\udc80": ["\\udcfe", "\U0001f600", 1, [2]]},
        },
        {"message": "\\ud plain"},
    ]
    assert peer.named("artifact") == [{"path": "caf\\udce9", "details": None}]


@pytest.mark.parametrize("char", ["m", "\u00e9", "\u20ac", "\U0001f600"])
def test_a_message_is_cut_between_characters(char: str, peer: Peer) -> None:
    with Reporter.connect(peer.path) as report:
        report.event("x" + char * 20000)
    message = peer.calls[0][1]["message"]
    assert message == "x" + char * (len(message) - 1)
    assert 16 * 1024 - 4 < len(message.encode()) <= 16 * 1024


def test_what_is_too_large_is_refused_here(peer: Peer, capfd: Capture) -> None:
    with Reporter.connect(peer.path) as report:
        assert report.event("big", "d" * (128 * 1024)) is None
        assert report.event("next", "d" * (127 * 1024)) == 1
    assert report.errors == ["TooLarge"]
    assert "at most 131072" in capfd.readouterr().err
    assert max(peer.sizes) <= 128 * 1024


def test_details_that_are_not_json_are_refused_here(peer: Peer) -> None:
    cycle: list[Any] = []
    cycle += [cycle, cycle, "\udcff"]
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 50):
        deep = [deep]
    with Reporter.connect(peer.path) as report:
        for details in ({1, 2}, cycle, deep, {(1, 2): 3}, Path("x")):
            assert report.event("x", details) is None
        report.progress("many", {1})  # type: ignore[arg-type]
        assert report.event("y") == 1
    assert report.errors == ["InvalidArgument"]


@pytest.mark.parametrize("message", [1, None, b"bytes", Path("x")])
def test_a_message_that_is_no_text_is_a_bug(message: Any, peer: Peer) -> None:
    with Reporter.connect(peer.path) as report, pytest.raises(TypeError, match="not a string"):
        report.event(message)


def test_threads_get_their_own_answers(tmp_path: Path) -> None:
    def echo(call: wire.Method, number: int) -> wire.Message:
        return wire.Reply({"seq": int(call.args["message"])})

    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 50):
            if report.event(str(number)) != number:
                wrong.append(number)

    with Peer(tmp_path / "device", echo) as peer, Reporter.connect(peer.path) as report:
        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(peer.calls) == 200


def test_an_interrupted_call_does_not_mix_up_the_answers(tmp_path: Path) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    def slowly(call: wire.Method, number: int) -> wire.Message:
        time.sleep(0.3 if call.args["message"] == "slow" else 0)
        return wire.Reply({"seq": {"slow": 1, "next": 2}[call.args["message"]]})

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Peer(tmp_path / "device", slowly) as peer, Reporter.connect(peer.path) as report:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Alarm):
                report.event("slow")
            assert report.event("next") == 2
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not report.errors


def test_a_forked_child_reports_on_its_own_connection(peer: Peer) -> None:
    with Reporter.connect(peer.path) as report:
        report.event("parent")
        report.progress(1, 9)
        report.progress(2, 9)  # held back: the parent's to send
        child = os.fork()
        if child == 0:
            is_good = report.event("child") is not None and not report.errors
            os._exit(0 if is_good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert peer.connections == 2
    assert [args.get("done", args.get("message")) for _, args in peer.calls] == [
        "parent",
        1,
        "child",
        2,
    ]
