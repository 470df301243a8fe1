"""One build: what is needed of the sources, then the stages that must run, then the exports.

Everything that happens goes out as records (see osbuild_pika/monitor.py) and to the lifecycle
service. A finished stage is kept at once, so whatever ends a build, the next one resumes there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.engine import area as areas
from osbuild_pika.engine import buildroot, fetched, fetching, layers, stagework
from osbuild_pika.engine.export import export_empty, export_tree, make_parents
from osbuild_pika.engine.manifest import Manifest
from osbuild_pika.engine.plan import Plan, PlannedPipeline, Step
from osbuild_pika.engine.reporting import Reporting, StageFailed, explain
from osbuild_pika.engine.scratch import Made, Scratch, Tree
from osbuild_pika.engine.stagework import Desk, Done, Job
from osbuild_pika.engine.storeapi import Trees
from osbuild_pika.errors import InputError
from osbuild_pika.host import ServiceManager


class Export(NamedTuple):
    """A finished pipeline's tree, and the directory that it is copied to.

    fingerprint: of the Incus image that it holds, as the stage that packed it has left it.
    """

    pipeline: str
    id: str | None
    path: str
    fingerprint: str | None = None


class Build:
    """The work of one build, in its order; whoever made it calls `fetch`, `make`, `export`.

    scratch: has pinned what the plan found in the store.
    """

    def __init__(
        self, manifest: Manifest, plan: Plan, scratch: Scratch, desk: Desk, out: Reporting
    ) -> None:
        self._manifest = manifest
        self._plan = plan
        self._scratch = scratch
        self._desk = desk
        self._out = out
        self._keys = _keys_by_id(plan)
        self._place = Path(scratch.directory)
        self._count = 0

    def fetch(self) -> None:
        """Get what stages will read. Raises SourceError after the first source that fails."""
        store = self._scratch.store
        cache = os.path.join(store.directory, "sources")
        for source in self._manifest.sources:
            wanted = self._plan.sources.get(source.type, ())
            if not wanted:
                continue
            items = {name: item for name, item in source.items.items() if name in wanted}
            module = self._desk.find("sources", source.type)
            self._out.source_started(source, len(items))
            hear = self._desk.hear({f"source/{source.type}": source.type})
            with ServiceManager(hear) as services, self._desk.interrupts.ending(services):
                got = fetching.fetch(
                    services,
                    source._replace(items=items),
                    str(module.executable),
                    cache,
                    lambda value, source=source: self._out.source_progress(source, value),  # type: ignore[misc]
                )
            self._out.source_finished(source, got)
            if not got.is_success:
                raise fetching.SourceError(f"{source.type}: {fetching.first_error(got)}")
            fetched.mark_used(store.sources, items, store.access.base)

    def make(self) -> None:
        """Run what is not in the store. Raises StageFailed, PikaError."""
        if self._plan.has_work:
            buildroot.prepare_lib(self._place / "lib")
        for planned in self._plan.pipelines:
            self._out.pipeline_started(planned)
            cached = [step for step in planned.steps if step.is_cached]
            self._out.stages_cached(planned, cached, self._metadata(cached))
            try:
                self._run_pipeline(planned, cached)
            finally:
                self._out.pipeline_finished(planned)

    def _run_pipeline(self, planned: PlannedPipeline, cached: Sequence[Step]) -> None:
        with contextlib.ExitStack() as stack:
            base = next((step.key for step in reversed(cached) if step.is_kept), None)
            for group in _groups(planned.steps[len(cached) :]):
                self._run_group(planned, group, base, stack)
                base = group[-1].key

    def _metadata(self, cached: Iterable[Step]) -> dict[str, Any]:
        """What cached stages left when they ran, by their ids."""
        found: dict[str, Any] = {}
        for step in cached:
            if step.is_kept:
                with contextlib.suppress(ValueError):  # damaged: the tree is sound all the same
                    found |= json.loads(self._scratch.store.meta(step.key))
        return found

    def _run_group(
        self,
        planned: PlannedPipeline,
        group: list[Step],
        base: str | None,
        stack: contextlib.ExitStack,
    ) -> None:
        """Run the stages that share a layer, and keep it."""
        begin = time.monotonic()
        root, etc = self._root(planned, stack)
        with self._scratch.tree(base) as tree:
            metadata: dict[str, Any] = {}
            for step in group:
                done = self._run(planned, step, tree, (root, etc))
                if done.metadata is not None:
                    metadata[step.stage.id] = done.metadata
            last = group[-1]
            stage = last.stage
            made = Made(
                last.key, stage.id, stage.type, time.monotonic() - begin, stage.source_epoch
            )
            self._scratch.commit(tree, made, json.dumps(metadata).encode() + b"\n")

    def _root(self, planned: PlannedPipeline, stack: contextlib.ExitStack) -> tuple[Path, Path]:
        """The build root of a pipeline and its /etc."""
        build = planned.pipeline.build
        if build is None:
            root = Path("/")
        else:
            root = Path(stack.enter_context(self._scratch.view(self._keys[build])))
        etc = self._place / f"etc-{build or 'host'}"
        if not etc.exists():
            buildroot.prepare_etc(root, etc)
        return root, etc

    def _run(
        self, planned: PlannedPipeline, step: Step, tree: Tree, root: tuple[Path, Path]
    ) -> Done:
        stage = step.stage
        module = self._desk.find("stages", stage.type)
        self._count += 1  # an id may run twice: on another tree, or for a layer of its own
        var, scratch = (self._place / f"{name}-{self._count}" for name in ("var", "scratch"))
        var.mkdir()
        if stage.inputs:  # who maps them may want it
            scratch.mkdir()
        is_ours = module.directory == buildroot.modules_directory()
        lib = self._place / "lib" if is_ours else module.directory
        parts = areas.Parts(*root, lib, module.executable, Path(tree.path), var)
        self._out.stage_started(planned, step)
        with contextlib.ExitStack() as stack:
            shown = {
                each: stack.enter_context(self._scratch.view(self._keys[each]))
                for each in dict.fromkeys(stagework.references(stage))
            }
            sources = os.path.join(self._scratch.store.directory, "sources")
            trees = Trees(shown, sources, str(scratch))
            job = Job(planned.pipeline.name, stage, module, parts, trees, is_ours)
            done = stagework.run_stage(self._desk, job, self._out.stage_output)
        failure = explain(done, self._desk.limits)
        self._out.stage_finished(planned, step, done, failure)
        if failure is not None:
            raise StageFailed(planned.pipeline.name, stage, failure)
        return done

    def export(self, output: str, is_forced: bool) -> Iterator[Export]:
        """Copy the trees of the wanted pipelines below `output`, one by one. Raises PikaError."""
        for planned in self._wanted():
            name = planned.pipeline.name
            path = os.path.join(os.path.abspath(output), name)
            self._out.export_started(name, path)
            if planned.steps:
                calling = self._desk.interrupts.calling
                export_tree(self._scratch, planned.steps[-1].key, path, is_forced, calling)
            else:
                export_empty(path, is_forced)
            self._out.export_finished(name, path)
            left = self._metadata(planned.steps[-1:]).values()
            yield Export(name, planned.pipeline.id, path, _fingerprint(left))

    def check_targets(self, output: str, is_forced: bool) -> None:
        """Make the directories of the exports, and refuse before any work what would be refused
        afterwards. Raises InputError."""
        names = [planned.pipeline.name for planned in self._wanted()]
        for name in names:
            within = [each for each in names if name.startswith(f"{each}/")]
            if within:
                raise InputError(f"export {name} would lie in the tree of the export {within[0]}")
            path = make_parents(os.path.abspath(output), name)
            if os.path.lexists(path) and not is_forced:
                raise InputError(f"{path} exists: give another name, or --force to replace it")

    def _wanted(self) -> Iterator[PlannedPipeline]:
        for name in self._plan.exports:
            yield from (each for each in self._plan.pipelines if each.pipeline.name == name)


def _fingerprint(metadata: Iterable[Any]) -> str | None:
    """Of what stages left: foreign, so it has to look like one."""
    found = [each.get("fingerprint") for each in metadata if isinstance(each, dict)]
    return next(filter(layers.is_key, found), None)


def _keys_by_id(plan: Plan) -> dict[str, str]:
    """Id of a pipeline -> key of its tree; of the first one with the id, as the plan's keys."""
    keys: dict[str, str] = {}
    for planned in plan.pipelines:
        if planned.pipeline.id is not None:
            keys.setdefault(planned.pipeline.id, planned.steps[-1].key)
    return keys


def _groups(steps: tuple[Step, ...]) -> Iterator[list[Step]]:
    """Steps that run, in rows that share a layer."""
    group: list[Step] = []
    for step in steps:
        group.append(step)
        if step.is_kept:
            yield group
            group = []
