"""The shell form: exit codes, one line on standard error, one note per sandbox."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import PYTHONS, Peer, environment, interpreter

from osbuild_pika import wire
from osbuild_pika.inside import report

Capture = pytest.CaptureFixture[str]
CALL = "import sys; from osbuild_pika.inside import report; sys.exit(report.main({!r}, {!r}))"


@pytest.fixture(name="peer")
def fixture_peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path / "device") as peer:
        yield peer


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (["event", "up"], ("event", {"message": "up"})),
        (["event", "--", "--name"], ("event", {"message": "--name"})),
        (
            ["event", "up", "--name", "demo.up", "--details-json", '{"a": [1]}'],
            ("event", {"message": "up", "name": "demo.up", "details": {"a": [1]}}),
        ),
        (["progress", "3"], ("progress", {"done": 3, "total": None, "unit": ""})),
        (
            ["progress", "1.5", "3", "--unit", "MB", "--message", "m"],
            ("progress", {"done": 1.5, "total": 3, "unit": "MB", "message": "m"}),
        ),
        (["artifact", "disk.img"], ("artifact", {"path": "disk.img", "details": None})),
        (
            ["artifact", "/run/osbuild/tree/x", "--message", "m", "--details-json", '{"n": 1}'],
            ("artifact", {"path": "x", "details": {"n": 1}, "message": "m"}),
        ),
        (["result", "completed", "ok"], ("result", {"status": "completed", "message": "ok"})),
        (
            ["result", "failed", "no", "--exit-code", "3", "--details-json", "[]"],
            ("result", {"status": "failed", "message": "no", "exit_code": 3, "details": []}),
        ),
        (["flush"], ("flush", {})),
    ],
)
def test_a_line_becomes_a_call(
    line: list[str], call: tuple[str, object], peer: Peer, capfd: Capture
) -> None:
    assert report.main(line, peer.path) == 0
    assert peer.calls == [call]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["evnt", "x"],
        ["event"],
        ["event", "a", "b"],
        ["event", "a", "--kind", "ready"],
        ["event", "a", "--name"],
        ["event", "a", "--details-json", "{'a': 1}"],
        ["event", "a", "--details-json", "NaN"],
        ["event", "a", "--details-json", '{"a": 1, "a": 2}'],
        ["artifact", "x", "--details-json", "[1]"],
        ["artifact", "x", "--details-json", '{"path": 1}'],
        ["progress"],
        ["progress", "some"],
        ["progress", "1", "inf"],
        ["progress", "--", "-1"],
        ["progress", "1", "2", "3"],
        ["result", "done", "x"],
        ["result", "completed"],
        ["result", "failed", "x", "--exit-code", "one"],
        ["flush", "now"],
        ["\udcff\n"],
    ],
)
@pytest.mark.parametrize("with_device", [True, False])
def test_wrong_arguments_are_one_line(
    line: list[str], with_device: bool, peer: Peer, capfd: Capture
) -> None:
    device = peer.path if with_device else "/nowhere/device"
    assert report.main(line, device) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("osbuild-pika: InvalidArgument: ")
    assert said.err.count("\n") == 1
    assert not peer.calls


@pytest.mark.parametrize("line", [["--help"], ["-h"], ["event", "--help"], ["flush", "-h"]])
def test_help_names_every_verb(line: list[str], capfd: Capture) -> None:
    assert report.main(line) == 0
    shown = capfd.readouterr().out
    for verb in ("event", "progress", "artifact", "result", "flush"):
        assert f"\n  {verb}" in shown


def test_what_is_refused_or_lost_is_exit_1(tmp_path: Path, capfd: Capture) -> None:
    answers = iter([wire.Failure("Limit", "the quota is used up", ""), None])
    with Peer(tmp_path / "device", lambda *_: next(answers)) as peer:
        assert report.main(["event", "x"], peer.path) == 1
        assert report.main(["event", "x"], peer.path) == 1
    assert report.main(["event", "x"], peer.path) == 1  # its socket is still there
    lines = capfd.readouterr().err.split("\n")
    assert lines[0] == "osbuild-pika: Limit: event: the quota is used up"
    assert [line.split(":")[1] for line in lines[1:-1]] == [" Lost", " Lost"]


def test_without_a_device_a_sandbox_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(report, "SANDBOX", str(tmp_path))
    marker = tmp_path / "marker"
    lines = [["event", "x"], ["progress", "1"], ["flush"]]
    codes = [report.main(line, "/nowhere/device", str(marker)) for line in lines]
    assert codes == [0, 0, 0]
    assert capfd.readouterr().err == (
        "osbuild-pika: this stage has no lifecycle device: what it reports goes nowhere\n"
    )
    assert marker.stat().st_size == 0


def test_the_marker_follows_no_link_and_none_is_left_outside_a_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    victim, marker = tmp_path / "victim", tmp_path / "marker"
    assert report.main(["flush"], "/nowhere/device", str(marker)) == 0
    assert not marker.exists()
    monkeypatch.setattr(report, "SANDBOX", str(tmp_path))
    marker.symlink_to(victim)
    assert report.main(["flush"], "/nowhere/device", str(marker)) == 0
    assert not victim.exists()
    assert report.main(["flush"], "/nowhere/device", "/nowhere/marker") == 0
    assert capfd.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("python", PYTHONS)
def test_it_runs_in_every_python_of_a_build_root(python: str, peer: Peer) -> None:
    found = interpreter(python)
    for line in (["event", "caf\udce9", "--details-json", '{"n": 1}'], ["result", "failed", "no"]):
        command = [found, "-S", "-c", CALL.format(line, peer.path)]
        subprocess.run(command, env=environment(), check=True)
    assert peer.calls == [
        ("event", {"message": "caf\\udce9", "details": {"n": 1}}),
        ("result", {"status": "failed", "message": "no"}),
    ]
    module = [found, "-S", "-m", "osbuild_pika.inside.report"]
    shown = subprocess.run([*module, "--help"], env=environment(), check=True, capture_output=True)
    assert shown.stdout.startswith(b"usage: ")
    done = subprocess.run(module, env=environment(), check=False, capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_a_call_loads_little() -> None:
    code = "import sys, osbuild_pika.inside.report; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = sys.argv[1:]; {code}"]
    path = environment()["PYTHONPATH"]
    loaded = subprocess.run([*command, path], check=True, capture_output=True).stdout
    slow = {"typing", "dataclasses", "asyncio", "logging", "pathlib", "argparse", "threading"}
    slow |= {"subprocess", "inspect", "enum", "json", "re"}
    assert not slow & set(loaded.decode().split())
