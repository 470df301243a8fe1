"""How a run ends: whoever dies or leaves, and in whatever order, its verdict is there and true."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import document, snapshot
from services import (
    ROOT,
    SOON_S,
    STAGE,
    Lifecycle,
    engine,
    lifecycle,
    names,
    verdict,
)

STARTED = ["build.accepted", "build.started", "stage.started"]  # without an owner
FINAL = {**STAGE, "run": "web", "final": True}
LOST = ("failed", 137, "engine.lost")
# A stage in a process of its own: connects to the socket argv[1], says what it is told and ends.
STAGE_PROCESS = """
import os, sys
from services import Client
stage = Client(sys.argv[1])
stage.call("event", message="hello")
print("ready", flush=True)
sys.stdin.read()
{}
"""


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Iterator[Lifecycle]:
    with lifecycle(tmp_path) as service:
        yield service


class Stage:
    """A stage that is a process, in a pid namespace of its own if there is a command before."""

    def __init__(self, node: Path, last: str, *before: str) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", STAGE_PROCESS.format(last), str(node)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/test"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"

    def end(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(SOON_S)


# --- without an owner: upstream's engine ---------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"status": "completed"}, ("completed", 0, "build.completed")),
        ({"status": "failed", "exit_code": 7}, ("failed", 7, "build.failed")),
    ],
)
def test_the_final_stages_result_is_the_runs(
    result: dict[str, object], said: tuple[str, int, str], service: Lifecycle
) -> None:
    service.open(FINAL)
    with service.connect() as stage:
        stage.call("result", message="m", **result)
        assert stage.error("event", message="late") == "AlreadyFinished"
    service.stop()
    assert verdict(service.run) == said


def test_a_final_stage_that_lives_on_was_interrupted(service: Lifecycle) -> None:
    service.open(FINAL)
    with service.connect() as stage:
        stage.call("event", message="m")
        service.stop()
    assert verdict(service.run) == ("failed", 130, "interrupted")
    assert names(service.run) == [*STARTED, "stage.note", "interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("", 1),
        ("sys.exit(7)", 7),
        ("os.kill(os.getpid(), 9)", 137),
    ],
)
def test_a_final_stage_that_ends_without_a_result_failed(
    last: str, code: int, service: Lifecycle
) -> None:
    service.open(FINAL)
    Stage(service.node, last).end()
    service.stop()
    assert verdict(service.run) == ("failed", code, "stage.ended")
    assert names(service.run)[3:] == ["stage.note", "stage.ended", "stage.ended"]


SHELL_STAGE = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdin=subprocess.DEVNULL)
print("went", flush=True)
sys.stdin.read()
sys.exit(5)
"""


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_stage_counts_not_the_clients_that_it_starts(is_ended: bool, service: Lifecycle) -> None:
    service.open(FINAL)
    sandbox = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; exit', "sh"]
    stage = [sys.executable, "-c", SHELL_STAGE, STAGE_PROCESS.format(""), str(service.node)]
    with subprocess.Popen(
        sandbox + stage,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/test"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"went\n"]
        if is_ended:
            process.stdin.close()
            process.wait(SOON_S)
        service.stop()
    said = ("failed", 5, "stage.ended") if is_ended else ("failed", 130, "interrupted")
    assert verdict(service.run) == said


def test_a_final_stage_that_never_spoke_ended(service: Lifecycle) -> None:
    service.open(FINAL)
    service.stop()
    assert verdict(service.run) == ("failed", 1, "stage.ended")


def test_the_other_stages_leave_the_run_open(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as service:
        service.open({**STAGE, "run": "web"})
        with service.connect() as stage:
            stage.call("result", status="failed", message="m")
    assert names(service.run) == [*STARTED, "stage.failed"]
    with lifecycle(tmp_path) as service:
        assert service.open(FINAL)["run"] == "web"
        with service.connect() as stage:
            stage.call("result", status="completed", message="m")
    assert names(service.run)[4:] == ["stage.started", "stage.finished", "build.completed"]
    assert verdict(service.run)[0] == "completed"


# --- with an owner -------------------------------------------------------------------------------


def test_an_owner_that_leaves_without_a_result_is_lost(service: Lifecycle) -> None:
    service.own()
    service.stop()
    assert verdict(service.run) == LOST
    assert service.lines == ["the engine left without saying how the build ended"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143), (signal.SIGSEGV, 139)]
)
@pytest.mark.parametrize("script", ["service.own('web')", f"service.open({FINAL})"])
def test_an_engine_that_dies_fails_its_run(
    number: int, code: int, script: str, tmp_path: Path
) -> None:
    with engine(tmp_path, script) as build:
        build.end(number)
        assert verdict(build.run) == ("failed", code, "engine.lost")


