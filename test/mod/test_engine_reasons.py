"""A plan names what is different from the newest run of the same manifest."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.engine import reasons
from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard
from osbuild_pika.engine.plan import Digests, Plan, plan, uses

MKDIR = "org.osbuild.mkdir"
MANIFEST: Any = {
    "version": "2",
    "pipelines": [
        {"name": "root", "stages": [{"type": MKDIR, "options": {"paths": [{"path": "/usr"}]}}]},
        {
            "name": "tree",
            "build": "name:root",
            "stages": [
                {"type": MKDIR, "options": {"paths": [{"path": "/etc"}]}},
                {"type": "org.osbuild.hostname", "options": {"hostname": "a"}},
                {"type": "org.osbuild-pika.demo", "options": {"steps": 1}},
            ],
        },
    ],
}


def planned(manifest: Any, store: Collection[str] = (), **changed: str) -> Plan:
    """changed: the last word of a stage's type, or `host` -> another digest."""
    loaded = load(json.dumps(manifest).encode(), standard([]))
    digests = Digests(
        changed.get("host", "h"),
        {
            use: changed.get(use[1].rpartition(".")[2], "1")
            for each in loaded.pipelines
            for stage in each.stages
            for use in uses(stage)
        },
    )
    return plan(loaded, ["tree"], digests, lambda key: key in store)


def whys(made: Plan, *earlier: dict[str, Any]) -> dict[str, list[str]]:
    document = reasons.describe(made, "m.json", earlier)
    return {
        each["name"]: [stage["why"] for stage in each["stages"]] for each in document["pipelines"]
    }


@pytest.fixture
def before() -> dict[str, Any]:
    return reasons.describe(planned(MANIFEST), "m.json")


def edited(*path: Any, value: Any) -> Any:
    """The manifest with another value at a path below the stages of `tree`."""
    manifest: Any = copy.deepcopy(MANIFEST)
    place = manifest["pipelines"][1]
    for each in path[:-1]:
        place = place[each]
    place[path[-1]] = value
    return manifest


def test_what_no_run_knows_was_not_built() -> None:
    assert whys(planned(MANIFEST)) == {
        "root": ["not built before"],
        "tree": [*(3 * ["not built before"])],
    }


def test_what_is_cached_needs_no_reason(before: dict[str, Any]) -> None:
    keys = {step.key for step in planned(MANIFEST).steps}
    assert whys(planned(MANIFEST, keys), before) == {"tree": ["", "", ""]}


def test_an_option_is_named(before: dict[str, Any]) -> None:
    made = planned(edited("stages", 1, "options", "hostname", value="b"))
    assert whys(made, before)["tree"][1:] == [
        "the option hostname changed",
        "the stage below changed",
    ]


def test_code_is_named(before: dict[str, Any]) -> None:
    assert whys(planned(MANIFEST, mkdir="2"), before) == {
        "root": ["the code of org.osbuild.mkdir changed"],
        "tree": [
            "the code of org.osbuild.mkdir, the build root (pipeline) changed",
            "the build root (pipeline), the stage below changed",
            "the build root (pipeline), the stage below changed",
        ],
    }


def test_the_packages_of_the_host_are_named(before: dict[str, Any]) -> None:
    why = whys(planned(MANIFEST, host="other"), before)
    assert why["root"] == ["the build root (packages of the host) changed"]


def test_an_epoch_is_named(before: dict[str, Any]) -> None:
    why = whys(planned(edited("source-epoch", value=1)), before)["tree"]
    assert why[0] == "the source-epoch changed"


def test_a_stage_put_in_between_shifts_the_rest(before: dict[str, Any]) -> None:
    stages = MANIFEST["pipelines"][1]["stages"]
    more = [stages[0], {"type": "org.osbuild.noop"}, *stages[1:]]
    assert whys(planned(edited("stages", value=more)), before)["tree"] == [
        "the same as before, but the store has no such layer",
        "not built before",
        "the stage below changed",
        "the stage below changed",
    ]


def test_the_newest_plan_that_has_the_pipeline_counts(before: dict[str, Any]) -> None:
    newer = {"manifest": "m.json", "pipelines": []}
    made = planned(edited("stages", 1, "options", "hostname", value="b"))
    assert whys(made, newer, before)["tree"][1] == "the option hostname changed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"pipelines": 3}',
        '{"pipelines": [3, {"name": "tree", "stages": [1]}]}',
        '{"pipelines": [{"name": "tree", "stages": [{"type": "org.osbuild.mkdir"}]}]}',
    ],
)
def test_an_earlier_plan_of_any_shape_is_no_obstacle(text: str, tmp_path: Path) -> None:
    run = tmp_path / "web"
    run.mkdir()
    (run / "plan.json").write_text(text.replace("{", '{"manifest": "m.json", ', 1))
    assert len(whys(planned(MANIFEST), *reasons.earlier(str(tmp_path), "m.json"))["tree"]) == 3


def test_earlier_plans_are_those_of_the_same_name(tmp_path: Path) -> None:
    for name, manifest in (("a", "m.json"), ("b", "other.json"), ("c", "m.json")):
        (tmp_path / name).mkdir()
        reasons.write(str(tmp_path / name), {"manifest": manifest, "n": name})
    found = reasons.earlier(str(tmp_path), "m.json", but="c")
    assert [each["n"] for each in found] == ["a"]
    assert reasons.earlier(str(tmp_path / "gone"), "m.json") == []
