"""Devices have upstream's ids and order, and their nodes lie below /dev."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import wire
from osbuild_pika.devices import (
    Device,
    DeviceManager,
    DeviceService,
    node_below,
    open_arguments,
    parents_first,
)
from osbuild_pika.errors import PikaError
from osbuild_pika.host import ServiceManager

IDS = Path(__file__).parents[1] / "data/osbuild/ids"
RECORDS = ("12-devices", "13-mounts", "14-mount-on-child-device")


def stages(record: str, file: str) -> list[dict[str, Any]]:
    pipelines = json.loads((IDS / record / file).read_text())["pipelines"]
    return [stage for pipeline in pipelines for stage in pipeline["stages"]]


def device(name: str, entries: dict[str, Any]) -> Device:
    entry = entries[name]
    parent = device(entry["parent"], entries) if entry.get("parent") else None
    return Device(name, entry["type"], entry.get("options", {}), parent)


def digest(*parts: object) -> str:
    return hashlib.sha256(
        "".join(json.dumps(part, sort_keys=True) for part in parts).encode()
    ).hexdigest()


def mount_id(mount: dict[str, Any], devices: dict[str, Any]) -> str:
    source = mount.get("source")
    optional = [device(source, devices).id] if source else []
    optional += [mount[key] for key in ("partition", "target") if mount.get(key)]
    return digest(mount["type"], *optional, mount.get("options", {}))


def stage_id(stage: dict[str, Any]) -> str:
    """Upstream's id of a first stage without build, inputs and epoch."""
    mounts = [mount_id(mount, stage.get("devices", {})) for mount in stage.get("mounts", [])]
    head = (stage["type"], None, None, stage.get("options", {}))
    return digest(*head, *([mounts] if mounts else []))


@pytest.mark.parametrize("record", RECORDS)
def test_ids_make_the_recorded_ids_of_stages(record: str) -> None:
    given, printed = stages(record, "manifest.json"), stages(record, "inspect.json")
    assert [stage_id(stage) for stage in given] == [stage["id"] for stage in printed]


@pytest.mark.parametrize("record", RECORDS)
def test_devices_are_opened_in_the_recorded_order(record: str) -> None:
    for given, printed in zip(
        stages(record, "manifest.json"), stages(record, "inspect.json"), strict=True
    ):
        entries = given.get("devices", {})
        devices = [device(name, entries) for name in entries]
        assert [each.name for each in parents_first(devices)] == list(printed.get("devices", {}))


def test_a_parent_that_is_none_of_the_devices_is_an_error() -> None:
    disk = Device("disk", "t", {})
    with pytest.raises(PikaError, match="device root: its parent is not one of the devices"):
        parents_first([Device("root", "t", {}, disk)])


def test_a_device_is_a_value() -> None:
    disk = Device("disk", "t", {"a": 1})
    assert disk == Device("disk", "t", {"a": 1})
    assert len({disk, Device("disk", "t", {"a": 1})}) == 1
    assert disk != Device("hd", "t", {"a": 1})
    assert disk.id == Device("hd", "t", {"a": 1}).id
    assert disk != Device("disk", "t", {"a": 2})
    assert disk != Device("disk", "t", {"a": 1}, Device("disk", "t", {}))
    assert disk != "disk"


@pytest.mark.parametrize(
    ("path", "node"),
    [
        ("loop0", "loop0"),
        ("mapper/vg-root", "mapper/vg-root"),
        ("/dev/loop0", "loop0"),
        ("/dev//x/../loop0", "loop0"),
        ("/run/b/dev/loop0", "loop0"),
        ("./loop0", "loop0"),
        ("..loop", "..loop"),
    ],
)
def test_a_node_below_dev_is_taken(path: str, node: str) -> None:
    assert node_below("d", "/run/b/dev", path) == node
    assert node_below("d", "/run/b/dev/", path) == node


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "/dev/../etc/x", "x/../../y", "/dev", "/devil", "//dev/x", "/", ".", "..",
     "/run/b/dev", "/run/b/dev/../x", "", "x\0y", 5, ["x"], {"a": 1}, True],
)  # fmt: skip
def test_a_node_that_leads_out_of_dev_is_refused(path: object) -> None:
    with pytest.raises(PikaError, match="device d: the service replied the path "):
        node_below("d", "/run/b/dev", path)


