"""Names in a manifest become what they stand for: pipelines, sources, devices, runners."""

import re
from collections.abc import Mapping
from typing import Any

from osbuild_pika.devices import Device, parents_first
from osbuild_pika.engine.manifest import (
    FROM_SOURCE,
    Input,
    Json,
    Manifest,
    Mount,
    Pipeline,
    Source,
    Stage,
)
from osbuild_pika.engine.modules import Modules
from osbuild_pika.engine.schema import INPUT_NAME, Path
from osbuild_pika.errors import ManifestFault

MAX_PARENTS = 64  # of devices that lie on each other
_PREFIX = "name:"


class Resolver:
    """Makes the values of one document whose structure is sound; `faults` is what went wrong."""

    def __init__(self, document: Json, modules: Modules, is_strict: bool) -> None:
        self.faults: list[ManifestFault] = []
        self._document = document
        self._modules = modules
        self._is_strict = is_strict
        self._pipelines: dict[Any, Pipeline] = {}  # by name, those so far
        self._ids: set[str | None] = set()  # of those
        self._checksums: set[str] = set()

    def manifest(self) -> Manifest:
        """To be thrown away if there are faults."""
        for name, entry in self._document.get("sources", {}).items():
            if isinstance(entry["items"], dict):
                self._checksums |= entry["items"].keys()
            else:
                self._fault(("sources", name, "items"), "the items are not an object")
        for index, entry in enumerate(self._document.get("pipelines", [])):
            self._pipeline(entry, ("pipelines", index))
        self._check_build_ids()
        sources = tuple(
            Source(name, entry["items"], entry.get("options", {}))
            for name, entry in self._document.get("sources", {}).items()
        )
        metadata = self._document.get("metadata", {})
        return Manifest(tuple(self._pipelines.values()), sources, metadata)

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(ManifestFault(path, message))

    def _pipeline(self, entry: dict[str, Json], path: Path) -> None:
        name = entry["name"]
        if name in self._pipelines:
            self._fault((*path, "name"), f"another pipeline is called {name} already")
        build = self._build(entry, path)
        runner = entry.get("runner")
        if runner and self._modules.has_runners() and self._modules.runner(runner) is None:
            self._fault((*path, "runner"), f"no runner is suitable for {runner}")
        stages: list[Stage] = []
        for index, stage in enumerate(entry.get("stages", [])):
            base = stages[-1].id if stages else None
            options = stage.get("options", {})
            bare = Stage(stage["type"], build, base, entry.get("source-epoch"), options)
            stages.append(self._stage(stage, bare, name, (*path, "stages", index)))
        pipeline = self._pipelines.setdefault(name, Pipeline(name, build, runner, tuple(stages)))
        self._ids.add(pipeline.id)

    def _build(self, entry: dict[str, Json], path: Path) -> str | None:
        build: str | None = entry.get("build")
        if build is None or not build.startswith(_PREFIX):
            if self._is_strict and build is not None and build not in self._ids:
                message = f"no earlier pipeline has this id; a name is written {_PREFIX}{build}"
                self._fault((*path, "build"), message)
            return build
        return self._pipeline_id(build, (*path, "build"))

    def _check_build_ids(self) -> None:
        """Upstream also takes the id of a later pipeline."""
        if self._is_strict:
            return  # the earlier ones have been looked at already
        for index, entry in enumerate(self._document.get("pipelines", [])):
            build = entry.get("build")
            if build and not build.startswith(_PREFIX) and build not in self._ids:
                self._fault(("pipelines", index, "build"), "no pipeline has this id")

    def _pipeline_id(self, reference: str, path: Path) -> str | None:
        pipeline = self._pipelines.get(reference.removeprefix(_PREFIX))
        if pipeline is None:
            self._fault(path, f"no earlier pipeline is called {reference.removeprefix(_PREFIX)}")
            return None
        return pipeline.id

    def _stage(self, entry: dict[str, Json], stage: Stage, pipeline: Any, path: Path) -> Stage:
        """Complete a stage that has neither inputs nor devices nor mounts yet."""
        devices = self._devices(entry.get("devices", {}), (*path, "devices"))
        for name, given in entry.get("inputs", {}).items():
            if re.match(INPUT_NAME, name):
                bare = Input(name, given["type"], given["origin"], {}, given.get("options", {}))
                stage = stage._replace(inputs=(*stage.inputs, bare))
                references = self._references(given, stage, pipeline, (*path, "inputs", name))
                made = bare._replace(references=references)
                stage = stage._replace(inputs=(*stage.inputs[:-1], made))
        mounts = self._mounts(entry, devices, (*path, "mounts"))
        return stage._replace(devices=tuple(parents_first(devices.values())), mounts=mounts)

    def _references(
        self, given: dict[str, Json], stage: Stage, pipeline: Any, path: Path
    ) -> Mapping[str | None, Json]:
        """Resolve an input's references.

        stage: as it is so far, with this input but without its references. Upstream takes its id
        for a reference to the pipeline that the stage belongs to.
        """
        found: dict[str | None, Json] = {}
        for name, (key, options) in _forms(given["references"]).items():
            at = (*path, "references", key)
            if self._is_strict and not isinstance(options, dict):
                self._fault(at, "the options of a reference are an object")
            if given["origin"] == FROM_SOURCE:
                if name not in self._checksums:
                    self._fault(at, f"no source has {name}")
                found[name] = options or {}
            elif name == f"{_PREFIX}{pipeline}" and pipeline not in self._pipelines:
                if self._is_strict:
                    self._fault(at, "a stage cannot read the pipeline that it belongs to")
                found[stage.id] = options or {}
            elif name.startswith(_PREFIX):
                found[self._pipeline_id(name, at)] = options or {}
            elif self._is_strict:
                self._fault(at, f"a reference to a pipeline is written {_PREFIX}NAME")
        if None in found and len(found) > 1:
            message = "a pipeline without stages cannot be read together with others"
            self._fault((*path, "references"), message)
            del found[None]
        return found

    def _devices(self, entries: dict[str, Json], path: Path) -> dict[str, Device]:
        """The devices of a stage by name; none if some cannot be made."""
        before = len(self.faults)
        for name, entry in entries.items():
            parent = entry.get("parent")
            if parent and parent not in entries:
                self._fault((*path, name, "parent"), f"no device of the stage is called {parent}")
            elif parent and not _has_end(name, entries):
                message = f"its parents form a cycle, or are more than {MAX_PARENTS}"
                self._fault((*path, name, "parent"), message)
        if len(self.faults) > before:
            return {}
        made: dict[str, Device] = {}
        for name in entries:
            _make_device(name, entries, made)
        return {name: made[name] for name in entries}

    def _mounts(
        self, stage: dict[str, Json], devices: dict[str, Device], path: Path
    ) -> tuple[Mount, ...]:
        made: dict[str, Mount] = {}
        for index, entry in enumerate(stage.get("mounts", [])):
            name, source = entry["name"], entry.get("source")
            if name in made:
                self._fault((*path, index, "name"), f"another mount is called {name} already")
            if source and source not in stage.get("devices", {}):
                message = f"no device of the stage is called {source}"
                self._fault((*path, index, "source"), message)
            made[name] = Mount(
                name,
                entry["type"],
                devices.get(source) if source else None,
                entry.get("target"),
                entry.get("partition"),
                entry.get("options", {}),
            )
        return tuple(made.values())


def _forms(references: Json) -> dict[str, tuple[str | int, Json]]:
    """The three forms of references as one: reference -> (its place, its options).

    The last one of equal ones counts.
    """
    if isinstance(references, dict):
        return {name: (name, options) for name, options in references.items()}
    return {
        each if isinstance(each, str) else each["id"]: (
            index,
            {} if isinstance(each, str) else each.get("options", {}),
        )
        for index, each in enumerate(references)
    }


def _has_end(name: str, entries: dict[str, Json]) -> bool:
    """Say whether the parents of a device end in one that has none, or that does not exist."""
    for _ in range(MAX_PARENTS):
        name = entries.get(name, {}).get("parent", "")
        if not name:
            return True
    return False


def _make_device(name: str, entries: dict[str, Json], made: dict[str, Device]) -> Device:
    entry = entries[name]
    if name not in made:
        parent = _make_device(entry["parent"], entries, made) if entry.get("parent") else None
        made[name] = Device(name, entry["type"], entry.get("options", {}), parent)
    return made[name]
