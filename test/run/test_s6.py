"""Services on a real s6-svscan, root's and an ordinary user's: what works, and what fails."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from s6_trees import FOREVER, USER, RefusedError, Tree, answer, eventually, tree_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: run as root"),
    pytest.mark.skipif(shutil.which("s6-svscan") is None, reason="install Debian's s6"),
]
LONGEST = "n" * 200
READY_WITH = "until [ -e {0} ]; do sleep 0.05; done; echo >&3; exec sleep 1000"


@pytest.fixture(params=["root", USER])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with tree_of(request.param, request.param) as tree:
        yield tree


@pytest.fixture
def roots() -> Iterator[Tree]:
    with tree_of("root", "root") as tree:
        yield tree


def test_a_service_is_up_once_it_is_registered(tree: Tree) -> None:
    say = ("sh", "-c", 'echo "$A|$HOME|$(id -un)|$1"; echo oops >&2; exec sleep 1000', "sh", "it's")
    tree.call("register", "web", say, env={"A": "a 'b'\n$c"})
    assert tree.up("web")["is_up"]
    assert tree.call("is_running", "web")
    assert tree.call("list") == ["web"]
    assert eventually(lambda: "oops" in tree.log("web"))
    home = os.path.expanduser(f"~{tree.user}")
    assert f"$c|{home}|{tree.user}|it's\n" in tree.log("web")
    assert eventually(lambda: "|it's\n" in (tree.place / "out").read_text())


def test_a_service_that_is_not_to_start_yet_is_down_until_it_is_started(tree: Tree) -> None:
    tree.call("register", "web", FOREVER, start_now=False)
    assert not tree.call("is_running", "web")
    tree.call("start", "web")
    assert tree.call("is_running", "web")


def test_start_stop_and_restart_have_happened_when_they_return(tree: Tree) -> None:
    # It ends with 0 when asked to: that alone would keep it down.
    polite = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    tree.call("register", "web", ("sh", "-c", polite))
    first = tree.up("web")["pid"]
    tree.call("restart", "web")
    second = tree.up("web")["pid"]
    assert second not in (None, first)
    for _ in range(2):
        tree.call("stop", "web")
        assert (tree.up("web")["is_up"], tree.up("web")["is_wanted"]) == (False, False)
    for _ in range(2):
        tree.call("start", "web")
        assert tree.up("web")["is_up"]
    tree.call("stop", "web")
    tree.call("restart", "web")
    assert tree.up("web")["is_up"]


def test_a_service_is_ready_once_it_says_so(tree: Tree) -> None:
    go = tree.place / "go"
    tree.call("register", "web", ("sh", "-c", READY_WITH.format(go)), notify=3)
    state = tree.up("web")
    assert (state["is_up"], state["is_ready"]) == (True, False)
    starting = tree.begin("start", "web")
    go.touch()
    answer(starting)
    assert tree.up("web")["is_ready"]


def test_a_service_that_never_says_that_it_is_ready_is_not_waited_for_long(tree: Tree) -> None:
    silent = ("sh", "-c", READY_WITH.format(tree.place / "never"))
    tree.call("register", "web", silent, notify=3, start_now=False)
    with pytest.raises(RefusedError, match="web: start took too long") as caught:
        tree.seen_by(tree.user, timeout_s=0.5).call("start", "web")
    assert ("CommandError" in caught.value.kinds, caught.value.code) == (True, 124)


def test_a_killed_service_is_started_again(tree: Tree) -> None:
    tree.call("register", "web", FOREVER)
    first = tree.up("web")["pid"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: tree.up("web")["pid"] not in (None, first))


@pytest.mark.parametrize("code", [0, 78])
def test_a_service_that_ends_for_good_stays_down(code: int, roots: Tree) -> None:
    roots.call("register", "web", ("sh", "-c", f"exit {code}"))
    assert eventually(lambda: not roots.up("web")["is_wanted"])
    state = roots.up("web")
    assert (state["is_up"], state["exit_code"]) == (False, code)


def test_a_service_that_fails_otherwise_is_tried_again(roots: Tree) -> None:
    roots.call("register", "web", ("sh", "-c", "echo tried; exit 1"))
    assert eventually(lambda: roots.log("web").count("tried") > 1)


def test_nothing_is_left_of_what_is_unregistered(tree: Tree) -> None:
    for name in ("web", "down"):
        tree.call("register", name, FOREVER, start_now=name == "web")
    for name in ("web", "down"):
        tree.call("unregister", name)
    assert (tree.left(), tree.processes(), list(tree.state.iterdir())) == ([], [], [])
    tree.call("unregister", "web")
    tree.call("register", "web", FOREVER)
    assert tree.call("list") == ["web"]


@pytest.mark.parametrize(("how", "left"), [("", []), ("setsid", ["sleep 1000 "])])
def test_what_a_service_leaves_running_keeps_nobody_from_unregistering_it(
    how: str, left: list[str], tree: Tree
) -> None:
    tree.call("register", "web", ("sh", "-c", f"{how} sleep 1000 & echo on $!; wait"))
    assert eventually(lambda: "on" in tree.log("web"))
    tree.call("unregister", "web")
    assert (tree.left(), tree.processes()) == ([], left)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(tree.log("web").split()[-1]), signal.SIGKILL)
    assert eventually(lambda: tree.processes() == [])


def test_fifty_are_registered_and_unregistered_at_once(roots: Tree) -> None:
    names = [f"n{number:02}" for number in range(50)]
    slow = roots.seen_by("root", timeout_s=80)
    for process in [slow.begin("register", name, FOREVER) for name in names]:
        answer(process)
    assert roots.call("list") == names
    assert sum("sleep" in command for command in roots.processes()) == 50
    for process in [slow.begin("unregister", name) for name in names]:
        answer(process)
    assert (roots.left(), roots.processes()) == ([], [])


def test_a_half_built_directory_is_never_seen(roots: Tree) -> None:
    roots.end_svscan()
    roots.start_svscan("-t", "1")  # it looks all the time
    (roots.scan / ".pika-killed.new").mkdir()
    for number in range(5):
        roots.call("register", f"n{number}", FOREVER)
        roots.call("unregister", f"n{number}")
    assert roots.left() == [".pika-killed.new"]
    # It complains of a directory without `run`, or that goes while it looks.
    assert (roots.place / "err").read_text() == ""
    roots.call("register", "killed", FOREVER)
    assert roots.left() == ["pika-killed"]


def test_a_name_of_200_characters_lives_a_whole_life(tree: Tree) -> None:
    tree.call("register", LONGEST, FOREVER)
    tree.call("restart", LONGEST)
    assert tree.call("is_running", LONGEST)
    tree.call("unregister", LONGEST)
    assert (tree.left(), tree.processes()) == ([], [])


@pytest.mark.parametrize(("profile", "words"), [("default", "a"), ("web", "a --profile web")])
def test_the_default_profile_goes_without_the_flag(profile: str, words: str, roots: Tree) -> None:
    flagged = roots.seen_by("root", profile_flag="--profile")
    flagged.call("register", profile, ("sh", "-c", 'echo "[$*]"; exec sleep 1000', "sh", "a"))
    assert eventually(lambda: f"[{words}]" in roots.log(profile))


def test_where_logs_go_is_read_when_the_service_starts(roots: Tree) -> None:
    roots.end_svscan()
    elsewhere = roots.place / "else where"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSBUILD_PIKA_SERVICE_LOGS", str(elsewhere))
        roots.start_svscan()
    roots.seen_by("root", user=USER).call(
        "register", "web", ("sh", "-c", "id -un; exec sleep 1000")
    )
    assert eventually(lambda: (elsewhere / "pika-web/current").exists())
    assert eventually(lambda: USER in (elsewhere / "pika-web/current").read_text())
    assert (elsewhere / "pika-web").owner() == USER


def test_the_containers_environment_is_taken_where_there_is_one(
    roots: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As s6-overlay's, which Debian does not have.
    program = roots.place / "bin/with-contenv"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nexport FROM=container\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    roots.call("register", "web", ("sh", "-c", 'echo "from $FROM"; exec sleep 1000'))
    assert eventually(lambda: "from container" in roots.log("web"))


def test_a_service_that_ignores_its_end_is_killed(roots: Tree) -> None:
    deaf = ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    roots.seen_by("root", kill_after_s=0.3).call("register", "web", deaf)
    roots.call("unregister", "web")
    assert (roots.left(), roots.processes()) == ([], [])


# Who may


def test_an_operator_steers_a_service_of_roots_but_changes_none(roots: Tree) -> None:
    roots.seen_by("root", operators=grp.getgrnam(USER).gr_gid).call("register", "web", FOREVER)
    operator = roots.seen_by(USER)
    for method, is_up in (("stop", False), ("start", True), ("restart", True)):
        operator.call(method, "web")
        assert operator.call("is_running", "web") is is_up
    for method, words in (("register", ("mine", FOREVER)), ("unregister", ("web",))):
        with pytest.raises(RefusedError, match=r"another user's|Permission denied"):
            operator.call(method, *words)
    assert roots.call("list") == ["web"]


def test_nobody_else_steers_a_service_of_roots(roots: Tree) -> None:
    roots.call("register", "web", FOREVER)
    with pytest.raises(RefusedError, match=r"web: stop failed with status 111: .*[Pp]ermission"):
        roots.seen_by(USER).call("stop", "web")
    assert roots.call("is_running", "web")


def test_a_user_whom_root_lets_in_registers_on_roots_tree() -> None:
    with tree_of("root", USER) as tree:
        shutil.chown(tree.scan / ".s6-svscan", USER)
        shutil.chown(tree.scan / ".s6-svscan/control", USER)
        tree.call("register", "web", ("sh", "-c", 'echo "I am $(id -un)"; exec sleep 1000'))
        assert eventually(lambda: f"I am {USER}\n" in tree.log("web"))
        tree.call("restart", "web")
        tree.call("unregister", "web")
        assert (tree.left(), tree.processes()) == ([], [])


def test_only_root_runs_services_as_others(tree: Tree) -> None:
    with pytest.raises(RefusedError, match="no such user"):
        tree.seen_by(tree.user, user="nosuchuser").call("register", "web", FOREVER)
    with pytest.raises(RefusedError, match="only root can"):
        tree.seen_by(USER, user="root", state=str(tree.place)).call("register", "web", FOREVER)
    assert tree.left() == []
