"""A plan runs what it must and nothing else, and everything is there when it is needed."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import DATA, write_modules

from osbuild_pika.engine.load import load
from osbuild_pika.engine.manifest import Manifest
from osbuild_pika.engine.modules import Modules
from osbuild_pika.engine.plan import Digests, Plan, plan, uses
from osbuild_pika.errors import InputError

SUMS = [f"sha256:{digit * 64}" for digit in "0123"]
REALISTIC = json.loads((DATA / "ids/24-realistic/manifest.json").read_bytes())
LIFECYCLE = {"type": "org.osbuild-pika.lifecycle"}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    directory = write_modules(tmp_path_factory.mktemp("modules") / "m")
    meta = {"summary": "s", "description": ["d"], "schema": {"type": "object"}}
    path = Path(directory, f"devices/{LIFECYCLE['type']}.meta.json")
    path.write_text(json.dumps(meta))
    return Modules([directory])


def noop(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "org.osbuild.noop", "options": {"n": number}, **more}


def disk(number: int, *, start: int = 0) -> dict[str, Any]:
    options = {"filename": "disk", "start": start}
    device = {"type": "org.osbuild.loopback", "options": options}
    return noop(number, devices={"device": device})


def read(modules: Modules, *pipelines: dict[str, Any]) -> Manifest:
    items = {each: {"encoding": "base64", "data": ""} for each in SUMS}
    sources = {"org.osbuild.inline": {"items": items}, "org.osbuild.curl": {"items": {}}}
    document = {"version": "2", "pipelines": pipelines, "sources": sources}
    return load(json.dumps(document).encode(), modules)


def tree(name: str) -> dict[str, Any]:
    origin = {"origin": "org.osbuild.pipeline", "references": [f"name:{name}"]}
    return {"inputs": {"x": {"type": "org.osbuild.tree", **origin}}}


def files(*checksums: str) -> dict[str, Any]:
    origin = {"origin": "org.osbuild.source", "references": list(checksums)}
    return {"inputs": {"x": {"type": "org.osbuild.files", **origin}}}


def digests(manifest: Manifest, **changed: str) -> Digests:
    """changed: the last word of a module's name, or `host` -> another digest."""
    found = {
        use: changed.get(use[1].rpartition(".")[2], "1")
        for pipeline in manifest.pipelines
        for stage in pipeline.stages
        for use in uses(stage)
    }
    return Digests(changed.get("host", "host"), found)


def make(manifest: Manifest, *exports: str, store: Collection[str] = (), **changed: str) -> Plan:
    return plan(manifest, exports, digests(manifest, **changed), lambda key: key in store)


def shape(made: Plan) -> dict[str, str]:
    """Pipeline -> a letter for each stage: r runs, c is cached."""
    return {
        each.pipeline.name: "".join("c" if step.is_cached else "r" for step in each.steps)
        for each in made.pipelines
    }


def run(made: Plan, store: set[str]) -> set[str]:
    """Carry a plan out; everything that a step needs must be there when it runs."""
    done: set[str] = set()
    for planned in made.pipelines:
        assert set(planned.after) <= done
        below: list[str] = []
        for step in planned.steps:
            assert not step.is_cached or step.why == ""
            assert not step.is_cached or not below, "a cached stage above one that runs"
            if step.is_cached:
                assert step.key in store or not step.is_kept
            else:
                assert step.why
                below.append(step.key)
            if step.is_kept:
                store |= {step.key}
        done |= {planned.pipeline.name}
    return store


