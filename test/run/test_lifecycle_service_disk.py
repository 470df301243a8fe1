"""The lifecycle service on a disk that is full, and when its run is taken away."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import NEEDS_MOUNT, fill, free, mounted
from journals import document, messages, snapshot
from services import STAGE, Lifecycle, lifecycle, names, verdict, whole

BIG = "x" * 16_000  # more than the rest of the page at the end of any of the files


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted('mount -t tmpfs -o size=512k none "$1"', tmp_path / "disk") as disk:
        yield disk


@pytest.fixture(name="full")
def fixture_full(disk: Path, tmp_path: Path) -> Iterator[Lifecycle]:
    """A service that owns a run on a disk that is full since."""
    with lifecycle(tmp_path, OSBUILD_PIKA_RUNS=str(disk / "runs")) as service:
        service.own()
        service.open()
        fill(disk)
        yield service


@NEEDS_MOUNT
def test_events_find_no_space_and_none_is_half_there(full: Lifecycle, disk: Path) -> None:
    before = snapshot(full.run)
    with full.connect() as stage:
        assert stage.error("event", message=BIG) == "NoSpace"
        assert stage.error("events", items=[{"message": "m"}, {"message": BIG}]) == "NoSpace"
        assert stage.error("result", status="completed", message=BIG) == "NoSpace"
        assert full.error("event", message=BIG) == "NoSpace"
        assert full.error("status", state="provisioning", message=BIG) == "NoSpace"
        assert snapshot(full.run) == before
        free(disk)
        assert stage.call("event", message=BIG) == {"seq": 2}
        assert stage.call("result", status="completed", message=BIG) == {}
    full.call("result", status="completed", message=BIG)
    assert verdict(full.run) == ("completed", 0, "build.completed")


@NEEDS_MOUNT
def test_the_end_finds_the_reserve(full: Lifecycle) -> None:
    full.call("result", status="failed", exit_code=3, message=BIG)
    assert full.stop() == 0
    assert verdict(full.run) == ("failed", 3, "build.failed")


@NEEDS_MOUNT
def test_a_lost_engine_is_told_on_a_full_disk(full: Lifecycle) -> None:
    assert full.stop() == 0
    assert verdict(full.run) == ("failed", 137, "engine.lost")


@NEEDS_MOUNT
def test_a_final_stage_that_finds_no_space_did_not_complete(disk: Path, tmp_path: Path) -> None:
    with lifecycle(tmp_path, OSBUILD_PIKA_RUNS=str(disk / "runs")) as service:
        service.open({**STAGE, "run": "web", "final": True})
        fill(disk)
        with service.connect() as stage:
            assert stage.error("result", status="completed", message=BIG) == "NoSpace"
    assert verdict(service.run) == ("failed", 130, "interrupted")


@NEEDS_MOUNT
def test_a_disk_that_was_full_before_leaves_nothing_but_the_one_run(
    disk: Path, tmp_path: Path
) -> None:
    fill(disk)
    with lifecycle(tmp_path, OSBUILD_PIKA_RUNS=str(disk / "runs")) as service:
        assert service.error("own", run="web") in ("NoSpace", "IOFailed")
        assert service.open({"run": "web"}).keys() == {"api", "degraded"}
        free(disk)
        service.own()
        service.call("result", status="completed", message="m")
    assert names(service.run) == ["build.accepted", "build.completed"]
    assert [path.name for path in service.runs.iterdir()] == ["web"]


def test_a_run_that_is_removed_still_gets_its_end(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as service:
        service.own()
        service.open()
        shutil.rmtree(service.run)
        with service.connect() as stage:
            assert stage.error("event", message="m") == "IOFailed"
        service.call("result", status="failed", message="m")
        assert service.stop() == 0
    assert verdict(service.run) == ("failed", 1, "build.failed")


def test_a_final_result_that_failed_to_be_written_may_be_said_again(tmp_path: Path) -> None:
    result = {"status": "completed", "message": "m", "details": {"x": 1}}
    with lifecycle(tmp_path) as service:
        service.open({**STAGE, "run": "web", "final": True})
        (service.run / "status.json").unlink()
        (service.run / "status.json").mkdir()
        with service.connect() as stage:
            assert stage.error("result", **result) == "IOFailed"
            (service.run / "status.json").rmdir()
            assert stage.error("result", **result) == ""
            assert stage.error("result", **result) == ""
    assert names(service.run)[3:] == ["stage.finished", "build.completed"]
    assert verdict(service.run) == ("completed", 0, "build.completed")


def test_a_log_that_was_torn_by_another_is_put_in_order(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as service:
        service.own()
        with (service.run / "events.jsonl").open("ab") as log:
            log.write(b'{"schema_version": 1, "kind": "rea')
        assert service.call("event", message="m") == {"seq": 2}
        service.call("result", status="completed", message="m")
    (service.run / "events.jsonl.torn").unlink()
    assert messages(service.run) == ["accepted", "m", "m"]
    assert verdict(service.run)[0] == "completed"


def test_a_stage_learns_nothing_of_the_hosts_paths(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as service:
        service.own()
        service.open()
        log = service.run / "events.jsonl"
        log.rename(service.run / "kept")
        log.mkdir()
        with service.connect() as stage:
            stage.send("event", {"message": "m"})
            received = stage.connection.receive()
        assert received is not None
        assert b"IOFailed" in received[0]
        assert str(tmp_path).encode() not in received[0]
        assert b'"backtrace": ""' in received[0]
        log.rmdir()
        (service.run / "kept").rename(log)
        service.call("result", status="completed", message="m")
    assert document(service.run, "result")["status"] == "completed"
    assert len(whole(service.run)) == 2
