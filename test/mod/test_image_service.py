"""A service of an image as files, under each init; real trees: test/run/test_inits.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from osbuild_pika.inside import intree, service
from osbuild_pika.inside.stage import StageError

PROGRAMS = (
    *("usr/bin/web", "usr/bin/systemctl", "usr/sbin/openrc", "usr/bin/s6-log"),
    "usr/bin/s6-setuidgid",
)
ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nops:x:990:990::/srv/ops:/bin/sh\n"
STAGES = Path(__file__).parents[2] / "stages"
COMMAND = ["web", "--say", "it's $HOME %n; true", ""]
NAMES = {
    "systemd": "etc/systemd/system/a.service",
    "s6": "etc/s6/services/a/run",
    "openrc": "etc/init.d/a",
}


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with programs of all inits; its systemctl is not run."""
    for name in (*PROGRAMS, "etc/passwd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "etc/passwd").write_text(ACCOUNTS)
    monkeypatch.setattr(intree, "run_checked", lambda *_: None)
    return tmp_path


def put(tree: Path, init: str, **options: Any) -> str:
    """What the file says that starts the service."""
    service.put(tree, {"name": "a", "command": COMMAND, "init": init, **options})
    path = tree / NAMES[init]
    assert path.stat().st_mode & 0o077 == 0  # the environment can be secret
    return path.read_text()


def test_a_unit_has_the_command_by_its_path(tree: Path) -> None:
    text = put(tree, "systemd", env={"B": "x y", "A": ""}, user="ops", log="/var/log/a")
    command = 'ExecStart="/usr/bin/web" "--say" "it\'s $$HOME %%n; true" ""'
    assert command in text.splitlines()
    assert text.index('Environment="A="') < text.index('Environment="B=x y"')
    assert "User=ops\n" in text
    assert "StandardOutput=append:/var/log/a/a.log\n" in text
    assert (tree / "var/log/a").is_dir()


def test_a_unit_is_started_again_when_a_signal_ended_it(tree: Path) -> None:
    text = put(tree, "systemd", env={"UID": "1"})  # no shell reads it
    assert "RestartForceExitStatus=SIGHUP SIGINT SIGTERM SIGPIPE\n" in text


def test_a_unit_may_wait_for_sd_notify(tree: Path) -> None:
    assert "Type=notify\n" in put(tree, "systemd", notify="systemd")


@pytest.mark.parametrize("init", ["s6", "openrc"])
def test_a_script_has_the_command_quoted(init: str, tree: Path) -> None:
    text = put(tree, init, env={"B": "x y", "A": ""}, user="ops")
    subprocess.run(["sh", "-n", str(tree / NAMES[init])], check=True)
    assert "'it'\"'\"'s $HOME %n; true' ''" in text
    assert text.index("export A=''") < text.index("export B='x y'")
    assert "ops" in text


def test_an_s6_service_is_files_only_and_says_when_it_is_ready(tree: Path) -> None:
    put(tree, "s6", notify=3, log="/srv/logs")
    place = tree / "etc/s6/services/a"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    wanted = {"type", "run", "finish", "timeout-kill", "notification-fd", "log/type", "log/run"}
    assert found == wanted
    assert (place / "notification-fd").read_text() == "3\n"
    assert "/srv/logs" in (place / "log/run").read_text()
    assert "HOME=/root" in (place / "run").read_text()


def test_an_openrc_service_is_in_the_default_runlevel(tree: Path) -> None:
    put(tree, "openrc")
    assert (tree / "etc/runlevels/default/a").readlink() == Path("/etc/init.d/a")


@pytest.mark.parametrize("init", sorted(NAMES))
def test_what_is_there_already_is_not_replaced(init: str, tree: Path) -> None:
    put(tree, init)
    with pytest.raises(StageError, match=r"service a: the tree has .* already"):
        put(tree, init)


@pytest.mark.parametrize(
    ("init", "options", "why"),
    [
        ("s6", {"name": "../a"}, "is no name"),
        ("s6", {"name": "pika-cloud-report"}, "is no name"),
        ("s6", {"name": "a\n"}, "is no name"),
        ("s6", {"command": ["no-such"]}, "no program 'no-such'"),
        ("s6", {"command": ["bin/web"]}, "no program 'bin/web'"),
        ("s6", {"command": ["/etc/passwd/x"]}, "no program"),
        ("s6", {"command": [""]}, "no program ''"),
        ("s6", {"command": ["/usr/bin"]}, "no program '/usr/bin'"),
        ("systemd", {"command": ["web", "\udce4"]}, "the command is not UTF-8 text: '.udce4'"),
        ("openrc", {"env": {"A": "\udce4"}}, "A is not UTF-8 text"),
        ("s6", {"log": "/srv/\udce4"}, "log is not UTF-8 text"),
        ("systemd", {"log": "/srv/a\nUser=root"}, "log: .* is no directory"),
        ("s6", {"log": "/srv/../etc"}, "log: .* is no directory"),
        ("s6", {"env": {"OPTIND": "x"}}, "OPTIND is the shell's own"),
        ("openrc", {"env": {"UID": "1"}}, "UID is the shell's own"),
        ("s6", {"command": ["web", "\0"]}, "NUL"),
        ("s6", {"env": {"A-B": ""}}, "'A-B' cannot be"),
        ("s6", {"env": {"A": "\0"}}, "A holds a NUL"),
        ("s6", {"user": "nope"}, "no user 'nope'"),
        ("s6", {"notify": "systemd"}, "number of a descriptor"),
        ("systemd", {"notify": 3}, "notify: systemd"),
        ("openrc", {"notify": 3}, "leave notify out"),
        ("openrc", {"env": {"RC_SVCNAME": "x"}}, "RC_SVCNAME is OpenRC's own"),
    ],
)
def test_what_cannot_be_is_named(init: str, options: dict[str, Any], why: str, tree: Path) -> None:
    with pytest.raises(StageError, match=why):
        service.put(tree, {"name": "a", "command": COMMAND, "init": init, **options})
    assert not (tree / NAMES[init]).exists()


@pytest.mark.parametrize(
    ("options", "is_right"),
    [
        ({"log": "/srv/a b"}, True),
        ({"command": ["web", ""]}, True),
        ({"command": [""]}, False),
        ({"command": []}, False),
        ({"command": ["web", 1]}, False),
        ({"log": "/srv/../etc"}, False),
        ({"log": "/srv/a\n"}, False),
        ({"log": "/srv/a\nUser=root"}, False),
        ({"log": "/srv/"}, False),
        ({"log": "srv"}, False),
    ],
)
def test_what_the_stage_takes(options: dict[str, Any], is_right: bool) -> None:
    meta = json.loads((STAGES / "org.osbuild-pika.service.meta.json").read_text())
    validator = jsonschema.Draft4Validator(meta["schema_2"]["options"])
    assert validator.is_valid({"name": "a", "command": COMMAND, **options}) is is_right


def test_a_home_that_is_no_text_is_refused_and_no_file_is_left(tree: Path) -> None:
    (tree / "etc/passwd").write_bytes(b"web:x:1:1::/srv/\xe4:/bin/sh\n")
    with pytest.raises(StageError, match="its user's home is not UTF-8 text"):
        put(tree, "s6", user="web")
    assert not (tree / "etc/s6").exists()


@pytest.mark.parametrize(
    ("init", "program"),
    [("systemd", "usr/bin/systemctl"), ("s6", "usr/bin/s6-log"), ("openrc", "usr/sbin/openrc")],
)
def test_a_tree_without_the_init_is_refused(init: str, program: str, tree: Path) -> None:
    (tree / program).unlink()
    with pytest.raises(StageError, match="service a: the tree has no"):
        put(tree, init)