def test_only_what_an_export_needs_is_planned(modules: Modules) -> None:
    manifest = read(
        modules,
        {"name": "build", "stages": [noop(1)]},
        {"name": "other", "stages": [noop(2)]},
        {"name": "os", "build": "name:build", "stages": [noop(3, **files(SUMS[1])), noop(4)]},
        {"name": "image", "stages": [noop(5, **tree("os"))]},
    )
    made = make(manifest, "image")
    assert shape(made) == {"build": "r", "os": "rr", "image": "r"}
    assert [each.after for each in made.pipelines] == [(), ("build",), ("os",)]
    assert made.sources == {"org.osbuild.inline": (SUMS[1],)}
    assert made.exports == ("image",)
    assert shape(make(manifest, "other")) == {"other": "r"}
    assert make(manifest, "other").sources == {}
    os_id = manifest.pipelines[2].id
    assert os_id
    assert make(manifest, os_id, "os", "image").exports == ("os", "image")


def test_what_is_cached_needs_nothing(modules: Modules) -> None:
    manifest = read(
        modules,
        {"name": "build", "stages": [noop(1)]},
        {"name": "os", "build": "name:build", "stages": [noop(2, **files(SUMS[0])), noop(3)]},
    )
    store = run(make(manifest, "os"), set())
    assert shape(make(manifest, "os", store=store)) == {"os": "cc"}
    assert make(manifest, "os", store=store).sources == {}


def test_from_the_first_missing_layer_on_everything_runs(modules: Modules) -> None:
    manifest = read(modules, {"name": "a", "stages": [noop(n) for n in range(4)]})
    made = make(manifest, "a")
    store = run(made, set()) - {made.steps[1].key}
    again = make(manifest, "a", store=store)
    assert shape(again) == {"a": "crrr"}
    assert [step.why for step in again.steps] == [
        "",
        "the store has no such layer",
        "stages below it run",
        "stages below it run",
    ]


def test_stages_on_a_disk_share_one_layer(modules: Modules) -> None:
    stages = [noop(0), disk(1), disk(2), noop(3), disk(4)]
    manifest = read(modules, {"name": "a", "stages": stages})
    made = make(manifest, "a")
    assert [step.is_kept for step in made.steps] == [True, False, True, True, True]
    keys = [step.key for step in made.steps]
    assert shape(make(manifest, "a", store=[keys[0], keys[1]])) == {"a": "crrrr"}
    assert shape(make(manifest, "a", store=[keys[0], keys[2]])) == {"a": "cccrr"}


