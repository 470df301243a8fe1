"""What fails on a real s6-svscan leaves nothing behind; and what a boot brings back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from s6_trees import FOREVER, USER, RefusedError, Tree, eventually, tree_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: run as root"),
    pytest.mark.skipif(shutil.which("s6-svscan") is None, reason="install Debian's s6"),
]


@pytest.fixture(params=["root", USER])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with tree_of(request.param, request.param) as tree:
        yield tree


@pytest.fixture
def roots() -> Iterator[Tree]:
    with tree_of("root", "root") as tree:
        yield tree


def test_a_service_that_cannot_be_ended_is_not_unregistered(roots: Tree) -> None:
    deaf = ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done")
    roots = roots.seen_by("root", kill_after_s=0, timeout_s=1)
    roots.call("register", "web", deaf)
    assert eventually(lambda: "deaf" in roots.log("web"))
    with pytest.raises(RefusedError, match="web: stop took too long") as caught:
        roots.call("unregister", "web")
    assert caught.value.code == 124
    assert roots.call("list") == ["web"]
    os.kill(roots.up("web")["pid"], signal.SIGKILL)
    roots.call("unregister", "web")
    assert (roots.left(), roots.processes()) == ([], [])


def test_a_scan_that_nobody_does_is_rolled_back(tree: Tree) -> None:
    tree.end_svscan()
    with pytest.raises(RefusedError, match="web: rescan failed with status 100") as caught:
        tree.call("register", "web", FOREVER)
    assert caught.value.code == 1
    assert (tree.left(), list(tree.state.iterdir())) == ([], [])


def test_a_scan_that_is_not_allowed_is_rolled_back() -> None:
    with tree_of("root", USER) as tree:  # the directory is USER's, the control is not
        with pytest.raises(RefusedError, match=r"web: rescan failed with status 1\d\d"):
            tree.call("register", "web", FOREVER)
        assert (tree.left(), list(tree.state.iterdir()), tree.processes()) == ([], [], [])


def test_a_service_that_s6_does_not_take_is_rolled_back(roots: Tree) -> None:
    roots.end_svscan()
    roots.start_svscan("-c", "2")
    short = roots.seen_by("root", timeout_s=1)
    for name in ("a", "b"):
        short.call("register", name, FOREVER)
    with pytest.raises(RefusedError, match="c: register took too long") as caught:
        short.call("register", "c", FOREVER)
    assert caught.value.code == 124
    assert (roots.left(), roots.call("list")) == (["pika-a", "pika-b"], ["a", "b"])


def test_what_is_not_registered_says_how_to_register_it(roots: Tree) -> None:
    for method in ("start", "stop", "restart", "is_running", "state"):
        with pytest.raises(
            RefusedError, match=r"^web: .*service register web -- COMMAND$"
        ) as caught:
            roots.call(method, "web")
        assert ("NotRegisteredError" in caught.value.kinds, caught.value.code) == (True, 2)


def test_a_name_in_use_is_refused_and_its_service_left_alone(roots: Tree) -> None:
    roots.call("register", "web", FOREVER)
    first = roots.up("web")["pid"]
    with pytest.raises(RefusedError, match=r"service unregister web$") as caught:
        roots.call("register", "web", ("true",))
    assert {"AlreadyRegisteredError", "ValueError"} <= set(caught.value.kinds)
    assert roots.up("web")["pid"] == first


def test_a_scan_directory_that_is_not_there_is_named(roots: Tree) -> None:
    nowhere = roots.seen_by("root", scan_directory=str(roots.place / "nowhere"))
    assert nowhere.call("list") == []
    with pytest.raises(
        RefusedError, match="nowhere is no scan directory; start s6-svscan"
    ) as caught:
        nowhere.call("register", "web", FOREVER)
    assert "S6Error" in caught.value.kinds


def test_a_missing_program_is_named(roots: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    roots.call("register", "web", FOREVER)
    monkeypatch.setenv("PATH", str(roots.place))
    for method, words in (("stop", ("web",)), ("register", ("other", FOREVER))):
        with pytest.raises(RefusedError, match=r"s6-.* is not on PATH.*: install") as caught:
            roots.call(method, *words)
        assert ("CommandError" in caught.value.kinds, caught.value.code) == (True, 3)


# Boots


def test_a_boot_brings_back_what_was_registered_and_starts_what_ran(roots: Tree) -> None:
    for name in ("runs", "stopped", "down"):
        roots.call("register", name, FOREVER, env={"A": name}, start_now=name != "down")
    roots.call("stop", "stopped")
    roots.end_svscan()
    shutil.rmtree(roots.scan)  # as a boot does to /run
    roots.scan.mkdir()
    roots.start_svscan()
    registered, started, stopped, failed = roots.call("reconcile")
    assert (registered, started, stopped, failed) == (["down", "runs", "stopped"], [], [], {})
    assert [name for name in roots.call("list") if roots.call("is_running", name)] == ["runs"]
    assert roots.call("reconcile") == [[], [], [], {}]


def test_what_went_another_way_is_put_right(roots: Tree) -> None:
    roots.call("register", "runs", FOREVER)
    roots.call("register", "down", FOREVER, start_now=False)
    for order, name in (("-wD -d", "runs"), ("-wu -u", "down")):
        subprocess.run(["s6-svc", *order.split(), roots.scan / f"pika-{name}"], check=True)
    assert roots.call("reconcile") == [[], ["runs"], ["down"], {}]
    assert [name for name in roots.call("list") if roots.call("is_running", name)] == ["runs"]


def test_one_damaged_record_keeps_nobody_else_from_starting(roots: Tree) -> None:
    for name in ("a", "b"):
        roots.call("register", name, FOREVER)
    for name in ("a", "b"):
        shutil.move(roots.state / f"{name}.json", roots.place)
        roots.call("unregister", name)
        shutil.move(roots.place / f"{name}.json", roots.state)
    (roots.state / "a.json").write_text('{"command": ')
    registered, _, _, failed = roots.call("reconcile")
    assert (registered, list(failed)) == (["b"], ["a"])
    assert "what is kept of it is damaged" in failed["a"]
