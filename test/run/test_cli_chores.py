"""`osbuild-pika gc`, `doctor` and `cancel` on real stores and builds."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import builds
import pytest
from builds import Place, manifest, named, sh
from click.testing import CliRunner, Result

from osbuild_pika import runs
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.lifecycle import Journal

SLOW = sh("echo at work; sleep 600")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    builds.needs_root()
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OSBUILD_PIKA_STORE", str(tmp_path / "store"))
    return Place(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(osbuild_pika, arguments)


def dead_run(place: Place) -> Path:
    """A run whose engine is gone, and what it left in the store."""
    gone = runs.Engine(2**22 - 3, 1, runs.engine_of(os.getpid()).boot_id)
    run = runs.join(str(place.path / "runs"), "dead", gone)
    with Journal(run.directory) as journal:
        journal.append("provisioning", "at work")
    run.close()
    (place.path / "store/tmp/dead/1").mkdir(parents=True)
    return place.path / "runs" / run.id


def test_gc_ends_what_died_and_makes_room(place: Place) -> None:
    what = manifest(sh("head -c 1000000 /dev/urandom > a"), sh("echo 2 > b"))
    place.build(what)
    run = dead_run(place)
    lines = call("gc").stdout.splitlines()
    assert lines[0] == "runs: 1 (dead) ended that had died"
    assert lines[1] == "left over: 1 (dead) deleted"
    assert lines[2] == "stages: 0 deleted, 0 B"
    assert builds.ended(run)["details"]["event"] == "engine.lost"
    assert os.listdir(place.path / "store/tmp") == []
    lines = call("gc", "--max-size", "990kB").stdout.splitlines()
    assert lines[2].startswith("stages: 2 deleted, 9")
    assert lines[3:] == ["downloads: 0 deleted, 0 B", f"store: {place.path}/store keeps 0 B"]
    assert len(named(place.build(what)[1], "stage.finished")) == 2


def test_gc_leaves_what_a_build_uses(place: Place) -> None:
    with place.started(place.order(manifest(sh("true"), SLOW))) as started:
        started.until(lambda record: record.get("text") == "at work\n")
        assert "stages: 0 deleted" in call("gc", "--max-size", "0").stdout
        assert "left over: 0 deleted" in call("gc", "--max-size", "0").stdout


def test_gc_makes_no_store(place: Place) -> None:
    assert "is not there" in call("gc").stdout
    assert not (place.path / "store").exists()


def test_doctor_says_that_this_host_can_build(place: Place) -> None:
    place.build(manifest(sh("true")))
    done = call("doctor")
    assert done.exit_code == 0, done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()} <= {"ok", "note"}
    found = {each["name"] for each in json.loads(call("doctor", "--json").stdout)["checks"]}
    assert {"programs", "subordinate ids", "namespaces", "sandbox", "overlay", "room"} <= found


def test_doctor_answers_where_few_processes_are_seen(place: Place) -> None:
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    doctor = (sys.executable, "-c", "from osbuild_pika.cli import main; main()", "doctor")
    apart = ("sh", "-c", 'echo 1000 > /proc/sys/kernel/ns_last_pid; "$@"', "sh")
    done = subprocess.run(
        [*alone, *apart, *doctor],
        capture_output=True,
        text=True,
        check=False,
        timeout=builds.TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_says_why_this_host_cannot_build(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = place.path / "bin"
    programs.mkdir()
    for name in ("unshare", "nsenter", "setpriv", "tar", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    done = call("doctor")
    assert done.exit_code == 3
    assert "problem  programs           no bwrap; fix: apt-get install bubblewrap" in done.stdout


def test_cancel_ends_a_build(place: Place) -> None:
    with place.started(place.order(manifest(SLOW))) as started:
        started.until(lambda record: record.get("text") == "at work\n")
        done = call("cancel", "test", "--wait", "30s")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("test: failed in ")
        assert started.process.wait(builds.TIMEOUT_S) == 143
    assert builds.ended(place.path / "runs/test")["details"]["event"] == "interrupted"
    done = call("cancel", "test")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "test had ended before" in done.stderr


def test_cancel_reaches_nobody_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *what: sent.append(what))
    mine = runs.engine_of(os.getpid())
    for changed in (mine._replace(start_time=1), mine._replace(boot_id="0")):
        run = runs.join(str(place.path / "runs"), "other", changed)
        run.close()
        assert call("cancel", run.id).exit_code == 1
        assert builds.ended(place.path / "runs" / run.id)["details"]["event"] == "engine.lost"
    assert sent == []


def test_cancel_waits_no_longer_than_it_shall(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    run = runs.join(str(place.path / "runs"), "mine", runs.engine_of(os.getpid()))
    run.close()
    assert call("cancel", "--wait", "300ms").exit_code == 124


@pytest.mark.parametrize(
    ("size", "is_good"),
    [("1", True), ("20 GiB", True), ("unlimited", True), ("5KiB", True), ("5kB", True)]
    + [(each, False) for each in ("", "lots", "-1", "1.5GiB", "1XB", "1e3")],
)
def test_sizes(size: str, is_good: bool, place: Place) -> None:
    assert call("gc", "--max-size", size).exit_code == (0 if is_good else 2)
