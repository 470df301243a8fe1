"""What must run to get the wanted trees, in which order, and what the store has already.

Pure: the only question to the store is `have`. A layer is what a stage changed. The key that it
is kept under covers everything that it came from: the stage's id, what lies below and beside it,
and the code that runs; so what has a wanted key needs not be made again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from osbuild_pika.engine.manifest import FROM_PIPELINE, FROM_SOURCE, Manifest, Pipeline, Stage
from osbuild_pika.engine.manifest import digest as digest_of
from osbuild_pika.errors import InputError

# Devices that only report: a tree is the same with and without them.
REPORTING = frozenset({"org.osbuild-pika.lifecycle"})
Use = tuple[str, str]  # a module: its kind and its name


class Digests(NamedTuple):
    """What an id does not cover. host_root: of the host's programs. modules: of every one used."""

    host_root: str
    modules: Mapping[Use, str]


class _Parts(NamedTuple):
    id: str
    below: str | None
    build: str
    read: Mapping[str, str]
    devices: Mapping[str, str]
    mounts: Mapping[str, str]
    code: Mapping[Use, str]


class Parts(_Parts):
    """What makes a stage's tree what it is.

    below, build, read: the keys of the trees below and beside it; build is the digest of the
    host's programs if it runs in none. read: by the pipeline's id. devices,
    mounts: ids by the names that the stage knows them by. code: digests.
    """

    @cached_property
    def key(self) -> str:
        """What the stage's layer is kept under: 64 hex digits."""
        code = list(self.code.values())
        beside = [self.read, self.devices, self.mounts]
        return digest_of(self.id, self.below, self.build, beside, code)


class Step(NamedTuple):
    """One stage of a plan.

    is_cached: it need not run. is_kept: its layer is put into the store; without, its changes
    stay in the layer of a later stage. why: the reason to run it; "" if it does not.
    """

    stage: Stage
    parts: Parts
    is_cached: bool
    is_kept: bool
    why: str = ""

    @property
    def key(self) -> str:
        return self.parts.key


class PlannedPipeline(NamedTuple):
    """after: names of the planned pipelines that must be done before this one can begin."""

    pipeline: Pipeline
    steps: tuple[Step, ...]
    after: tuple[str, ...]


class Plan(NamedTuple):
    """pipelines: those needed, in the manifest's order, which is one that they can run in.

    exports: names. sources: type -> checksums that stages which run will read.
    """

    pipelines: tuple[PlannedPipeline, ...]
    exports: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for planned in self.pipelines for step in planned.steps)

    @property
    def has_work(self) -> bool:
        """Whether any stage must run."""
        return not all(step.is_cached for step in self.steps)


def uses(stage: Stage) -> list[Use]:
    """The modules whose code has a part in what a stage makes."""
    found = {("stages", stage.type)}
    found |= {("inputs", each.type) for each in stage.inputs}
    found |= {("mounts", each.type) for each in stage.mounts}
    found |= {("devices", each.type) for each in stage.devices if each.type not in REPORTING}
    return sorted(found)


def plan(
    manifest: Manifest, exports: Iterable[str], digests: Digests, have: Callable[[str], bool]
) -> Plan:
    """Decide what to do to get the trees of some pipelines, each given by name or id.

    manifest: read strictly. digests.modules: of all that `uses` names. have: whether the store
    has the layer of a key. Raises InputError for an export that is no pipeline.
    """
    names = tuple(dict.fromkeys(_export(manifest, wanted) for wanted in exports))
    by_id = _first_by_id(manifest.pipelines)
    parts = _all_parts(manifest.pipelines, by_id, digests)
    drafts: dict[str, list[Step]] = {}
    needed = set(names)
    # Only earlier pipelines are referred to, so that backwards nothing is needed afterwards.
    for pipeline in reversed(manifest.pipelines):
        if pipeline.name in needed:
            drafts[pipeline.name] = _steps(pipeline.stages, parts[pipeline.name], have)
            running = [step.stage for step in drafts[pipeline.name] if not step.is_cached]
            needed |= {by_id[each] for stage in running for each in _trees(stage)}
    planned: list[PlannedPipeline] = []
    made_by: dict[str, str] = {}  # key -> the pipeline that makes it
    for pipeline in manifest.pipelines:
        if pipeline.name in needed:
            planned.append(_settle(pipeline, drafts[pipeline.name], made_by, by_id))
    return Plan(tuple(planned), names, _sources(manifest, planned))


def _export(manifest: Manifest, wanted: str) -> str:
    for pipeline in manifest.pipelines:
        if pipeline.name == wanted:
            return wanted
    for pipeline in manifest.pipelines:
        if pipeline.id == wanted:
            return str(pipeline.name)
    known = ", ".join(pipeline.name for pipeline in manifest.pipelines) or "none"
    raise InputError(f"no pipeline is called {wanted}; there are: {known}")


