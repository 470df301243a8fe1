"""What is refused of a manifest and where, and that nothing else ever comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import DATA, IDS, faults, write_modules

from osbuild_pika.engine.load import MAX_DEPTH, load
from osbuild_pika.engine.manifest import describe
from osbuild_pika.engine.modules import Modules
from osbuild_pika.errors import ManifestError, ManifestFault

NOOP: dict[str, Any] = {"type": "org.osbuild.noop"}
NAME = ".pipelines[0].name"
STAGE = ".pipelines[0].stages[0]"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return Modules([write_modules(tmp_path_factory.mktemp("modules") / "m")])


def manifest(**stage: Any) -> dict[str, Any]:
    stages = [{**NOOP, **stage}]
    return {"version": "2", "pipelines": [{"name": "a", "stages": stages}]}


def named(name: Any, **more: Any) -> dict[str, Any]:
    return {"version": "2", "pipelines": [{"name": name, **more}]}


def test_everything_is_told_at_once(modules: Modules) -> None:
    document = {
        "version": "2",
        "unknown": 1,
        "pipelines": [
            {"name": "..", "build": "name:b", "source-epoch": -1},
            {"name": "a", "stages": [NOOP, {"type": "org.osbuild.truncate"}, {"type": "x"}]},
        ],
        "sources": {"org.osbuild.inline": {"items": {"sha256:1": {}}}},
    }
    assert faults(document, modules) == [
        ".",
        ".pipelines[0].build",
        ".pipelines[0].name",
        ".pipelines[0].source-epoch",
        ".pipelines[1].stages[1].options",
        ".pipelines[1].stages[2]",
        ".sources.org.osbuild.inline.items",
    ]


def test_an_error_names_the_first_fault_and_counts_the_others(modules: Modules) -> None:
    with pytest.raises(ManifestError) as caught:
        load(json.dumps(named("..", build="name:b")).encode(), modules)
    assert str(caught.value) == (
        ".pipelines[0].build: no earlier pipeline is called b (and 1 more)"
    )
    assert caught.value.exit_code == 2
    assert [fault.path for fault in caught.value.faults] == [
        ("pipelines", 0, "build"),
        ("pipelines", 0, "name"),
    ]


def test_a_place_is_written_as_upstream_does() -> None:
    assert ManifestFault(("a b", 3, "c"), "m").place == ".'a b'[3].c"
    assert ManifestFault((), "m").place == "."


@pytest.mark.parametrize("name", ["a", "os/tree", "a b", "-", ".hidden", "ü", "x" * 255])
def test_names_that_stay_below_a_directory(name: str, modules: Modules) -> None:
    assert faults(named(name), modules) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "/a", "a/", "a//b", "a/../b", "a\n", "a\0", "\ud800", "x" * 256, 5, None],
)
def test_names_that_do_not(name: Any, modules: Modules) -> None:
    assert faults(named(name), modules) == [NAME]
    assert faults(named(name), modules, is_strict=False) == []


@pytest.mark.parametrize("epoch", [-1, 2**64, 10**4000])
def test_an_epoch_that_is_no_time_is_refused(epoch: int, modules: Modules) -> None:
    assert faults(named("a", **{"source-epoch": epoch}), modules) == [".pipelines[0].source-epoch"]


@pytest.mark.parametrize("key", ["", "a/b", "..", "a\nb"])
def test_the_names_of_devices_and_mounts_are_names_of_files(key: str, modules: Modules) -> None:
    device = {"type": "org.osbuild.loopback", "options": {"filename": "x"}}
    mounts = [{"type": "org.osbuild.noop", "name": key, "source": "d", "target": "/"}]
    assert faults(manifest(devices={key: device}), modules) == [f"{STAGE}.devices"]
    assert faults(manifest(devices={"d": device}, mounts=mounts), modules) == [
        f"{STAGE}.mounts[0].name"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("target", "/a/../.."), ("target", "a\0"), ("partition", 1.5), ("partition", -1)],
)
def test_what_a_mount_may_not_say(field: str, value: Any, modules: Modules) -> None:
    device = {"type": "org.osbuild.loopback", "options": {"filename": "x"}}
    mount = {"type": "org.osbuild.noop", "name": "m", "source": "d", "target": "/", field: value}
    document = manifest(devices={"d": device}, mounts=[mount])
    assert faults(document, modules) == [f"{STAGE}.mounts[0].{field}"]
    assert faults(document, modules, is_strict=False) == []


@pytest.mark.parametrize(
    "name",
    [
        f"sha256:{'0' * 63}",
        f"sha256:{'0' * 65}",
        f"sha256:{'0' * 64}\n",
        f"xsha256:{'0' * 64}",
        f"sha1:{'0' * 64}",
    ],
)
def test_a_checksum_is_one_from_its_first_to_its_last_character(
    name: str, modules: Modules
) -> None:
    items = {name: {"encoding": "base64", "data": ""}}
    document = {"version": "2", "sources": {"org.osbuild.inline": {"items": items}}}
    assert faults(document, modules) == [".sources.org.osbuild.inline.items"]
    assert faults(document, modules, is_strict=False) == []


@pytest.mark.parametrize("bits", [("md5", 32), ("sha1", 40), ("sha384", 96), ("sha512", 128)])
def test_every_algorithm_has_its_length(bits: tuple[str, int], modules: Modules) -> None:
    items = {f"{bits[0]}:{'0' * bits[1]}": {"encoding": "base64", "data": ""}}
    document = {"version": "2", "sources": {"org.osbuild.inline": {"items": items}}}
    assert faults(document, modules) == []


def test_a_raw_build_id_is_that_of_an_earlier_pipeline(modules: Modules) -> None:
    tree = {"name": "tree", "stages": [NOOP]}
    identity = load(json.dumps({"version": "2", "pipelines": [tree]}).encode(), modules)
    user = {"name": "user", "build": identity.pipelines[0].id}
    later = {"version": "2", "pipelines": [user, tree]}
    assert faults(later, modules) == [".pipelines[0].build"]
    assert faults(later, modules, is_strict=False) == []
    assert faults({"version": "2", "pipelines": [tree, user]}, modules) == []
    assert faults(named("a", build=""), modules) == [".pipelines[0].build"]


def test_a_chain_of_parents_has_an_end(modules: Modules) -> None:
    def chain(length: int) -> dict[str, Any]:
        devices = {
            f"d{n}": {
                "type": "org.osbuild.lvm2.lv",
                "parent": f"d{n + 1}",
                "options": {"volume": "v"},
            }
            for n in range(length)
        }
        disk = {"type": "org.osbuild.loopback", "options": {"filename": "x"}}
        return manifest(devices={**devices, f"d{length}": disk})

    loaded = load(json.dumps(chain(60)).encode(), modules)
    assert [device.name for device in loaded.pipelines[0].stages[0].devices][:2] == ["d60", "d59"]
    assert faults(chain(500), modules)[0].endswith(".parent")


def test_a_runner_counts_only_where_there_are_runners(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    assert faults(named("a", runner="org.osbuild.plan9"), Modules([tmp_path])) == []


def test_what_one_module_lacks_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/org.osbuild.noop.meta.json").write_text("{")
    with pytest.raises(ManifestError, match=r"stages\[0\]: could not find .* JSONDecodeError"):
        load(json.dumps(manifest()).encode(), Modules([tmp_path]))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/definitions/gone"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "#/properties/options"},
        {"properties": {"a": {"pattern": "("}}},
        {"type": "nonsense"},
        {"properties": {"a": {"multipleOf": 0.5}}},
    ],
)
def test_a_bad_schema_of_a_module_is_a_fault_of_the_entry(
    schema: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    meta = {"summary": "s", "description": ["d"], "schema": schema}
    (tmp_path / "stages/org.osbuild.noop.meta.json").write_text(json.dumps(meta))
    option = 10**4000 if "0.5" in str(schema) else "text"
    document = manifest(options={"a": option})
    assert faults(document, Modules([tmp_path])) in ([STAGE], [])


def test_a_message_tells_why_no_form_fits(modules: Modules) -> None:
    paths = [{"from": "tree:///a", "to": "/b"}, {"from": 5, "to": "tree:///b"}]
    document = manifest(type="org.osbuild.copy", options={"paths": paths})
    with pytest.raises(ManifestError) as caught:
        load(json.dumps(document).encode(), modules)
    told = [fault.message for fault in caught.value.faults]
    assert told == [
        "it has no form that is allowed: '/b' does not match '^mount://', "
        "or '/b' does not match '^tree:///'",
        "it has no form that is allowed: 5 is not of type 'string'",
    ]


def test_a_message_about_a_large_value_says_what_is_wrong(modules: Modules) -> None:
    with pytest.raises(ManifestError) as caught:
        load(json.dumps(manifest(type=["x" * 100_000])).encode(), modules)
    message = caught.value.faults[0].message
    assert len(message) < 500
    assert message.endswith("is not of type 'string'")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"version": "2", "metadata": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"version": "2", "metadata": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"version": "2", "metadata": 1' + b"0" * 5000 + b"}",
        '{"version": "2"}'.encode("utf-16"),
        b'{"version": "2"}\0',
        b'{"version": "1", "pipeline": {}}',
    ],
)
def test_hostile_bytes_are_refused(data: bytes, modules: Modules) -> None:
    with pytest.raises(ManifestError) as caught:
        load(data, modules, is_strict=False)
    assert len(str(caught.value)) < 1200


WORDS = ["name:a", "name:", "..", "org.osbuild.noop", "org.osbuild.tree", 10**400]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.text(max_size=5)
JSON = st.recursive(
    LEAVES | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
SEEDS = [json.loads((DATA / "ids" / name / "manifest.json").read_bytes()) for name in IDS]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that a document holds."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(each, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def outcome(text: bytes, modules: Modules, is_strict: bool = False) -> str:
    """How reading ends; anything but these two is raised."""
    try:
        manifest = load(text, modules, is_strict)
    except ManifestError as error:
        return "refused" if error.faults else "refused without a fault"
    return "loaded" if json.loads(json.dumps(describe(manifest, "host"))) else "loaded as nothing"


@settings(max_examples=60)
@given(data=st.data())
def test_nothing_but_a_manifest_error_ever_comes_out(modules: Modules, data: st.DataObject) -> None:
    document = data.draw(st.sampled_from(SEEDS))
    for _ in range(data.draw(st.integers(1, 3))):
        paths = places(document)
        if paths:
            document = changed(document, data.draw(st.sampled_from(paths)), data.draw(JSON))
    text = json.dumps(document).encode()
    for is_strict in (False, True):
        assert outcome(text, modules, is_strict) in ("loaded", "refused")


@settings(max_examples=40)
@given(schema=st.dictionaries(st.sampled_from(["type", "properties", "$ref", "enum"]), JSON))
def test_nothing_else_comes_out_for_odd_modules(
    tmp_path_factory: pytest.TempPathFactory, schema: dict[str, Any]
) -> None:
    directory = tmp_path_factory.mktemp("odd")
    for kind in ("stages", "inputs", "mounts", "devices"):
        for form in ("schema", "schema_2"):
            meta = {"summary": "s", "description": ["d"], form: schema}
            (directory / kind).mkdir(exist_ok=True)
            (directory / kind / f"{form}.meta.json").write_text(json.dumps(meta))
    part = {"type": "schema", "name": "m", "origin": "org.osbuild.source", "references": {}}
    device = {"type": "schema_2", "options": {}}
    mount = {"type": "schema_2", "name": "m"}
    document = manifest(type="schema", inputs={"i": part}, devices={"d": device}, mounts=[mount])
    for is_strict in (False, True):
        assert faults(document, Modules([directory]), is_strict) is not None


@settings(max_examples=40)
@given(data=st.data())
def test_nothing_else_comes_out_for_torn_bytes(modules: Modules, data: st.DataObject) -> None:
    text = bytearray(json.dumps(data.draw(st.sampled_from(SEEDS))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        text[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=6))
    assert outcome(bytes(text), modules) in ("loaded", "refused")
