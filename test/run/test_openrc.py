"""Services on Debian's real OpenRC, in a root and namespaces of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openrc_root
import pytest

PROGRAM = """
import contextlib, json, os, time
from osbuild_pika.errors import PikaError
from osbuild_pika.service_managers import base, openrc
settings = openrc.default_settings()._replace(directory="/etc/init.d", kill_after_s=1)
manager = openrc.OpenRCServiceManager(settings)
seen = {"kind": base.detect_service_manager(), "same": base.get_service_manager().kind}
def until(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
def error(name, call, *words, **options):
    try:
        call(*words, **options)
    except PikaError as raised:
        seen[name] = [type(raised).__name__, int(raised.exit_code), str(raised)]
def read(path):
    with contextlib.suppress(FileNotFoundError):
        return open(path).read()
    return ""
"""
LIFE = """
say = 'echo "$A|$0|$1" > /run/said.new; mv /run/said.new /run/said; exec sleep 1000'
env = {"A": 'a  %h "q*" $B', "command": "none", "IFS": "/"}
manager.register("web", ("sh", "-c", say, "x  y;* %n", "$A `q`\\nz"), env=env)
until(lambda: os.path.exists("/run/said"))
seen["said"], seen["list"] = read("/run/said"), manager.list()
seen["mode"] = os.stat("/etc/init.d/pika-service-web").st_mode & 0o777
seen["at a boot"] = os.path.lexists("/etc/runlevels/default/pika-service-web")
first = manager.state("web")
manager.start("web")
manager.restart("web")
second = manager.state("web")
seen["restarted"] = [first.is_up, first.is_ready, second.is_up, first.pid != second.pid]
os.kill(second.pid, 9)
until(lambda: manager.state("web").pid not in (None, second.pid))
manager.stop("web")
manager.stop("web")
seen["stopped"] = [manager.is_running("web"), manager.state("web").is_wanted]
manager.start("web")
seen["started"] = manager.is_running("web")
manager.unregister("web")
manager.unregister("web")
error("gone", manager.start, "web")
seen["left"] = [manager.list(), os.path.lexists("/etc/runlevels/default/pika-service-web")]
manager.register("stubborn", ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"))
until(lambda: read("/var/log/osbuild-pika/services/pika-service-stubborn.log"))
pid = manager.state("stubborn").pid
manager.unregister("stubborn")
seen["killed"] = not os.path.exists(f"/proc/{pid}")
deaf = "trap '' TERM; echo up; while :; do sleep 1; done"
for name, how, call in (("lost", "sleep 1000", manager.start), ("deaf", deaf, manager.stop)):
    manager.register(name, ("sh", "-c", f"echo up; {how}"))
    until(lambda: read(f"/var/log/osbuild-pika/services/pika-service-{name}.log"))
    left = manager.state(name)
    os.kill(int(read(f"/run/supervise-pika-service-{name}.pid")), 9)
    until(lambda: not manager.state(name).is_wanted)
    alone = manager.state(name)
    call(name)
    is_gone = not os.path.exists(f"/proc/{left.pid}")
    seen[name] = [alone.is_up, alone.pid == left.pid, is_gone, manager.is_running(name)]
    manager.unregister(name)
manager.register("down", ("sleep", "9"), start_now=False)
seen["down"] = [manager.is_running("down"), os.listdir("/etc/runlevels/default")]
manager.register("again", ("sh", "-c", "echo x; exit 78"))
until(lambda: read("/var/log/osbuild-pika/services/pika-service-again.log").count("x") > 1)
seen["again"] = manager.state("again").is_wanted
manager.unregister("again")
own = openrc.OpenRCServiceManager(settings._replace(user="games"))
own.register("games", ("sh", "-c", "echo $(id -un) $HOME; exec sleep 1000"))
until(lambda: read("/var/log/osbuild-pika/services/pika-service-games.log"))
seen["games"] = read("/var/log/osbuild-pika/services/pika-service-games.log")
print(json.dumps(seen))
"""
ERRORS = """
manager.register("web", ("sleep", "1000"), start_now=False)
error("twice", manager.register, "web", ("true",))
error("notify", manager.register, "x", ("true",), notify=3)
error("variable", manager.register, "x", ("true",), env={"RC_SVCNAME": "1"})
error("program", manager.register, "x", ("no-such-program",))
for name, changed in (
    ("user", {"user": "nosuchuser"}),
    ("directory", {"directory": "/missing"}),
    ("closed", {"directory": None}),
    ("log", {"logs": "/proc"}),
    ("limit", {"state_directory": "/missing", "timeout_s": 2}),
):
    other = openrc.OpenRCServiceManager(settings._replace(**changed))
    error(name, other.register, "x", ("sleep", "9"))
started = os.listdir("/run/openrc/started")
os.system("mount -t tmpfs -o size=4k full /mnt; head -c 4096 /dev/zero > /mnt/full")
full = openrc.OpenRCServiceManager(settings._replace(directory="/mnt"))
error("full", full.register, "x", ("sleep", "9"))
seen["half"] = os.listdir("/mnt")
seen["left"] = [manager.list(), os.listdir("/etc/runlevels/default"), started]
child = os.fork()
if child == 0:
    os.setuid(5)
    error("start", manager.start, "web")
    error("status", manager.state, "web")
    error("register", manager.register, "x", ("true",))
    error("unknown", manager.stop, "x")
    print(json.dumps(seen), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""

CLI = """
from click.testing import CliRunner
from osbuild_pika.cli.verbs import osbuild_pika
def call(*words):
    done = CliRunner().invoke(osbuild_pika, ["service", *words])
    return [done.exit_code, done.stdout, done.stderr]
where = ("--unit-directory", "/etc/init.d")
seen["register"] = call("register", "web", *where, "--env", "A=1", "--", "sleep", "1000")
seen["list"] = call("list", *where)
seen["status"] = call("status", "web")[:1]
seen["stop"] = call("stop", "web")
seen["down"] = call("status", "web")[:1]
seen["restart"] = call("restart", "web")
seen["unregister"] = call("unregister", "web", *where)
seen["closed"] = call("register", "web", "--", "sleep", "1000")
seen["reconcile"] = call("reconcile")
seen["state"] = call("list", "--state", "/x")
print(json.dumps(seen))
"""


@pytest.fixture(name="packages", scope="module")
def fixture_packages(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert pytestconfig.cache is not None
    place = tmp_path_factory.mktemp("openrc") / "packages"
    return openrc_root.packages(pytestconfig.cache.mkdir("debs"), place)


def seen_by(place: Path, packages: Path, program: str) -> Any:
    """What a program saw there."""
    done = openrc_root.run(place, packages, PROGRAM + program)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_service_lives_a_whole_life_under_openrc(packages: Path, tmp_path: Path) -> None:
    seen = seen_by(tmp_path, packages, LIFE)
    assert (seen["kind"], seen["same"]) == ("openrc", "openrc")
    assert seen["said"] == 'a  %h "q*" $B|x  y;* %n|$A `q`\nz\n'
    assert (seen["list"], seen["mode"], seen["at a boot"]) == (["web"], 0o700, True)
    assert seen["restarted"] == [True, True, True, True]
    assert (seen["stopped"], seen["started"]) == ([False, False], True)
    kind, code, text = seen["gone"]
    assert (kind, code) == ("NotRegisteredError", 2)
    assert "register it: osbuild-pika service register web" in text
    assert (seen["left"], seen["killed"]) == ([[], False], True)
    # Their supervisors were killed, and they were not: one is started, one is stopped.
    assert seen["lost"] == [True, True, True, True]
    assert seen["deaf"] == [True, True, True, False]
    assert (seen["down"], seen["again"]) == ([False, []], True)
    assert seen["games"] == "games /usr/games\n"


def test_what_openrc_refuses_is_said_and_rolled_back(packages: Path, tmp_path: Path) -> None:
    seen = seen_by(tmp_path, packages, ERRORS)
    assert (seen["left"], seen["half"]) == ([["web"], [], []], ["full"])
    for name, kind, code, text in (
        ("twice", "AlreadyRegisteredError", 2, "osbuild-pika service unregister web"),
        ("notify", "BadServiceError", 2, "no descriptor for readiness"),
        ("variable", "BadServiceError", 2, "RC_SVCNAME: OpenRC keeps variables"),
        ("program", "BadServiceError", 2, "'no-such-program': there is no such program"),
        ("user", "CommandError", 1, "x: start failed with status 1: * checkpath: owner"),
        ("directory", "ServiceError", 1, "x: /missing/pika-service-x: No such file"),
        ("full", "ServiceError", 1, "x: /mnt/pika-service-x: No space left on device"),
        ("closed", "RegistrationNotSupportedError", 3, "such as --unit-directory /etc/init.d"),
        ("log", "CommandError", 1, "x: start failed with status 1"),
        ("limit", "CommandError", 124, "x: start took too long: supervise-daemon did not"),
        ("start", "CommandError", 1, "web: start failed with status 1: "),
        ("status", "CommandError", 1, "only root steers OpenRC: be root"),
        ("register", "ServiceError", 1, "x: /etc/init.d/pika-service-x: Permission denied"),
        ("unknown", "NotRegisteredError", 2, "register it"),
    ):
        assert seen[name][:2] == [kind, code], (name, seen[name])
        assert text in seen[name][2]


def test_the_command_line_steers_openrc(packages: Path, tmp_path: Path) -> None:
    seen = seen_by(tmp_path, packages, CLI)
    start = "osbuild-pika: "
    assert seen["register"] == [0, "", f"{start}web: registered, started\n"]
    assert (seen["list"], seen["status"], seen["down"]) == ([0, "web\n", ""], [0], [1])
    assert seen["stop"] == [0, "", f"{start}web: down\n"]
    assert seen["restart"] == [0, "", f"{start}web: up\n"]
    assert seen["unregister"] == [0, "", f"{start}web: not registered\n"]
    for name, code, text in (
        (
            "closed",
            3,
            "allow it, such as --unit-directory /etc/init.d",
        ),
        ("reconcile", 2, "openrc starts by itself what is enabled: there is nothing to reconcile"),
        ("state", 2, "--state is for s6; this machine has openrc"),
    ):
        assert (seen[name][:2], seen[name][2].count("\n")) == ([code, ""], 1)
        assert text in seen[name][2]
