"""How a stage ends is told to everybody: the device, the engine, the user, the exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import PACKAGE, PYTHONS, Engine, Peer, environment, interpreter

from osbuild_pika.inside import stage

DEMO = PACKAGE / "stages/org.osbuild-pika.demo"
SCRIPT = """
import os, signal, subprocess, sys, time
from osbuild_pika.inside import stage
{}
stage.run(main, "arguments", "api")
"""


class Sandbox:
    """A directory that has what a stage finds: arguments, device, engine's socket."""

    def __init__(self, place: Path, peer: Peer | None, engine: Engine) -> None:
        self.place, self.peer, self.engine = place, peer, engine
        self.tree = place / "tree"
        self.tree.mkdir()
        life = {"path": peer.path, "api": 1, "run": "web"} if peer else {}
        self.arguments: dict[str, Any] = {
            "tree": str(self.tree),
            "paths": {"devices": "/dev"},
            "devices": {"disk": {"path": "/dev/loop0"}, "lifecycle": life},
            "inputs": {"packages": {"path": "/run/osbuild/inputs/packages"}},
            "mounts": {},
            "options": {"n": 3},
            "meta": {"id": "abc"},
        }

    def run(self, body: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        """Run a stage named my-stage with this definition of main."""
        (self.place / "arguments").write_text(json.dumps(self.arguments))
        (self.place / "my-stage").write_text(SCRIPT.format(body))
        return subprocess.run(
            [python, "my-stage"],
            cwd=self.place,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def last(self) -> Any:
        """The last call to the device."""
        assert self.peer is not None
        return self.peer.calls[-1]


@pytest.fixture(name="sandbox")
def fixture_sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Peer(tmp_path / "device") as peer, Engine(tmp_path / "api") as engine:
        yield Sandbox(tmp_path, peer, engine)


@pytest.mark.parametrize("python", PYTHONS)
def test_a_stage_works_reports_and_ends(python: str, sandbox: Sandbox) -> None:
    body = """
def main(tree, options, report):
    (tree / "made").write_text(str(options["n"]))
    report.event("made it")
    report.progress(1, 9)
    report.progress(2, 9)
    return "all well"
"""
    done = sandbox.run(body, interpreter(python))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (sandbox.tree / "made").read_text() == "3"
    assert sandbox.peer is not None
    assert [name for name, _ in sandbox.peer.calls] == ["event", "progress", "progress", "result"]
    assert sandbox.last()[1] == {"status": "completed", "message": "all well", "exit_code": 0}
    assert sandbox.engine.packets() == []


def test_main_gets_what_it_names(sandbox: Sandbox) -> None:
    body = """
def main(inputs, tree, *, meta, devices, mounts, paths, extra=5):
    print([inputs["packages"]["path"], str(tree), meta, devices["disk"], mounts, paths, extra])
"""
    done = sandbox.run(body)
    given = sandbox.arguments
    assert done.stdout == "{}\n".format(
        [
            given["inputs"]["packages"]["path"],
            given["tree"],
            given["meta"],
            given["devices"]["disk"],
            given["mounts"],
            given["paths"],
            5,
        ]
    )
    assert sandbox.last() == ("result", {"status": "completed", "message": "done", "exit_code": 0})


@pytest.mark.parametrize(
    ("line", "message", "kind"),
    [
        ("raise stage.StageError('no kernel: add one\\nmore')", "no kernel: add one", "StageError"),
        (
            "open('/nowhere/x')",
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'",
            "FileNotFoundError",
        ),
        (
            "subprocess.run(['false'], check=True)",
            "CalledProcessError: Command '['false']' returned non-zero exit status 1.",
            "CalledProcessError",
        ),
    ],
)
def test_an_expected_failure_is_one_line(
    line: str, message: str, kind: str, sandbox: Sandbox
) -> None:
    done = sandbox.run(f"def main(): {line}")
    assert done.returncode == 1
    assert done.stderr == f"osbuild-pika: my-stage: {message}\n"
    assert sandbox.last() == ("result", {"status": "failed", "message": message, "exit_code": 1})
    (packet,) = sandbox.engine.packets()
    assert packet["method"] == "exception"
    assert packet["exception"]["type"] == kind
    assert "in main" in packet["exception"]["traceback"]


def test_a_bug_keeps_its_traceback(sandbox: Sandbox) -> None:
    done = sandbox.run("def main(): {}['key']")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("KeyError: 'key'\n")
    result = {"status": "failed", "message": "KeyError: 'key'", "exit_code": 2}
    assert sandbox.last() == ("result", result)
    (packet,) = sandbox.engine.packets()
    assert set(packet["exception"]) == {"type", "value", "traceback"}
    assert packet["exception"]["value"] == "'key'"


@pytest.mark.parametrize("wrong", ["0", "1", "True", "b'x'"])
def test_a_status_returned_as_in_upstreams_stages_is_a_bug(wrong: str, sandbox: Sandbox) -> None:
    done = sandbox.run(f"def main(): return {wrong}")
    assert done.returncode == 2
    assert "to fail, raise StageError" in done.stderr


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("None", 0, "done"),
        ("0", 0, "done"),
        ("7", 7, "exited with status 7"),
        ("-1", 255, "exited with status 255"),
        ("'no luck'", 1, "no luck"),
    ],
)
def test_sys_exit_keeps_its_code(code: str, status: int, message: str, sandbox: Sandbox) -> None:
    done = sandbox.run(f"def main(): sys.exit({code})")
    assert done.returncode == status
    word = "failed" if status else "completed"
    result = {"status": word, "message": message, "exit_code": status}
    assert sandbox.last() == ("result", result)
    assert "Traceback" not in done.stderr
    assert sandbox.engine.packets() == []


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGTERM, 143, "terminated by SIGTERM"),
        (signal.SIGINT, 130, "interrupted by SIGINT"),
    ],
)
def test_a_signal_is_told_as_the_result(
    number: int, status: int, message: str, sandbox: Sandbox
) -> None:
    kill = f"os.kill(os.getpid(), {number:d})"
    done = sandbox.run(f"def main():\n    {kill}\n    time.sleep(60)")
    assert done.returncode == status
    assert done.stderr == f"osbuild-pika: my-stage: {message}\n"
    assert sandbox.last()[1] == {"status": "failed", "message": message, "exit_code": status}
    assert sandbox.engine.packets() == []