def test_code_counts_and_reaches_what_was_made_with_it(modules: Modules) -> None:
    mkdir = {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/a"}]}}
    manifest = read(
        modules,
        {"name": "build", "stages": [mkdir]},
        {"name": "apart", "stages": [noop(1)]},
        {"name": "built", "build": "name:build", "stages": [noop(2)]},
        {"name": "os", "stages": [noop(3), mkdir, noop(4)]},
        {"name": "image", "stages": [noop(5, **tree("os"))]},
    )
    exports = ("apart", "built", "os", "image")
    store = run(make(manifest, *exports), set())
    assert set("".join(shape(make(manifest, *exports, store=store)).values())) == {"c"}
    changed = make(manifest, *exports, store=store, mkdir="2")
    assert shape(changed) == {"build": "r", "apart": "c", "built": "r", "os": "crr", "image": "r"}
    other_host = shape(make(manifest, *exports, store=store, host="other"))
    assert other_host == {"build": "r", "apart": "r", "built": "r", "os": "rrr", "image": "r"}


def test_another_place_on_a_disk_is_another_tree_with_the_same_id(modules: Modules) -> None:
    first = read(modules, {"name": "a", "stages": [disk(1)]})
    other = read(modules, {"name": "a", "stages": [disk(1, start=2048)]})
    assert first.pipelines[0].id == other.pipelines[0].id
    assert make(first, "a").steps[0].key != make(other, "a").steps[0].key


def test_a_device_that_only_reports_changes_no_key(modules: Modules) -> None:
    plain = read(modules, {"name": "a", "stages": [noop(1), noop(2)]})
    device = {"devices": {"lifecycle": LIFECYCLE}}
    reporting = read(modules, {"name": "a", "stages": [noop(1, **device), noop(2, **device)]})
    assert [step.key for step in make(plain, "a").steps] == [
        step.key for step in make(reporting, "a").steps
    ]
    assert [step.is_kept for step in make(reporting, "a").steps] == [True, True]


def test_what_two_pipelines_have_in_common_is_made_once(modules: Modules) -> None:
    manifest = read(
        modules,
        {"name": "a", "stages": [noop(1), noop(2)]},
        {"name": "b", "stages": [noop(1), noop(2), noop(3)]},
        {"name": "c", "stages": [noop(1), noop(4)]},
    )
    made = make(manifest, "a", "b", "c")
    assert shape(made) == {"a": "rr", "b": "ccr", "c": "cr"}
    assert [each.after for each in made.pipelines] == [(), ("a",), ("a",)]


def test_pipelines_without_stages_are_empty_trees(modules: Modules) -> None:
    stages = [noop(1, **tree("empty"))]
    manifest = read(modules, {"name": "empty"}, {"name": "a", "build": "name:empty"}, {
        "name": "b", "build": "name:empty", "stages": stages})  # fmt: skip
    assert shape(make(manifest, "empty", "a", "b")) == {"empty": "", "a": "", "b": "r"}


def test_an_unknown_export_is_bad_input(modules: Modules) -> None:
    manifest = read(modules, {"name": "a", "stages": [noop()]})
    with pytest.raises(InputError, match="no pipeline is called b; there are: a"):
        make(manifest, "b")


def test_a_real_manifest_is_made_once(modules: Modules) -> None:
    manifest = load(json.dumps(REALISTIC).encode(), modules)
    names = [pipeline.name for pipeline in manifest.pipelines]
    store = run(make(manifest, *names), set())
    assert all(step.is_cached for step in make(manifest, *names, store=store).steps)


@st.composite
def documents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Pipelines that share stages, build each other and read each other."""
    made: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 5))):
        stages: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from(["plain", "tree", "files", "disk"]))
            number = draw(st.integers(0, 1))
            full = [each["name"] for each in made if each.get("stages")]
            if kind == "tree" and full:
                stages.append(noop(number, **tree(draw(st.sampled_from(full)))))
            elif kind == "files":
                stages.append(noop(number, **files(draw(st.sampled_from(SUMS)))))
            else:
                stages.append(disk(number) if kind == "disk" else noop(number))
        pipeline: dict[str, Any] = {"name": f"p{index}", "stages": stages}
        is_built = draw(st.booleans())
        if is_built and made:
            pipeline["build"] = f"name:{draw(st.sampled_from(made))['name']}"
        made.append(pipeline)
    return made


@settings(max_examples=50)
@given(pipelines=documents(), data=st.data())
def test_any_plan_can_be_carried_out_and_is_enough(
    modules: Modules, pipelines: list[dict[str, Any]], data: st.DataObject
) -> None:
    manifest = read(modules, *pipelines)
    names = [pipeline["name"] for pipeline in pipelines]
    exports = data.draw(st.lists(st.sampled_from(names), min_size=1))
    everything = [step.key for step in make(manifest, *names).steps]
    store = {key for key in everything if data.draw(st.booleans())}
    made = make(manifest, *exports, store=store)
    done = run(made, set(store))
    again = make(manifest, *exports, store=done)
    assert all(step.is_cached for step in again.steps)
    assert {each.pipeline.name for each in again.pipelines} == set(exports)
    wanted = {
        checksum
        for step in made.steps
        if not step.is_cached
        for each in step.stage.inputs
        if each.origin == "org.osbuild.source"
        for checksum in each.references
    }
    assert {checksum for items in made.sources.values() for checksum in items} == wanted


@settings(max_examples=30)
@given(pipelines=documents())
def test_equal_keys_are_equal_stages(modules: Modules, pipelines: list[dict[str, Any]]) -> None:
    manifest = read(modules, *pipelines)
    steps = make(manifest, *[pipeline["name"] for pipeline in pipelines]).steps
    by_key = {step.key: step.stage.id for step in steps}
    assert [by_key[step.key] for step in steps] == [step.stage.id for step in steps]