def test_an_engine_that_dies_beside_a_living_stage_fails_its_run(tmp_path: Path) -> None:
    with engine(tmp_path, f"service.own('web'); service.open({FINAL})") as build:
        stage = Stage(build.node, "")
        build.end(signal.SIGKILL)
        assert verdict(build.run) == LOST
        assert stage.end() == 0


def test_a_stage_that_says_completed_before_its_engine_dies_changes_nothing(
    tmp_path: Path,
) -> None:
    script = f"""
        service.own('web'); service.open({FINAL})
        service.connect().call("result", status="completed", message="all is well")
    """
    with engine(tmp_path, script) as build:
        build.end(signal.SIGKILL)
        assert verdict(build.run) == LOST
        assert names(build.run) == ["build.accepted", "stage.finished", "engine.lost"]


def test_a_verdict_is_not_changed_by_what_comes_after(tmp_path: Path) -> None:
    script = "service.own('web'); service.call('result', status='completed', message='m')"
    with engine(tmp_path, script) as build:
        before = snapshot(build.run)
        build.end(signal.SIGKILL)
        assert snapshot(build.run) == before
        assert verdict(build.run) == ("completed", 0, "build.completed")


def test_an_engine_and_a_service_that_both_die_leave_a_run_for_the_next_to_seal(
    tmp_path: Path,
) -> None:
    with engine(tmp_path, "service.own('web')") as build:
        build.kill_service()
        with lifecycle(tmp_path) as service:
            service.own("first")
            assert names(build.run) == ["build.accepted"], "its engine lives"
        build.end(signal.SIGKILL)
        assert names(build.run) == ["build.accepted"]
        with lifecycle(tmp_path) as service:
            service.own("second")
            assert verdict(build.run) == LOST


# --- what does not end it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE]
)
def test_no_signal_that_is_sent_to_a_group_ends_the_service(
    number: int, service: Lifecycle
) -> None:
    service.own()
    service.service.process.send_signal(number)
    service.call("result", status="completed", message="m")
    assert service.stop() == 0
    assert verdict(service.run)[0] == "completed"


def test_the_service_has_a_session_of_its_own(service: Lifecycle) -> None:
    service.own()
    assert os.getsid(service.pid) == service.pid
    assert os.getpgid(service.pid) == service.pid


def test_a_reader_of_its_output_that_is_gone_does_not_keep_it_from_the_end(
    tmp_path: Path,
) -> None:
    # The engine's death closes the pipe that the service prints to, and it prints the end.
    with engine(tmp_path, f"service.open({FINAL})") as build:
        build.end(signal.SIGKILL)
        assert verdict(build.run) == LOST


def test_waiting_costs_nothing(service: Lifecycle) -> None:
    service.own()
    service.open()
    with service.connect() as stage:
        stage.call("event", message="m")
        used = cpu_ticks(service.pid)
        select.select([], [], [], 0.5)  # what is measured: half a second of nothing
        assert cpu_ticks(service.pid) == used


def cpu_ticks(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[11:13]


def test_starting_loads_no_more_than_is_needed() -> None:
    code = "import sys, osbuild_pika.lifecycle_service.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"asyncio", "subprocess", "threading", "hashlib", "click", "inspect"}


def test_a_run_that_is_over_has_no_reserve_any_more(service: Lifecycle) -> None:
    service.own()
    assert (service.run / ".reserve").stat().st_size == 128 * 1024
    service.call("result", status="completed", message="m")
    assert not (service.run / ".reserve").exists()
    assert document(service.run, "status")["state"] == "completed"
