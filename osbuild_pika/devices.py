"""Devices: what a stage declares and a host service opens for it below /dev.

`Device` is the value in a manifest, `DeviceService` the base of the executables in devices/,
`DeviceManager` opens the devices of one stage. Calls and ids are upstream osbuild's (v191).
"""

from __future__ import annotations

import os
from collections import deque

from osbuild_pika import host, wire
from osbuild_pika.errors import PikaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

OPEN_TIMEOUT_S = 60.0


class Device:
    """One entry of a stage's `devices`. A value: two of the same content are equal.

    type: the module's name. options: JSON object. parent: the device that it lies on.
    """

    def __init__(
        self, name: str, type_: str, options: Mapping[str, Any], parent: Device | None = None
    ) -> None:
        self.name = name
        self.type = type_
        self.options = options
        self.parent = parent

    @property
    def id(self) -> str:
        """Upstream's id: 64 hex digits. The name is no part of it, nor is it of a stage's id."""
        # They load OpenSSL and re: not for services, which have no use for ids.
        import hashlib
        import json

        parts: list[Any] = [self.type, *([self.parent.id] if self.parent else []), self.options]
        text = "".join(json.dumps(part, sort_keys=True) for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.name, self.id) == (other.name, other.id)

    def __hash__(self) -> int:
        return hash((self.name, self.id))


def parents_first(devices: Iterable[Device]) -> list[Device]:
    """The order in which devices are opened: upstream's, which `--inspect` shows."""
    opened: dict[str, Device] = {}
    waiting = deque(devices)
    names = {device.name for device in waiting}
    while waiting:
        device = waiting.popleft()
        if device.parent is not None and device.parent.name not in opened:
            if device.parent.name not in names:
                raise PikaError(f"device {device.name}: its parent is not one of the devices")
            waiting.append(device)
        else:
            opened[device.name] = device
    return list(opened.values())


class DeviceService(host.Service):
    """Base of a device's executable: implement `open`, and `close` if there is something to undo.

    `close` is called when the manager asks for it, else at the end; upstream never asks.
    """

    def open(
        self, devpath: str, parent: str | None, tree: str, options: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Make the device's node below `devpath`.

        parent: path of the parent's node below devpath. tree: the stage's tree on the host,
        which is untrusted. Returns what the stage finds in its arguments under the device's name;
        its "path" is that of the node below devpath. None: a device without a node.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Undo `open`."""

    def stop(self) -> None:
        self.close()

    def dispatch(self, name: str, args: Any, fds: Sequence[int]) -> tuple[Any, Sequence[int]]:
        if name == "open":
            return self.open(*open_arguments(args)), ()
        if name == "close":
            self.close()
            return None, ()
        return super().dispatch(name, args, fds)


def open_arguments(args: Any) -> tuple[str, str | None, str, Mapping[str, Any]]:
    """Take the arguments of a device's `open` apart: (devpath, parent, tree, options).

    Raises wire.ProtocolError if one is missing or of the wrong kind.
    """
    wire.require("open", args, _OPEN_ARGUMENTS)
    return args["dev"], args["parent"], args["tree"], args["options"] or {}


_OPEN_ARGUMENTS = {
    "dev": str,
    "parent": str | None,
    "tree": str,
    "options": dict | None,
}


class DeviceManager:
    """Opens the devices of one stage below `devpath`; the service manager closes them.

    Reply of a device -> entry of the stage's arguments: verbatim, but "path" begins with /dev.
    """

    def __init__(self, services: host.ServiceManager, devpath: str, tree: str) -> None:
        self._services = services
        self.devpath = devpath
        self._tree = tree
        self._paths: dict[str, str] = {}  # device name -> path of its node below devpath

    def open(self, device: Device, executable: str) -> Any:
        """Start a device's service and open the device. Its parent must be open already.

        Returns the service's reply, {} for null. Raises PikaError, also for a path that is not
        below devpath and for a parent without a node.
        """
        parent = None
        if device.parent is not None:
            parent = self._paths.get(device.parent.name)
            if parent is None:
                raise PikaError(
                    f"device {device.name}: its parent {device.parent.name} has no node"
                )
        service = self._services.start(f"device/{device.name}", executable)
        arguments = {
            "dev": self.devpath,
            "tree": self._tree,
            "parent": parent,
            "options": device.options,
        }
        reply = service.call("open", arguments, timeout_s=OPEN_TIMEOUT_S)
        if reply is None:
            return {}
        if not isinstance(reply, dict):
            raise PikaError(f"device {device.name}: the service replied no object")
        if reply.get("path"):
            self._paths[device.name] = node_below(device.name, self.devpath, reply["path"])
        return reply

    def argument(self, device: Device, reply: Mapping[str, Any]) -> dict[str, Any]:
        """The stage's entry for an open device: the reply, with its path as the stage sees it."""
        if device.name not in self._paths:
            return dict(reply)
        return {**reply, "path": os.path.join("/dev", self._paths[device.name])}


def node_below(name: str, devpath: str, path: Any) -> str:
    """The path of a device's node relative to devpath; it may be given absolute below /dev.

    Raises PikaError for all that would lead out of devpath.
    """
    if isinstance(path, str):
        relative = os.path.normpath(path)
        for prefix in (os.path.normpath(devpath), "/dev"):
            relative = relative.removeprefix(f"{prefix}/")
        if relative.split("/")[0] not in ("", ".", "..") and "\0" not in relative:
            return relative
    raise PikaError(f"device {name}: the service replied the path {ascii(path)[:60]}")
