"""The lifecycle service as its callers see it: a real process, real sockets, real files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import journals
import pytest
from journals import messages, snapshot
from services import STAGE, Lifecycle, engine, facts, lifecycle, names, verdict, whole

from osbuild_pika.errors import RemoteError

BAD_NAMES = ["../x", "/x", "", ".", "..", "a/b", "a" * 65, "büro", "A", "-a", "a\n", "a\0b"]
STARTED = ["build.accepted", "build.started", "stage.started"]  # without an owner


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Iterator[Lifecycle]:
    with lifecycle(tmp_path) as service:
        yield service
        service.kill()  # how runs end is tested elsewhere


@pytest.fixture(name="owned")
def fixture_owned(service: Lifecycle) -> Lifecycle:
    """A service with an owned run and one open device."""
    service.own("web")
    service.open()
    return service


def details(run: Path) -> list[dict[str, Any]]:
    return [event["details"] for event in whole(run)]


# --- methods and who may call them ---------------------------------------------------------------


def test_open_says_where_the_socket_is_and_what_its_limits_are(service: Lifecycle) -> None:
    service.own("web")
    limits = {"packet": 131072, "message": 16384, "details": 65536, "items": 256, "stage": 1048576}
    reply = {"path": "osbuild-pika-lifecycle", "api": 1, "run": "web", "limits": limits}
    assert service.open() == {**reply, "recovered": {}}
    assert service.node.is_socket()


def test_every_method_of_a_stage_is_answered(owned: Lifecycle) -> None:
    with owned.connect() as stage:
        assert stage.call("event", message="a", details={"x": 1}, name="my.event") == {"seq": 2}
        items = [{"message": "b"}, {"message": "c", "details": None}]
        assert stage.call("events", items=items) == {"first": 3, "last": 4}
        assert stage.call("progress", done=1, total=2, unit="files") == {"seq": 5}
        assert stage.call("progress", done=0.5, total=None, unit="s", message="d") == {"seq": 6}
        assert stage.call("artifact", path="a/b", message="e", details={"y": 2}) == {"seq": 7}
        assert stage.call("result", status="completed", message="f") == {}
        assert stage.call("flush") == {"durable_seq": 8}
    assert messages(owned.run) == ["accepted", "a", "b", "c", "1 of 2 files", "d", "e", "f"]
    said = ["my.event", "stage.note", "stage.note", *["stage.progress"] * 2, "artifact"]
    assert names(owned.run) == ["build.accepted", *said, "stage.finished"]


def test_every_method_of_the_owner_is_answered(service: Lifecycle) -> None:
    reply = service.own("web", manifest="m")
    directory = str(service.runs / "web")
    assert reply == {"seq": 1, "run": "web", "directory": directory, "recovered": {}}
    assert service.call("event", message="a", kind="provisioning") == {"seq": 2}
    assert service.call("events", items=[{"message": "b", "details": {"event": "source.x"}}]) == {
        "first": 3,
        "last": 3,
    }
    assert service.call("status", state="provisioning", message="c", event="engine.x") == {}
    assert service.call("status", state="provisioning", message="d", details={"n": 1}) == {}
    assert journals.document(service.run, "status")["details"] == {"n": 1, "run_id": "web"}
    assert service.call("flush") == {"durable_seq": 4}
    assert service.call("result", status="failed", message="e", exit_code=3) == {}
    assert service.call("close") == {"seq": 5, "result": None}
    assert details(service.run)[0] == {"manifest": "m", "event": "build.accepted", "run_id": "web"}
    assert verdict(service.run) == ("failed", 3, "build.failed")


@pytest.mark.parametrize("method", ["event", "events", "status", "result", "flush"])
def test_the_manager_is_no_owner_before_it_owns(method: str, service: Lifecycle) -> None:
    assert service.error(method) == "NotOpen"
    service.open()
    assert service.error(method) == "NotOpen"


@pytest.mark.parametrize("method", ["own", "open", "close", "status", "x", "__init__", "é" * 999])
def test_a_stage_has_its_own_methods_only(method: str, owned: Lifecycle) -> None:
    with owned.connect() as stage:
        assert stage.error(method, run="x") == "InvalidArgument"
        assert stage.call("flush") == {"durable_seq": 1}


@pytest.mark.parametrize("method", ["progress", "artifact", "x", "stop", "main"])
def test_a_manager_has_its_own_methods_only(method: str, owned: Lifecycle) -> None:
    assert owned.error(method) == "InvalidArgument"


def test_a_run_is_owned_once(owned: Lifecycle) -> None:
    assert owned.error("own", run="other") == "InvalidArgument"
    assert os.listdir(owned.runs) == ["web"]


def test_an_owner_is_refused_what_is_out_of_order(owned: Lifecycle) -> None:
    owned.call("status", state="provisioning", message="m", event="build.started")
    assert owned.error("status", state="requested", message="m") == "BadTransition"
    assert owned.error("status", state="nonsense", message="m") == "InvalidArgument"
    assert owned.error("event", message="m", kind="requested") == "BadTransition"
    assert owned.error("result", status="failed", exit_code=0, message="m") == "Inconsistent"
    owned.call("result", status="completed", message="m")
    owned.call("result", status="completed", message="m")
    assert owned.error("result", status="failed", message="m") == "AlreadyFinished"
    assert owned.error("event", message="m") == "AlreadyFinished"
    assert owned.error("status", state="provisioning", message="m") == "AlreadyFinished"
    assert verdict(owned.run) == ("completed", 0, "build.completed")


def test_several_events_are_written_all_or_none(owned: Lifecycle) -> None:
    with owned.connect() as stage:
        bad = [{"message": "a"}, {"message": "b", "kind": "ready"}]
        assert stage.error("events", items=bad) == "InvalidArgument"
        assert stage.error("events", items=[{"message": "a"}] * 257) == "TooLarge"
        assert stage.call("events", items=[{"message": "a"}] * 256) == {"first": 2, "last": 257}
    assert owned.error("events", items=[{"message": "a"}, {"message": 1}]) == "InvalidArgument"
    assert len(whole(owned.run)) == 257


# --- what a stage's words become -----------------------------------------------------------------


def test_a_stage_cannot_speak_for_another(owned: Lifecycle) -> None:
    lies = {"source": "engine", "run_id": "x", "pipeline": "x", "stage": "x", "stage_id": "x"}
    mine = {**STAGE, "source": "stage", "run_id": "web"}
    with owned.connect() as stage:
        stage.call("event", message="m", details={**lies, "event": "build.completed", "more": 1})
        stage.call("artifact", path="a", details={**lies, "path": "../b"})
        stage.call("result", status="failed", message="m", details={**lies, "exit_code": 0})
    assert details(owned.run)[1:] == [
        {**mine, "event": "stage.note", "more": 1},
        {**mine, "event": "artifact", "path": "a"},
        {**mine, "event": "stage.failed", "exit_code": 1},
    ]


def test_a_stage_without_an_identity_cannot_take_one(owned: Lifecycle) -> None:
    owned.open({})
    with owned.connect() as stage:
        stage.call("event", message="m", details={"stage_id": "x", "pipeline": "y"})
    assert details(owned.run)[1] == {"source": "stage", "run_id": "web", "event": "stage.note"}


def test_a_stages_events_have_the_kind_that_the_run_has(owned: Lifecycle) -> None:
    with owned.connect() as stage:
        stage.call("event", message="before")
        owned.call("status", state="provisioning", message="m")
        stage.call("event", message="after")
    kinds = [event["kind"] for event in whole(owned.run)]
    assert kinds == ["requested", "requested", "provisioning"]


def test_a_stages_result_is_said_once(owned: Lifecycle) -> None:
    with owned.connect() as stage, owned.connect() as other:
        result = {"status": "failed", "message": "m", "exit_code": 3, "details": {"x": 1}}
        assert stage.call("result", **result) == {}
        assert other.call("result", **result) == {}
        assert other.error("result", **{**result, "exit_code": 4}) == "AlreadyFinished"
        assert other.error("result", status="completed", message="m") == "AlreadyFinished"
        assert other.error("result", status="completed", exit_code=1, message="") == "Inconsistent"
    assert names(owned.run) == ["build.accepted", "stage.failed"]
    assert owned.call("close", path=str(owned.node)) == {"seq": 2, "result": result}


def test_the_owners_result_is_the_runs_whatever_stages_say(owned: Lifecycle) -> None:
    with owned.connect() as stage:
        stage.call("result", status="completed", message="all is well")
    owned.open({**STAGE, "final": True})
    with owned.connect() as stage:
        stage.call("result", status="completed", message="all is well")
    owned.call("result", status="failed", exit_code=4, message="the engine knows better")
    assert verdict(owned.run) == ("failed", 4, "build.failed")
    assert names(owned.run)[1:3] == ["stage.finished"] * 2


def test_devices_of_one_service_share_a_run_and_close_alone(owned: Lifecycle) -> None:
    first = owned.node
    owned.open({"stage": "second"})
    with owned.connect(first) as one, owned.connect() as other:
        one.call("event", message="one")
        other.call("event", message="two")
        assert owned.call("close", path=str(first))["result"] is None
        assert not first.exists()
        assert other.call("event", message="three") == {"seq": 4}
        with pytest.raises((EOFError, ConnectionError)):
            one.call("flush")
    assert [each.get("stage") for each in details(owned.run)[1:]] == [
        STAGE["stage"],
        "second",
        "second",
    ]


def test_what_was_sent_before_a_device_closes_still_counts(owned: Lifecycle) -> None:
    with owned.connect() as stage:
        for number in range(20):
            stage.send("event", {"message": f"{number}"})
        stage.send("result", {"status": "completed", "message": "m"})
        assert owned.call("close")["result"]["status"] == "completed"
    assert messages(owned.run)[1:-1] == [str(number) for number in range(20)]


# --- which run, and where ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BAD_NAMES, None, 1, ["a"], {"a": 1}], ids=ascii)
def test_a_name_that_is_none_is_refused_and_nothing_is_made(
    name: Any, service: Lifecycle, tmp_path: Path
) -> None:
    before = snapshot(tmp_path)
    assert service.error("own", run=name) == "InvalidArgument"
    assert snapshot(tmp_path) == before
    if name:
        assert service.open({"run": name}).keys() == {"api", "degraded"}
        assert not service.runs.exists()


def test_a_name_of_64_characters_is_taken(service: Lifecycle) -> None:
    assert service.own("a" * 64)["run"] == "a" * 64


@pytest.mark.parametrize("name", ["../x", "büro"])
def test_a_bad_name_in_the_environment_is_refused(name: str, tmp_path: Path) -> None:
    with lifecycle(tmp_path, OSBUILD_PIKA_RUN=name) as service:
        assert "is no name of a run" in service.open({"run": "good"})["degraded"]
        assert not service.runs.exists()


def test_the_environment_wins_over_the_option(tmp_path: Path) -> None:
    with lifecycle(tmp_path, OSBUILD_PIKA_RUN="mine") as service:
        assert service.open({"run": "other"})["run"] == "mine"
    with lifecycle(tmp_path) as service:
        assert service.open({"run": "other"})["run"] == "other"


def test_a_run_without_a_name_is_named_after_its_engine(service: Lifecycle) -> None:
    service.open({})
    engine_facts = facts(service.run)["engine"]
    assert service.run.name == f"build-{engine_facts['pid']}-{engine_facts['start_time']}"
    assert engine_facts["pid"] == os.getpid()


def test_an_ended_run_is_not_opened_again(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as service:
        service.own("web")
        service.call("result", status="completed", message="m")
        service.stop()
        before = snapshot(service.run)
    with lifecycle(tmp_path) as service:
        later = service.own("web")["run"]
        assert later.startswith("web.")
        assert len(later) == len("web.") + 26
        assert facts(service.run)["run_id"] == later
    assert snapshot(service.runs / "web") == before


def test_another_engines_run_of_the_same_name_is_not_joined(tmp_path: Path) -> None:
    with engine(tmp_path, "service.own('web')") as other, lifecycle(tmp_path) as service:
        assert service.own("web")["run"].startswith("web.")
        service.call("result", status="completed", message="m")
        assert names(other.run) == ["build.accepted"]


def test_services_of_one_engine_share_a_run(tmp_path: Path) -> None:
    with lifecycle(tmp_path) as one, lifecycle(tmp_path) as other:
        one.open({"run": "web", "stage": "a"})
        other.open({"run": "web", "stage": "b"})
        with one.connect() as a, other.connect() as b:
            assert [stage.call("event", message="m")["seq"] for stage in (a, b, a)] == [5, 6, 7]
        assert one.run == other.run
        assert names(one.run)[:4] == [*STARTED, "stage.started"]


def test_a_device_directory_may_have_a_long_path(service: Lifecycle, tmp_path: Path) -> None:
    service.own("web")
    service.open(devpath=tmp_path / ("d" * 200) / ("e" * 200))
    with service.connect() as stage:
        assert stage.call("event", message="m") == {"seq": 2}
    service.call("close", path=str(service.node))
    assert not service.node.exists()


def test_artifacts_can_be_read_by_all_and_written_by_us_alone(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with lifecycle(tmp_path) as service:
            service.own("web")
            service.call("result", status="completed", message="m")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in service.run.iterdir()}
    artifacts = ("status.json", "events.jsonl", "result.json")
    assert {modes[name] for name in artifacts} == {0o644}
    assert not [name for name, mode in modes.items() if mode & 0o022]


def fail_to_make(root: Path) -> str:
    root.write_text("a file")
    return str(root)


@pytest.mark.parametrize("make", [fail_to_make, lambda _: "/proc/none", lambda _: "/dev/null/x"])
def test_where_no_run_can_be_written_only_an_owner_fails(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    with lifecycle(tmp_path, OSBUILD_PIKA_RUNS=make(tmp_path / "file")) as service:
        reply = service.open()
        assert reply.keys() == {"api", "degraded"}
        assert reply["degraded"].isprintable()
        assert not service.node.is_socket()
        with pytest.raises(RemoteError) as caught:
            service.own()
        assert caught.value.name == "IOFailed"
        assert caught.value.value.isprintable()


@pytest.mark.parametrize(
    "options",
    [{"x": 1}, {"final": "yes"}, {"stage": 1}, {"pipeline": "p" * 257}, {"stage_id": ["a"]}],
)
def test_wrong_options_degrade_without_an_owner_and_fail_with_one(
    options: dict[str, Any], service: Lifecycle
) -> None:
    assert service.open(options).keys() == {"api", "degraded"}
    service.own()
    with pytest.raises(RemoteError, match="InvalidArgument"):
        service.open(options)
    assert names(service.run) == ["build.accepted"]
