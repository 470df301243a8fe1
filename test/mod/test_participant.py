"""Workitems: what is taken, what is refused, and what goes out. Nothing is built here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import participants
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import HostError, InputError
from osbuild_pika.participant import build, options, site, workitem
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Outcome

SCHEMA = json.loads((data_folder("schemas") / "workitem.schema.json").read_text())
GOOD: dict[str, Any] = {
    "kickstart": "lang C\n",
    "image_id": "i1",
    "image_type": "incus-container",
    "name": "little",
}
BAD_NAMES: tuple[Any, ...] = (
    *("../x", "/etc/passwd", ".", "..", ".hidden", "a/b", "A", "a b", "a\n", "a\0", "-a", "é"),
    *("$(id)", "`id`", "a;b", "x" * 65, "\x1b[2J", "\ud800", 1, None, [], {}, True),
)


def wi(**image: Any) -> dict[str, Any]:
    return {"fields": {"image": {**GOOD, **image}}}


def site_of(path: Path) -> Site:
    return Site(str(path / "d"), str(path / "store"))


def test_a_good_workitem_is_a_request_with_what_is_usual() -> None:
    request, faults = workitem.read(wi())
    assert faults == []
    assert request is not None
    assert (request.prefix, request.release, request.arch) == ("requests", "", "")
    assert request.output == "incus-unified"


def test_the_fields_alone_are_a_workitem_too() -> None:
    assert workitem.read(wi()) == workitem.read(wi()["fields"])
    assert workitem.answer({"image": GOOD}, Outcome(0))["result"] is True


@pytest.mark.parametrize("key", ["image_id", "name", "prefix"])
def test_a_name_is_never_a_path(key: str) -> None:
    read = [(name, *workitem.read(wi(**{key: name}))) for name in BAD_NAMES]
    taken = [name for name, request, _ in read if request is not None]
    assert taken == [None] * (key == "prefix")  # that it is not said is usual
    assert [
        (name, faults) for name, _, faults in read if not all(map(str.isprintable, faults))
    ] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kickstart": ""}, "image.kickstart is missing"),
        ({"kickstart": 3}, "is no text"),
        ({"kickstart": "a\nb\0"}, "line 2 has '\\x00'"),
        ({"kickstart": "\x1b[2J"}, "line 1 has '\\x1b'"),
        ({"kickstart": "\ud800"}, "which is no text"),
        ({"kickstart": "x" * (workitem.MAX_KICKSTART + 1)}, "at most 1048576"),
        ({"image_type": "raw"}, "'raw' is none of incus-container"),
        ({"image_type": []}, "is none of"),
        ({"image_type": None}, "image.image_type is missing"),
        ({"release": "1; reboot"}, "is no release"),
        ({"release": 12}, "is no release"),
        ({"arch": "pdp11"}, "is none of amd64"),
        ({"extra_opts": "--compression=xz"}, "is no list"),
        ({"extra_opts": ["--store=/etc"]}, "is no option here"),
        ({"extra_opts": ["--compression=xz --store=/"]}, "is no compression"),
        ({"extra_opts": ["--allow-unsupported=a;b"]}, "is no option here"),
        ({"extra_opts": [["--no-lifecycle"]]}, "is no option here"),
        ({"extra_opts": ["--no-lifecycle"] * 33}, "at most 32"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_told_in_a_line(changes: dict[str, Any], words: str) -> None:
    request, faults = workitem.read(wi(**changes))
    assert request is None
    assert any(words in each for each in faults), faults


def test_all_that_is_wrong_is_told_at_once() -> None:
    _, faults = workitem.read(wi(image_id="/", name="/", image_type="", extra_opts=["-x"]))
    assert len(faults) == 4
    assert "(and 3 more)" in workitem.refused(faults).error


def test_options_are_a_closed_set_of_our_own() -> None:
    chosen, faults = options.read(
        ["--compression=xz", "--no-lifecycle", "--allow-unsupported=raid"]
    )
    assert faults == []
    assert chosen == options.Options("xz", frozenset({"raid"}), False)


@pytest.mark.parametrize(
    "changes",
    [
        {"kickstart": "lang C \n"},
        {"name": "other"},
        {"image_type": "rootfs"},
        {"release": "2"},
        {"arch": "amd64"},
        {"extra_opts": ["--compression=xz"]},
    ],
    ids=str,
)
def test_what_decides_the_image_decides_the_digest(changes: dict[str, Any]) -> None:
    first, second = (workitem.read(wi(**each))[0] for each in ({}, changes))
    assert first
    assert second
    assert first.digest != second.digest


def test_an_address_and_the_order_of_options_do_not() -> None:
    opts = ["--no-lifecycle", "--compression=xz"]
    first = workitem.read(wi(extra_opts=opts))[0]
    second = workitem.read(wi(extra_opts=opts[::-1], prefix="p", image_id="i2"))[0]
    assert first
    assert second
    assert first.digest == second.digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b" " * (workitem.MAX_BYTES + 1),
    ],
    ids=lambda data: ascii(data[:12]),
)
def test_what_is_no_workitem_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        workitem.decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(SCHEMA["$defs"]["image"]["properties"])


@given(image=st.dictionaries(st.sampled_from(KEYS), JSON) | JSON, more=JSON)
def test_no_workitem_makes_it_raise(image: Any, more: Any) -> None:
    for item in ({"fields": {"image": image, "more": more}}, {"image": image}, more, image):
        request, faults = workitem.read(item)
        assert (request is None) == bool(faults)
        outcome = workitem.refused(faults or ["no"])
        answer = workitem.answer(item, outcome)
        assert json.loads(workitem.encode(answer))
        fields = workitem.fields_of(answer)
        assert (fields["result"], fields["__error__"]) == (False, outcome.error)
        assert outcome.error.isprintable()
        json.dumps(workitem.told(item))


@given(image=st.fixed_dictionaries({}, optional={key: JSON for key in KEYS if key in GOOD}))
def test_the_schema_takes_what_the_code_takes(image: Any) -> None:
    ours = {key: SCHEMA["$defs"]["image"]["properties"][key] for key in KEYS}
    item = {"image": {**GOOD, **image}}
    request, _ = workitem.read(item)
    assert ours
    assert request is None or Draft202012Validator(SCHEMA).is_valid(item)


@pytest.mark.parametrize("key", ["image_id", "name", "prefix"])
def test_the_schema_refuses_what_is_no_name(key: str) -> None:
    names = [each for each in BAD_NAMES if each is not None]
    schema = Draft202012Validator(SCHEMA)
    taken = [name for name in names if schema.is_valid({"image": {**GOOD, key: name}})]
    # Python's $ lets one newline pass.
    assert [name for name in taken if not re.search(r"\n\Z", str(name))] == []


def test_the_schema_names_the_types_and_architectures_of_the_code() -> None:
    known = SCHEMA["$defs"]["image"]["properties"]
    assert known["image_type"]["enum"] == list(workitem.TYPES)
    assert all(workitem.architecture(each) for each in known["arch"]["enum"] if each)
    Draft202012Validator.check_schema(SCHEMA)


def test_answers_are_of_the_schema_and_forge_nothing() -> None:
    forged = wi(image_url="http://evil/", result=True, msg={"x": 1}, error="x")
    forged["fields"]["__error__"] = "old"
    bad = workitem.answer(forged, Outcome(1, "no"))
    good = workitem.answer(forged, Outcome(0, image_url="http://h/x"))
    assert bad["fields"]["image"]["image_url"] is None
    assert bad["fields"]["__error__"] == "no"
    assert "__error__" not in good["fields"]
    for each in (bad, good):
        Draft202012Validator(SCHEMA).validate(each)
    assert forged["fields"]["__error__"] == "old"  # what came in is as it was


def test_nobody_is_told_of_a_kickstart() -> None:
    assert "kickstart" not in workitem.told(wi(kickstart="rootpw secret"))


def test_a_bad_workitem_is_answered_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    answer = build.build_image(
        wi(image_id="/"), site_of(tmp_path), lambda *each: told.append(each[0])
    )
    assert answer["fields"]["image"]["result"] is False
    assert told == ["ERROR"]
    assert list(tmp_path.iterdir()) == []


def test_a_kickstart_that_is_refused_is_answered_with_all_lines(tmp_path: Path) -> None:
    def front_end(*_: Any) -> Any:
        error = InputError("2 things are wrong")
        error.lines = ["line 1: a\x1b", "line 2: b"]  # type: ignore[attr-defined]
        error.report = participants.Report("r")  # type: ignore[attr-defined]
        raise error

    answer = build.build_image(wi(), site_of(tmp_path), lambda *_: None, front_end)
    image = answer["fields"]["image"]
    assert image["msg"] == {"lines": ["line 1: a\ufffd", "line 2: b"], "report": {"converted": "r"}}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "%include /etc/shadow",
        "%include http://127.0.0.1:1/x.ks",
        "%ksappend ../../etc/passwd",
        "user --name='; reboot'",
        "%pre\nid\n%end",
        "raid / --device=md0",
        "\u202e",
    ],
    ids=ascii,
)
def test_a_hostile_kickstart_is_answered_in_lines(line: str, tmp_path: Path) -> None:
    pytest.importorskip("pykickstart")
    answer = build.build_image(wi(kickstart=f"lang C.UTF-8\n{line}\n"), site_of(tmp_path))
    image = answer["fields"]["image"]
    assert image["error"]
    assert [each for each in image["msg"]["lines"] if "little:2: " in each], image["msg"]
    assert all(each.isprintable() for each in image["msg"]["lines"])
    assert image["msg"]["report"]["counts"]["error"] > 0
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    answer = build.build_image(wi(arch="s390x"), site_of(tmp_path))
    assert "this participant builds for" in answer["fields"]["image"]["error"]


def test_a_vm_is_refused_and_no_sandbox_taken_for_it(tmp_path: Path) -> None:
    vm = site_of(tmp_path)._replace(isolation="vm")
    with pytest.raises(HostError, match="isolation vm is not there yet"):
        site.check(vm)
    assert "isolation vm" in build.build_image(wi(), vm)["fields"]["image"]["error"]
    with pytest.raises(InputError, match="is no isolation"):
        site.check(vm._replace(isolation="none"))
