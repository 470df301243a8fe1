"""A manifest's values, their ids, and what `--inspect` prints of them.

An id is the sha256 of the JSON texts of what a value consists of, one after another, as upstream
osbuild (v191) makes it: equal manifests have equal ids in both engines. Values never change.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from osbuild_pika.devices import Device

Json = Any  # what json.loads returns
FROM_PIPELINE = "org.osbuild.pipeline"
FROM_SOURCE = "org.osbuild.source"


def digest(*parts: Json) -> str:
    """Upstream's id of a value that consists of these parts: 64 hex digits."""
    text = "".join(json.dumps(part, sort_keys=True) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


class _Source(NamedTuple):
    type: str
    items: Mapping[str, Json]
    options: Mapping[str, Json]


class Source(_Source):
    """Where content comes from. items: checksum -> what the source needs to get it."""

    @cached_property
    def id(self) -> str:
        return digest(self.type, self.items)


class _Input(NamedTuple):
    name: str
    type: str
    origin: str
    references: Mapping[str | None, Json]
    options: Mapping[str, Json]


class Input(_Input):
    """Something that a stage reads.

    references: checksum, or id of a pipeline (None: of one without stages) -> options.
    """

    @cached_property
    def id(self) -> str:
        """The name is no part of it."""
        return digest(self.type, self.origin, self.references, self.options)


class _Mount(NamedTuple):
    name: str
    type: str
    device: Device | None
    target: str | None
    partition: float | None
    options: Mapping[str, Json]


class Mount(_Mount):
    """A file system that is mounted for a stage. device: None for one that needs none."""

    @cached_property
    def id(self) -> str:
        """The name is no part of it; nor are a partition 0 and an empty target."""
        device = [self.device.id] if self.device else []
        optional = [part for part in (self.partition, self.target) if part]
        return digest(self.type, *device, *optional, self.options)


class _Stage(NamedTuple):
    type: str
    build: str | None
    base: str | None
    source_epoch: int | None
    options: Mapping[str, Json]
    inputs: tuple[Input, ...] = ()
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()


class Stage(_Stage):
    """One step of a pipeline.

    build: id of the pipeline whose tree it runs in, None: the host's. base: id of the stage
    before it. devices: parents first.
    """

    @cached_property
    def id(self) -> str:
        """Devices, modules and sources are no part of it."""
        parts: list[Json] = [self.type, self.build, self.base, self.options]
        if self.source_epoch is not None:
            parts.append(self.source_epoch)
        if self.inputs:
            parts.append({each.name: each.id for each in self.inputs})
        if self.mounts:
            parts.append([mount.id for mount in self.mounts])
        return digest(*parts)


class Pipeline(NamedTuple):
    """Stages that make one tree.

    name: a string unless read leniently. build: id of a pipeline. runner: what the manifest says
    that stages built in this tree need; None if it says nothing.
    """

    name: Any
    build: str | None
    runner: str | None
    stages: tuple[Stage, ...]

    @property
    def id(self) -> str | None:
        """The id of the last stage. Pipelines of the same content have the same id."""
        return self.stages[-1].id if self.stages else None


class Manifest(NamedTuple):
    """What shall be built. Every name in it has been resolved."""

    pipelines: tuple[Pipeline, ...]
    sources: tuple[Source, ...]
    metadata: Mapping[str, Json]

    def summary(self) -> str:
        """What it holds, in a few words."""
        stages = sum(len(pipeline.stages) for pipeline in self.pipelines)
        counts = {"pipeline": len(self.pipelines), "stage": stages, "source": len(self.sources)}
        return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items())


def runners(manifest: Manifest, host_runner: str) -> dict[str | None, str]:
    """Id of a build pipeline, None for the host -> what the manifest calls its runner.

    Of two pipelines with the same id the later one's runner counts for both.
    """
    named = {pipeline.id: pipeline.runner or host_runner for pipeline in manifest.pipelines}
    return {**named, None: host_runner}


def describe(manifest: Manifest, host_runner: str) -> dict[str, Json]:
    """What `osbuild --inspect` prints, as upstream does: the manifest with the ids of its stages.

    It is no manifest again. host_runner: stands for the runner of a build pipeline without one.
    """
    built_in = {pipeline.build for pipeline in manifest.pipelines if pipeline.build}
    all_runners = runners(manifest, host_runner)
    named = {id_: all_runners[id_] if id_ in built_in else None for id_ in all_runners}
    pipelines = [
        _filled({"name": pipeline.name}, build=pipeline.build, runner=named.get(pipeline.id))
        | _filled({}, stages=[_describe_stage(stage) for stage in pipeline.stages])
        for pipeline in manifest.pipelines
    ]
    sources = {source.type: {"items": source.items} for source in manifest.sources}
    told = {"version": "2", "pipelines": pipelines}
    return _filled(told, metadata=manifest.metadata, sources=sources)


def _describe_stage(stage: Stage) -> dict[str, Json]:
    devices = {each.name: _describe_device(each) for each in stage.devices}
    inputs = {each.name: _describe_input(each) for each in stage.inputs}
    return _filled(
        {"type": stage.type, "id": stage.id},
        options=stage.options,
        devices=devices,
        mounts=[_describe_mount(mount) for mount in stage.mounts],
        inputs=inputs,
    )


def _describe_device(device: Device) -> dict[str, Json]:
    return _filled({"type": device.type}, options=device.options)


def _describe_input(given: Input) -> dict[str, Json]:
    told = {"type": given.type, "origin": given.origin}
    return _filled(told, options=given.options, references=given.references)


def _describe_mount(mount: Mount) -> dict[str, Json]:
    told = {"name": mount.name, "type": mount.type, "target": mount.target}
    source = mount.device.name if mount.device else None
    return _filled(told, source=source, options=mount.options, partition=mount.partition)


def _filled(told: dict[str, Json], **more: Json) -> dict[str, Json]:
    """`told` with those of the others that are not empty."""
    return {**told, **{key: value for key, value in more.items() if value}}