def test_a_result_of_its_own_stays_the_result(sandbox: Sandbox) -> None:
    done = sandbox.run("def main(report): report.result('completed', 'mine', details=[1])")
    assert done.returncode == 0
    assert sandbox.peer is not None
    assert sandbox.peer.named("result") == [
        {"status": "completed", "message": "mine", "details": [1]}
    ]


@pytest.mark.parametrize("has_engine", [True, False])
def test_without_a_device_it_runs_too(has_engine: bool, tmp_path: Path) -> None:
    with Engine(tmp_path / ("api" if has_engine else "elsewhere")) as engine:
        sandbox = Sandbox(tmp_path, None, engine)
        done = sandbox.run("def main(report): report.event('x'); raise stage.StageError('no')")
        assert len(engine.packets()) == has_engine
    assert done.returncode == 1
    assert done.stderr == (
        "osbuild-pika: this stage has no lifecycle device: what it reports goes nowhere\n"
        "osbuild-pika: my-stage: no\n"
    )


def test_a_lost_device_never_fails_a_stage(sandbox: Sandbox) -> None:
    assert sandbox.peer is not None
    sandbox.peer.end()
    done = sandbox.run("def main(report): report.event('x')")
    assert done.returncode == 0
    assert done.stderr.startswith("osbuild-pika: Lost: ")
    assert done.stderr.count("\n") == 1


def test_a_stage_started_by_hand_says_what_it_lacks(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, DEMO], env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "arguments cannot be read, which osbuild gives it" in done.stderr
    assert done.stderr.count("\n") == 1
    broken = tmp_path / "arguments"
    for text in ("[]", "{", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        broken.write_text(text)
        with pytest.raises(stage.StageError):
            stage.arguments(str(broken))


def test_a_long_exception_still_reaches_the_engine(sandbox: Sandbox) -> None:
    body = "def main(): raise stage.StageError('\\udcff' * 300000)"
    done = sandbox.run(body)
    assert done.returncode == 1
    assert len(sandbox.last()[1]["message"]) <= 16 * 1024
    (packet,) = sandbox.engine.packets()
    assert len(packet["exception"]["value"]) <= stage.MAX_TEXT