def _first_by_id(pipelines: Sequence[Pipeline]) -> dict[str, str]:
    """id -> name of the first pipeline that has it: who refers to the id gets its tree."""
    found: dict[str, str] = {}
    for pipeline in pipelines:
        if pipeline.id is not None:
            found.setdefault(pipeline.id, pipeline.name)
    return found


def _all_parts(
    pipelines: Sequence[Pipeline], by_id: Mapping[str, str], digests: Digests
) -> dict[str, list[Parts]]:
    """The parts of the stages of every pipeline by the pipeline's name."""
    parts: dict[str, list[Parts]] = {}

    def tree(pipeline_id: str) -> str:
        return parts[by_id[pipeline_id]][-1].key

    for pipeline in pipelines:
        found = parts[pipeline.name] = []
        for stage in pipeline.stages:
            below = found[-1].key if found else None
            found.append(_parts(stage, below, tree, digests))
    return parts


def _parts(stage: Stage, below: str | None, tree: Callable[[str], str], digests: Digests) -> Parts:
    return Parts(
        id=stage.id,
        below=below,
        build=tree(stage.build) if stage.build else digests.host_root,
        read={each: tree(each) for each in _read(stage)},
        # Upstream's id of a stage leaves them out, but a stage that formats another part of a
        # file makes another tree.
        devices={each.name: each.id for each in stage.devices if each.type not in REPORTING},
        mounts={each.name: each.id for each in stage.mounts},
        code={use: digests.modules[use] for use in uses(stage)},
    )


def _read(stage: Stage) -> Iterator[str]:
    """The ids of the pipelines whose trees are inputs of a stage; one without stages has none."""
    for given in stage.inputs:
        if given.origin == FROM_PIPELINE:
            yield from (each for each in given.references if each is not None)


def _trees(stage: Stage) -> set[str]:
    """The ids of all pipelines that a stage needs to run."""
    return {*_read(stage), *([stage.build] if stage.build else [])}


def _steps(
    stages: Sequence[Stage], parts: Sequence[Parts], have: Callable[[str], bool]
) -> list[Step]:
    """What runs of one pipeline: everything from the first layer on that is not there.

    What lies above that is made again even if the store has it: it was made on another tree.
    """
    kept = [_is_kept(stages, index) for index in range(len(stages))]
    first = 0  # the first stage that runs
    for index, each in enumerate(parts):
        if kept[index]:
            if not have(each.key):
                break
            first = index + 1
    missing = "the store has no such layer"
    return [
        Step(stage, each, True, is_kept)
        if index < first
        else Step(stage, each, False, is_kept, missing if index == first else "stages below it run")
        for index, (stage, each, is_kept) in enumerate(zip(stages, parts, kept, strict=True))
    ]


def _is_kept(stages: Sequence[Stage], index: int) -> bool:
    """Say whether a stage gets a layer of its own.

    Stages with devices work inside of a large file of the tree; each layer would hold all of the
    file. So a row of them shares the layer of its last one.
    """
    return not all(
        any(device.type not in REPORTING for device in stage.devices)
        for stage in (stages[index], *stages[index + 1 : index + 2])
    ) or index + 1 == len(stages)


def _settle(
    pipeline: Pipeline, draft: Sequence[Step], made_by: dict[str, str], by_id: Mapping[str, str]
) -> PlannedPipeline:
    """Leave out what a pipeline before this one makes, and note what this one makes."""
    shared = 0  # this many stages are there once the earlier pipelines are done
    for index, step in enumerate(draft):
        if step.is_kept:
            if not step.is_cached and step.key not in made_by:
                break
            shared = index + 1
    steps = [
        Step(step.stage, step.parts, True, step.is_kept) if index < shared else step
        for index, step in enumerate(draft)
    ]
    before = {made_by[step.key] for step in steps if step.is_cached and step.key in made_by}
    running = [step for step in steps if not step.is_cached]
    before |= {by_id[each] for step in running for each in _trees(step.stage)}
    for step in running:
        made_by.setdefault(step.key, pipeline.name)
    return PlannedPipeline(pipeline, tuple(steps), tuple(sorted(before)))


def _sources(
    manifest: Manifest, planned: Collection[PlannedPipeline]
) -> dict[str, tuple[str, ...]]:
    """What stages that run read, in the manifest's order, each from the first source with it."""
    wanted = {
        checksum
        for each in planned
        for step in each.steps
        if not step.is_cached
        for given in step.stage.inputs
        if given.origin == FROM_SOURCE
        for checksum in given.references
    }
    found: dict[str, tuple[str, ...]] = {}
    for source in manifest.sources:
        items = tuple(checksum for checksum in source.items if checksum in wanted)
        wanted -= set(items)
        if items:
            found[source.type] = items
    return found
