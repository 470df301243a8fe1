"""The work around one stage: its devices, inputs, mounts and arguments, in upstream's order.

Each of them is a host service, started for this stage and stopped when it has ended, the last one
first. What they reply is what the stage finds in its arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika import lifecycle, mounts
from osbuild_pika.devices import Device, DeviceManager
from osbuild_pika.engine import area as areas
from osbuild_pika.engine import running
from osbuild_pika.engine.interrupts import Interrupts
from osbuild_pika.engine.manifest import FROM_PIPELINE, Input, Mount, Stage
from osbuild_pika.engine.modules import Module
from osbuild_pika.engine.namespace import UserNamespace
from osbuild_pika.engine.owner import DEVICE, Owner
from osbuild_pika.engine.running import Limits, Outcome
from osbuild_pika.engine.sandbox import Sandbox
from osbuild_pika.engine.storeapi import StoreApi, Trees
from osbuild_pika.errors import PikaError
from osbuild_pika.host import ServiceClient, ServiceManager

SERVICE_TIMEOUT_S = 600.0  # mapping an input may copy a tree
MAX_METADATA = 16 * 1024 * 1024  # bytes
INSIDE = "/run/osbuild"


class Desk(NamedTuple):
    """What all stages of a build share. service_output: given (service id, module, line)."""

    namespace: UserNamespace
    workspace: Path
    owner: Owner
    limits: Limits
    interrupts: Interrupts
    term: str
    find: Callable[[str, str], Module]
    service_output: Callable[[str, str, str], None]

    def hear(self, modules: Mapping[str, str]) -> Callable[[str, str], None]:
        """A listener for a service manager. modules: service id -> name of its module."""
        return lambda service, line: self.service_output(service, modules.get(service, ""), line)


class Job(NamedTuple):
    """One stage to run. parts: what it sees of the host. trees: what its inputs may ask for.

    is_ours: it is one of our own modules.
    """

    pipeline: str
    stage: Stage
    module: Module
    parts: areas.Parts
    trees: Trees
    is_ours: bool = False


class Done(NamedTuple):
    """outcome: of the sandbox. metadata: what the stage left in /run/osbuild/meta, None if
    nothing; fault: why that cannot be taken."""

    outcome: Outcome
    metadata: Any = None
    fault: str = ""


def run_stage(desk: Desk, job: Job, on_output: Callable[[str], None]) -> Done:
    """Run a stage. Raises PikaError if something that it needs cannot be had."""
    path = desk.workspace / f"stage-{job.stage.id[:16]}"
    with areas.prepared(path, job.parts, desk.namespace.ids) as area, contextlib.ExitStack() as end:
        store_api = area / "api/store"
        if job.stage.inputs:  # nothing else asks for trees
            end.enter_context(StoreApi(store_api, job.trees))
        environment = {**os.environ, mounts.NAMESPACE: desk.namespace.path}
        hear = desk.hear(_services(job.stage))
        services = end.enter_context(ServiceManager(hear, environment=environment))
        with desk.interrupts.ending(services):
            given = _arguments(_Setting(desk, job, area, services, store_api, end))
        (area / "api/arguments").write_text(json.dumps(given))
        (area / "api/arguments").chmod(0o644)
        module = job.module
        epoch = job.stage.source_epoch
        sandbox = Sandbox(area, job.stage.type, module.capabilities, epoch, desk.term)
        outcome = running.run(desk.namespace, sandbox, on_output, desk.limits, desk.interrupts.stop)
        return _read_metadata(area / "meta", outcome)


def _services(stage: Stage) -> dict[str, str]:
    """Service id -> name of the module, of all that a stage has."""
    inputs = {f"input/{each.name}": each.type for each in stage.inputs}
    devices = {f"device/{each.name}": each.type for each in stage.devices}
    return {**inputs, **devices, **{f"mount/{each.name}": each.type for each in stage.mounts}}


class _Setting(NamedTuple):
    """One stage's, while its services run. store_api: where inputs ask for trees. end: what is
    undone when it has ended."""

    desk: Desk
    job: Job
    area: Path
    services: ServiceManager
    store_api: Path
    end: contextlib.ExitStack


def _arguments(at: _Setting) -> dict[str, Any]:
    stage = at.job.stage
    started = [(each, _start_input(at, each)) for each in stage.inputs]  # all get ready at once
    inputs = {each.name: _map_input(at, each, service) for each, service in started}
    manager = DeviceManager(at.services, str(at.area / "dev"), str(at.job.parts.tree))
    devices = {device.name: _open_device(at, device, manager) for device in stage.devices}
    if at.job.is_ours and DEVICE not in {device.type for device in stage.devices}:
        devices[DEVICE] = _open_lifecycle(at, manager.devpath)  # our stages report unasked
    mounted = {mount.name: _mount(at, mount, devices) for mount in stage.mounts}
    meta: dict[str, Any] = {"id": stage.id}
    if stage.source_epoch is not None:
        meta["source-epoch"] = stage.source_epoch
    return {
        "tree": f"{INSIDE}/tree",
        "paths": {"devices": "/dev", "inputs": f"{INSIDE}/inputs", "mounts": f"{INSIDE}/mounts"},
        "devices": devices,
        "inputs": inputs,
        "mounts": mounted,
        "options": stage.options,
        "meta": meta,
    }


def _start_input(at: _Setting, given: Input) -> ServiceClient:
    module = at.desk.find("inputs", given.type)
    return at.services.start(f"input/{given.name}", str(module.executable))


def _map_input(at: _Setting, given: Input, service: ServiceClient) -> dict[str, Any]:
    root = at.area / "inputs"
    target = root / given.name
    target.mkdir(mode=0o755)
    asked = {
        "origin": given.origin,
        "refs": given.references,
        "target": str(target),
        "options": given.options,
        "api": {"store": str(at.store_api)},
    }
    reply = service.call("map", asked, timeout_s=SERVICE_TIMEOUT_S)
    entry = {"path": _inside(f"input {given.name}", reply, root, f"{INSIDE}/inputs")}
    if isinstance(reply, dict) and "data" in reply:
        entry["data"] = reply["data"]
    return entry


def _inside(what: str, reply: Any, root: Path, shown: str) -> str:
    """The path of a reply as the stage sees it. Raises PikaError if it leads out of `root`."""
    path = reply.get("path") if isinstance(reply, dict) else None
    if isinstance(path, str):
        relative = os.path.relpath(os.path.normpath(path), root)
        if not relative.startswith("..") and "\0" not in path:
            return os.path.normpath(os.path.join(shown, relative))
    raise PikaError(f"{what}: the service replied no path below {root}")


def _open_device(at: _Setting, device: Device, manager: DeviceManager) -> dict[str, Any]:
    if device.type != DEVICE:
        module = at.desk.find("devices", device.type)
        return manager.argument(device, manager.open(device, str(module.executable)))
    return _open_lifecycle(at, manager.devpath)


def _open_lifecycle(at: _Setting, devpath: str) -> dict[str, Any]:
    """Open the stage's end of the run's lifecycle: one service keeps the whole run."""
    stage = at.job.stage
    options = {"pipeline": at.job.pipeline, "stage": stage.type, "stage_id": stage.id}
    reply = dict(at.desk.owner.open(devpath, str(at.job.parts.tree), options))
    at.end.callback(at.desk.owner.close, os.path.join(devpath, reply["path"]))
    return {**reply, "path": os.path.join("/dev", reply["path"])}


def _mount(at: _Setting, mount: Mount, devices: Mapping[str, Any]) -> dict[str, Any]:
    module = at.desk.find("mounts", mount.type)
    service = at.services.start(f"mount/{mount.name}", str(module.executable))
    root = at.area / "mounts"
    source = None
    if mount.device is not None:
        node = os.path.relpath(devices[mount.device.name]["path"], "/dev")
        part = f"p{mount.partition:g}" if mount.partition else ""
        source = str(at.area / "dev" / node) + part
    asked = {
        "source": source,
        "target": mount.target,
        "root": str(root),
        "tree": str(at.job.parts.tree),
        "options": mount.options,
    }
    reply = service.call("mount", asked, timeout_s=SERVICE_TIMEOUT_S)
    if not reply:
        return {}
    return {"path": _inside(f"mount {mount.name}", {"path": reply}, root, f"{INSIDE}/mounts")}


def _read_metadata(path: Path, outcome: Outcome) -> Done:
    """What the stage wrote into its metadata file: the stage owned it, so it may be anything."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        data = file.read(MAX_METADATA + 1)
    if not data:
        return Done(outcome)
    if len(data) > MAX_METADATA:
        return Done(outcome, fault=f"the metadata have more than {MAX_METADATA} bytes")
    try:
        metadata = json.loads(data)
        lifecycle.check_details(metadata)  # its depth, and what is no JSON for all
        return Done(outcome, metadata)
    except (ValueError, RecursionError, lifecycle.LifecycleError) as error:
        return Done(outcome, fault=f"the metadata are not JSON: {error}"[:200])


def references(stage: Stage) -> Iterator[str]:
    """The ids of the pipelines whose trees the stage reads."""
    for given in stage.inputs:
        if given.origin == FROM_PIPELINE:
            yield from (each for each in given.references if each is not None)
