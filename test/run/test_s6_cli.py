"""`osbuild-pika service` as a user sees it, on a real s6-svscan."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from s6_trees import FOREVER, ROOT, USER, Tree, eventually, tree_of

from osbuild_pika.cli.verbs import osbuild_pika

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: run as root"),
    pytest.mark.skipif(shutil.which("s6-svscan") is None, reason="install Debian's s6"),
]
Call = Callable[..., Result]
PROGRAM = """#!{python}
import sys
sys.path.insert(0, "{root}")
from osbuild_pika.cli import main
main()
"""


@pytest.fixture
def tree() -> Iterator[Tree]:
    with tree_of("root", "root") as tree:
        yield tree


@pytest.fixture
def call(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("OSBUILD_PIKA_SCAN_DIRECTORY", str(tree.scan))
    monkeypatch.setenv("OSBUILD_PIKA_SERVICE_LOGS", str(tree.logs))
    tree.end_svscan()
    tree.start_svscan()

    def call(verb: str, *words: str) -> Result:
        given = ["service", verb, "--state", str(tree.state), *words]
        return CliRunner().invoke(osbuild_pika, given)

    return call


def test_a_service_from_its_registration_to_its_end(call: Call, tree: Tree) -> None:
    done = call("register", "web", "--env", "A=b=c", "--no-start", "--", *FOREVER)
    assert (done.exit_code, done.stdout, done.stderr) == (
        *(0, "", "osbuild-pika: web: registered, down\n"),
    )
    assert call("status", "web").exit_code == 1
    for verb, is_up in (("start", True), ("restart", True), ("stop", False), ("start", True)):
        assert call(verb, "web").exit_code == 0
        (state,) = json.loads(call("status", "web", "--format", "json").stdout)["services"]
        assert (state["profile"], state["is_up"], state["pid"] is not None) == ("web", is_up, is_up)
    assert call("list").stdout == "web\n"
    assert json.loads(call("list", "--format", "json").stdout) == {"profiles": ["web"]}
    heads, row = call("status").stdout.splitlines()
    assert (heads.split()[:2], row.split()[:2]) == (["PROFILE", "STATE"], ["web", "up"])
    assert call("unregister", "web").exit_code == 0
    assert (call("list").stdout, tree.left(), tree.processes()) == ("", [], [])


def test_a_participant_is_a_service(
    call: Call, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, program = tree.place / "images", tree.place / "osbuild-pika"
    program.write_text(PROGRAM.format(python=sys.executable, root=ROOT))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tree.place}:{os.environ['PATH']}")
    words = ("--store", str(tree.place / "store"))
    wrong = call("register", "web", "--participant", str(place), "--", "--no-such-option")
    assert (wrong.exit_code, call("list").stdout) == (2, "")
    done = call("register", "web", "--participant", str(place), "--", *words)
    assert (done.exit_code, done.stderr) == (0, "osbuild-pika: web: registered, started\n")
    assert eventually((place / "in").is_dir)
    (tree.place / "bad.json").write_text("{}")
    (tree.place / "bad.json").rename(place / "in/bad.json")
    assert eventually((place / "out/bad.json").exists)
    assert json.loads((place / "out/bad.json").read_text())["result"] is False
    assert call("unregister", "web").exit_code == 0


def test_without_its_program_no_participant_is_registered(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/missing")
    monkeypatch.setattr("sys.executable", "/missing/python3")
    done = call("register", "web", "--participant", "/x")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
    assert "--participant: osbuild-pika is neither in /missing nor on PATH" in done.stderr


def test_what_is_wrong_is_one_line_and_an_exit_code(call: Call) -> None:
    assert call("register", "web", "--", *FOREVER).exit_code == 0
    cases = [
        (2, "web: a service of that name", ("register", "web", "--", "true")),
        (2, "'A B' is no name of a profile", ("register", "A B", "--", "true")),
        (2, "x: what is to run? name it: -- COMMAND, or --participant DIR", ("register", "x")),
        (
            2,
            "--unit-directory is for systemd and openrc and launchd",
            ("list", "--unit-directory=/x"),
        ),
        (2, "want KEY=VALUE", ("register", "x", "--env", "A", "--", "true")),
        (2, "'1' is no name of an environment", ("register", "x", "--env", "1=a", "--", "true")),
        (2, "a descriptor from 3", ("register", "x", "--notify", "1", "--", "true")),
        (2, "no such group", ("register", "x", "--operators", "nogroup-x", "--", "true")),
        (2, "no such user", ("register", "x", "--user", "nouser-x", "--", "true")),
        (2, "register it: osbuild-pika service register x -- COMMAND", ("start", "x")),
    ]
    for code, words, command in cases:
        done = call(*command)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1), command
        assert words in done.stderr


def test_a_boot_is_told_line_by_line(call: Call, tree: Tree) -> None:
    given = ("--user", USER, "--operators", USER)
    assert call("register", "web", *given, "--", *FOREVER).exit_code == 0
    tree.end_svscan()
    shutil.rmtree(tree.scan)
    tree.scan.mkdir()
    tree.start_svscan()
    (tree.state / "bad.json").write_text("{")
    done = call("reconcile")
    assert (done.exit_code, done.stdout) == (1, "web: registered\n")
    assert done.stderr.startswith("osbuild-pika: error: bad: what is kept of it is damaged")
    assert json.loads(call("reconcile", "--format", "json").stdout)["registered"] == []
    assert call("status", "web").exit_code == 0


def test_a_machine_without_a_service_manager_says_so(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSBUILD_PIKA_SCAN_DIRECTORY")
    monkeypatch.setattr("osbuild_pika.service_managers.base.detect_service_manager", lambda: "none")
    done = call("list")
    assert (done.exit_code, done.stderr) == (
        *(3, "osbuild-pika: error: no supported service manager detected\n"),
    )


def test_on_systemd_what_it_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSBUILD_PIKA_SCAN_DIRECTORY", raising=False)
    found = "osbuild_pika.service_managers.base.detect_service_manager"
    monkeypatch.setattr(found, lambda: "systemd")
    for words, code, text in (
        (["reconcile"], 2, "nothing to reconcile"),
        (["list", "--state", "/x"], 2, "--state is for s6; this machine has systemd"),
        (["list", "--transient", "--unit-directory", "/x"], 2, "--transient writes no file"),
        (["register", "web", "--", "true"], 3, "name a directory of unit files"),
    ):
        done = CliRunner().invoke(osbuild_pika, ["service", *words])
        assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
        assert text in done.stderr
