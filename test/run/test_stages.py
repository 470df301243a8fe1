"""Each stage does what its description says, inside the tree, and says in one line what is wrong.

What is compared with upstream's own stages needs a checkout of it in OSBUILD_SOURCE.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from modules import FOLDERS, checkout, executables, meta, plant, run, run_upstreams, snapshot


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    return plant(tmp_path)


def paths(**item: Any) -> dict[str, Any]:
    return {"paths": [item]}


# What upstream's stage and ours do alike: stage, options.
ALIKE: list[tuple[str, Any]] = [
    ("noop", {"any": ["thing"]}),
    ("mkdir", paths(path="/new")),
    ("mkdir", paths(path="new", mode=0o751)),
    ("mkdir", paths(path="tree:///a/b/c", parents=True, mode=0o700)),
    ("mkdir", paths(path="/usr", exist_ok=True, mode=0o700)),
    ("mkdir", paths(path="/usr/private", parents=True, exist_ok=True)),
    ("mkdir", paths(path="/rel", exist_ok=True)),
    ("copy", paths(**{"from": "tree:///usr", "to": "tree:///copied"})),
    ("copy", paths(**{"from": "tree:///usr/private/", "to": "tree:///usr/etc"})),
    ("copy", paths(**{"from": "tree:///usr/private", "to": "tree:///usr/etc/"})),
    ("copy", paths(**{"from": "tree:///rel", "to": "tree:///rel2"})),
    ("copy", paths(**{"from": "tree:///usr/private/key", "to": "tree:///rel"})),
    (
        "copy",
        paths(**{"from": "tree:///usr/etc/hosts", "to": "tree:///rel", "remove_destination": True}),
    ),
    ("copy", paths(**{"from": "input://files/f", "to": "tree:///usr/"})),
    ("copy", paths(**{"from": "input://files/", "to": "mount://disk/"})),
    ("ln", paths(target="/etc/x", link_name="tree:///usr/x", symbolic=True)),
    ("ln", paths(target="../x y", link_name="mount://disk/x", symbolic=True)),
    ("ln", paths(target="@TREE@/rel", link_name="tree:///usr/hard")),
    ("chmod", {"items": {"/usr/private/key": {"mode": "0644"}, "/rel": {"mode": "u+x,g=w"}}}),
    ("chmod", {"items": {"/usr": {"mode": "-x", "recursive": True}}}),
    ("truncate", {"filename": "/disk.img", "size": "1M"}),
    ("truncate", {"filename": "usr/one", "size": "+3"}),
    ("truncate", {"filename": "usr/one", "size": "1"}),
    ("hostname", {"hostname": "web-1.example.org"}),
]


@pytest.mark.parametrize(("name", "options"), ALIKE)
def test_it_does_what_upstreams_stage_does(name: str, options: Any, tmp_path: Path) -> None:
    results = []
    for side, do in (("ours", run), ("theirs", run_upstreams)):
        place = tmp_path / side
        tree = plant(place)
        (place / "files").mkdir()
        (place / "files/f").write_text("file\n")
        (place / "disk").mkdir()
        (tree / "etc").unlink()  # upstream's stages would follow it out of the tree
        (tree / "etc").mkdir()
        given = {
            "inputs": {"files": {"path": str(place / "files")}},
            "mounts": {"disk": {"path": str(place / "disk")}},
        }
        text = json.dumps(options).replace("@TREE@", str(tree))
        status, _ = do(tree, name, json.loads(text), **given)
        (place / "arguments").unlink()
        assert status == 0
        results.append(snapshot(place))
    assert results[0] == results[1]


UPSTREAMS = [
    path
    for folder in FOLDERS
    for path in executables(folder)
    if not path.name.startswith("org.osbuild-pika.")
]


@pytest.mark.parametrize("path", UPSTREAMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_options_are_upstreams(path: Path) -> None:
    """The schemas without their texts are equal, so they take the same options."""
    theirs = checkout() / path.parent.name / path.name
    for key in ("schema", "schema_2", "capabilities"):
        assert without_texts(meta(path).get(key)) == without_texts(meta(theirs).get(key))


def without_texts(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_texts(each)
        for key, each in schema.items()
        if key != "description" or not isinstance(each, str)
    }


# --- links of the tree stay in the tree ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("mkdir", paths(path="/etc/new"), "usr/etc/new"),
        ("mkdir", paths(path="/etc/a/b", parents=True), "usr/etc/a/b"),
        ("copy", paths(**{"from": "tree:///rel", "to": "tree:///etc/rel"}), "usr/etc/rel"),
        ("copy", paths(**{"from": "tree:///etc/hosts", "to": "tree:///h"}), "h"),
        ("ln", paths(target="x", link_name="tree:///etc/l", symbolic=True), "usr/etc/l"),
        ("truncate", {"filename": "/etc/disk.img", "size": "1M"}, "usr/etc/disk.img"),
        ("hostname", {"hostname": "web"}, "usr/etc/hostname"),
    ],
)
def test_a_link_of_the_tree_is_followed_inside_it(
    name: str, options: Any, made: str, tree: Path
) -> None:
    assert run(tree, name, options)[0] == 0
    assert os.path.lexists(tree / made)


def test_chmod_follows_links_inside(tree: Path) -> None:
    assert run(tree, "chmod", {"items": {"/etc/hosts": {"mode": "0600"}}})[0] == 0
    assert (tree / "usr/etc/hosts").stat().st_mode & 0o777 == 0o600


def test_a_host_name_that_is_a_link_is_replaced(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    (tree / "usr/etc/hostname").symlink_to(outside)
    assert run(tree, "hostname", {"hostname": "web"})[0] == 0
    assert outside.read_text() == "mine\n"
    assert (tree / "usr/etc/hostname").read_text() == "web\n"


# --- what is wrong is said in one line -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "status", "said"),
    [
        ("error", {}, 255, "failing on purpose with exit status 255"),
        ("error", {"returncode": 3}, 3, "failing on purpose with exit status 3"),
        ("mkdir", paths(path="/usr"), 1, "/usr exists already: say exist_ok if it may"),
        ("mkdir", paths(path="/a/b"), 1, "/a/b has no parent directory: say parents"),
        ("mkdir", paths(path="/rel", parents=True, exist_ok=True), 1, "is no directory"),
        ("copy", paths(**{"from": "tree:///x", "to": "tree:///y"}), 1, "No such file or directory"),
        ("copy", paths(**{"from": "mount://m/x", "to": "tree:///y"}), 1, "no mount of this name"),
        ("ln", paths(target="x", link_name="tree:///usr", symbolic=True), 1, "exists already"),
        ("chmod", {"items": {"/none": {"mode": "0644"}}}, 1, "/none is not in the tree"),
        ("chmod", {"items": {"/usr": {"mode": "w?"}}}, 1, "invalid mode"),
        ("truncate", {"filename": "x", "size": "much"}, 1, "Invalid number"),
        ("hostname", {"hostname": "-web"}, 1, "'-web' is no host name"),
        ("hostname", {"hostname": "web\n"}, 1, "is no host name"),
        ("hostname", {"hostname": "a" * 65}, 1, "is no host name"),
    ],
)
def test_bad_input_is_one_clear_line(
    name: str, options: Any, status: int, said: str, tree: Path
) -> None:
    code, output = run(tree, name, options)
    assert code == status
    assert said in output.splitlines()[-1]
    assert "Traceback" not in output