GOOD: dict[str, object] = {"dev": "/d", "parent": None, "tree": "/t", "options": {"a": 1}}


def test_the_arguments_of_open_are_taken_apart() -> None:
    assert open_arguments(GOOD) == ("/d", None, "/t", {"a": 1})
    assert open_arguments({**GOOD, "parent": "p", "options": None}) == ("/d", "p", "/t", {})


@pytest.mark.parametrize("name", GOOD)
def test_an_argument_of_open_that_is_wrong_is_named(name: str) -> None:
    rest = {key: value for key, value in GOOD.items() if key != name}
    for args in (rest, {**GOOD, name: 5}, {**GOOD, name: [1]}):
        with pytest.raises(wire.ProtocolError, match=f"the argument {name} of open"):
            open_arguments(args)


@pytest.mark.parametrize("args", [[], None, "x", 1])
def test_arguments_of_open_that_are_no_object_are_refused(args: object) -> None:
    with pytest.raises(wire.ProtocolError, match="the arguments of open are not an object"):
        open_arguments(args)


class Calls(DeviceService):
    """Records what is called."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def open(self, *args: Any) -> Any:
        self.calls.append(args)
        return {"path": "x"}

    def close(self) -> None:
        self.calls.append("close")


def test_a_service_dispatches_open_and_close_and_closes_at_the_end() -> None:
    service = Calls()
    assert service.dispatch("open", GOOD, ()) == ({"path": "x"}, ())
    assert service.dispatch("close", [], ()) == (None, ())
    service.stop()
    assert service.calls == [("/d", None, "/t", {"a": 1}), "close", "close"]
    with pytest.raises(wire.ProtocolError, match="Unknown method"):
        service.dispatch("nope", {}, ())


class Scripted(ServiceManager):
    """Services that give the replies of a list, one after the other, and start no process."""

    def __init__(self, *replies: object) -> None:
        self.replies = list(replies)
        self.asked: list[Any] = []

    def start(self, service_id: str, path: str, *extra: str) -> Any:
        self.asked.append((service_id, path))
        return self

    def call(self, name: str, args: Any, timeout_s: float) -> object:
        self.asked.append((name, args["parent"]))
        return self.replies.pop(0)


@pytest.mark.parametrize("reply", [{}, {"path": None}, {"path": ""}, {"x": 1}])
def test_a_reply_without_a_node_is_passed_on_as_it_is(reply: dict[str, Any]) -> None:
    manager = DeviceManager(Scripted(reply), "/run/dev", "/tree")
    disk = Device("disk", "t", {})
    assert manager.argument(disk, manager.open(disk, "exe")) == reply


def test_a_child_gets_the_path_of_its_parents_node() -> None:
    services = Scripted({"path": "/run/dev/a/b"}, None)
    manager = DeviceManager(services, "/run/dev", "/tree")
    disk = Device("disk", "t", {})
    child = Device("child", "t", {}, disk)
    assert manager.argument(disk, manager.open(disk, "exe")) == {"path": "/dev/a/b"}
    assert manager.argument(child, manager.open(child, "other")) == {}
    assert services.asked == [
        ("device/disk", "exe"),
        ("open", None),
        ("device/child", "other"),
        ("open", "a/b"),
    ]


@pytest.mark.parametrize("reply", [[], 1, "x", True, {"path": "../x"}, {"path": "/etc/x"}])
def test_a_reply_that_is_wrong_names_the_device(reply: object) -> None:
    manager = DeviceManager(Scripted(reply), "/run/dev", "/tree")
    with pytest.raises(PikaError, match="device disk: the service replied "):
        manager.open(Device("disk", "t", {}), "exe")


def test_a_child_whose_parent_has_no_node_is_not_started() -> None:
    services = Scripted()
    manager = DeviceManager(services, "/run/dev", "/tree")
    with pytest.raises(PikaError, match="device child: its parent disk has no node"):
        manager.open(Device("child", "t", {}, Device("disk", "t", {})), "exe")
    assert not services.asked
