"""Services on a real systemd, which is the first process of namespaces of its own.

Of the system, as unit files and as transient units, and of an ordinary user.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data.nix.private_nix import DATA, ROOT

UNITS = "/run/units"  # where it reads them, and nothing else can
IDLE = "[Service]\nType=oneshot\nExecStart=/bin/true\n"  # boot.sh wants one of the name
USER = "games"
COMMON = """
import encodings.idna, json, os, pwd, time
from osbuild_pika.service_managers import base, systemd
seen = {}
def until(is_so):
    while not is_so():
        time.sleep(0.05)
"""
# A service that is restarted, and started again after each signal.
LIFE = """\
manager.register("web", ("sh", "-c", say, "x y;%n", "$A `q`"), env={"A": 'a %h "q" $B'})
until(lambda: os.path.exists("/run/said"))
seen["said"], seen["list"] = open("/run/said").read(), manager.list()
first = manager.state("web")
manager.restart("web")
second = manager.state("web")
seen["restarted"] = [first.is_up, first.is_ready, second.is_up, first.pid != second.pid]
os.kill(second.pid, 9)
until(lambda: manager.state("web").pid not in (None, second.pid))
third = manager.state("web")
os.kill(third.pid, 15)
until(lambda: manager.state("web").pid not in (None, third.pid))
"""
SYSTEM = f"""
settings = systemd.default_settings()._replace(is_user=False, directory="{UNITS}")
manager = systemd.SystemdServiceManager(settings)
say = 'echo "$A|$0|$1" > /run/said.new; mv /run/said.new /run/said; exec sleep 1000'
{LIFE}manager.stop("web")
seen["stopped"] = manager.is_running("web")
manager.start("web")
seen["started"] = manager.is_running("web")
manager.unregister("web")
try:
    manager.start("web")
except base.NotRegisteredError as error:
    seen["gone"] = str(error)
manager.register("done", ("sh", "-c", "sleep 0.5; exit 78"))
until(lambda: manager.state("done").exit_code == 78)
seen["done"] = manager.state("done").is_wanted
manager.register("down", ("sleep", "9"), start_now=False)
seen["down"] = manager.is_running("down")
try:
    other = systemd.SystemdServiceManager(settings._replace(user="nosuchuser"))
    other.register("refused", ("sleep", "9"))
except base.CommandError as error:
    seen["refused"] = str(error)
seen["left"] = sorted(name for name in os.listdir("{UNITS}") if "pika-service-" in name)
json.dump(seen, open("/run/seen", "w"))
"""


# What a transient unit is asked beside that.
TRANSIENT = f"""
settings = systemd.default_settings()._replace(is_user=False, is_transient=True)
manager = systemd.SystemdServiceManager(settings)
say = 'echo "$A|$0|$1|$(id -un)" > /run/said.new; mv /run/said.new /run/said; exec sleep 1000'
{LIFE}def error(name, call, *words, **options):
    try:
        call(*words, **options)
    except base.PikaError as raised:
        seen[name] = [type(raised).__name__, str(raised)]
error("twice", manager.register, "web", ("true",))
manager.stop("web")
error("gone", manager.start, "web")
manager.register("web", ("sleep", "1000"))
manager.unregister("web")
manager.unregister("web")
error("unregistered", manager.state, "web")
manager.register("done", ("sh", "-c", "sleep 0.5; exit 78"))
until(lambda: manager.state("done").exit_code == 78)
seen["done"] = [manager.state("done").is_wanted, manager.list()]
manager.unregister("done")
error("down", manager.register, "down", ("sleep", "9"), start_now=False)
other = systemd.SystemdServiceManager(settings._replace(user="nosuchuser"))
error("refused", other.register, "refused", ("sleep", "9"))
open("/run/not-a-program", "w").close()
os.chmod("/run/not-a-program", 0o755)
os.truncate("/run/not-a-program", 4096)
error("bad", manager.register, "bad", ("/run/not-a-program",))
os.unlink("/run/said")
own = systemd.SystemdServiceManager(settings._replace(user="games"))
os.mkdir("/run/games")
os.chown("/run/games", 5, 5)
own.register("own", ("sh", "-c", "id -un > /run/games/new; mv /run/games/new /run/games/said"))
until(lambda: os.path.exists("/run/games/said"))
seen["own"] = open("/run/games/said").read()
from click.testing import CliRunner
from osbuild_pika.cli.verbs import osbuild_pika
seen["cli"] = []
for words in (
    ("register", "cli", "--transient", "--", "sleep", "1000"),
    ("list", "--transient"),
    ("status", "cli"),
    ("unregister", "cli", "--transient"),
    ("status", "cli"),
):
    done = CliRunner().invoke(osbuild_pika, ["service", *words])
    seen["cli"].append([words[0], done.exit_code])
seen["left"] = manager.list()
json.dump(seen, open("/run/seen", "w"))
"""
# A user's own manager, as a system's unit starts it, and a client that is that user.
USERS_UNIT = f"""[Service]
Type=notify
User={USER}
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/xdg SYSTEMD_UNIT_PATH=/run/xdg/units:/usr/lib/systemd/user
ExecStartPre=+/bin/install -d -o {USER} -m 0700 /run/xdg /run/xdg/units
ExecStart=/lib/systemd/systemd --user
"""
OWN = f"""
import subprocess
subprocess.run(("systemctl", "start", "users.service"), check=True)
os.environ["XDG_RUNTIME_DIR"] = "/run/xdg"
os.setgid(pwd.getpwnam("{USER}").pw_gid)
os.setuid(pwd.getpwnam("{USER}").pw_uid)
for settings in (
    systemd.default_settings()._replace(directory="/run/xdg/units"),
    systemd.default_settings()._replace(is_transient=True),
):
    manager = systemd.SystemdServiceManager(settings)
    say = "id -un > /run/xdg/new; mv /run/xdg/new /run/xdg/said; exec sleep 1000"
    manager.register("web", ("sh", "-c", say))
    until(lambda: os.path.exists("/run/xdg/said"))
    first = manager.state("web")
    said = open("/run/xdg/said").read()
    os.kill(first.pid, 9)
    until(lambda: manager.state("web").pid not in (None, first.pid))
    manager.restart("web")
    listed = manager.list()
    manager.unregister("web")
    os.unlink("/run/xdg/said")
    name = "transient" if settings.is_transient else "files"
    seen[name] = [settings.is_user, said, first.is_up, listed, manager.list()]
json.dump(seen, open("/run/xdg/seen", "w"))
"""


def seen_by(run: Path, program: str, said: str = "seen") -> Any:
    """What a program saw in a booted systemd, whose /run is `run`."""
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "true")
    if subprocess.run(namespaces, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to make namespaces: run as root")
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is missing")
    shutil.copytree(DATA / "guest", run / "units")
    (run / "units/broken.service").unlink(missing_ok=True)
    (run / "units/pika-cloud-none.service").write_text(IDLE)
    (run / "units/users.service").write_text(USERS_UNIT)
    (run / "program.py").write_text(COMMON + program)
    python = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={ROOT} {sys.executable} /run/program.py"
    end = "2> /run/error || :\nsystemctl --force exit\n"
    (run / "scenario.sh").write_text(f"PATH={os.environ['PATH']} {python} {end}")
    boot = ("unshare", "--mount", "--propagation", "private", DATA / "boot.sh", UNITS, run)
    subprocess.run(boot, check=True, timeout=90)
    assert (run / "error").read_text() == ""
    return json.loads((run / said).read_text())


def test_a_service_lives_a_whole_life_under_systemd(tmp_path: Path) -> None:
    seen = seen_by(tmp_path / "run", SYSTEM)
    assert seen["said"] == 'a %h "q" $B|x y;%n|$A `q`\n'
    assert seen["list"] == ["web"]
    assert seen["restarted"] == [True, True, True, True]
    assert (seen["stopped"], seen["started"]) == (False, True)
    assert "register it: osbuild-pika service register web" in seen["gone"]
    assert (seen["done"], seen["down"]) == (False, False)
    assert "refused: start failed with status 1" in seen["refused"]
    assert seen["left"] == ["pika-service-done.service", "pika-service-down.service"]


def test_a_transient_service_lives_until_it_stops(tmp_path: Path) -> None:
    seen = seen_by(tmp_path / "run", TRANSIENT)
    assert seen["said"] == 'a %h "q" $B|x y;%n|$A `q`|root\n'
    assert seen["list"] == ["web"]
    assert seen["restarted"] == [True, True, True, True]
    for name, kind, text in (
        ("twice", "AlreadyRegisteredError", "osbuild-pika service unregister web"),
        ("gone", "NotRegisteredError", "osbuild-pika service register web"),
        ("unregistered", "NotRegisteredError", "osbuild-pika service register web"),
        ("down", "BadServiceError", "down: a transient service runs from its registration on"),
        ("refused", "CommandError", "refused: start failed with status 1"),
        ("bad", "CommandError", "bad: start failed with status 1"),
    ):
        assert seen[name][0] == kind, seen[name]
        assert text in seen[name][1]
    assert seen["done"] == [False, ["done"]]
    assert (seen["own"], seen["left"]) == ("games\n", [])
    ends = [("register", 0), ("list", 0), ("status", 0), ("unregister", 0), ("status", 2)]
    assert [tuple(each) for each in seen["cli"]] == ends


def test_a_users_own_systemd_does_the_same(tmp_path: Path) -> None:
    seen = seen_by(tmp_path / "run", OWN, "xdg/seen")
    assert seen == {
        "files": [True, "games\n", True, ["web"], []],
        "transient": [True, "games\n", True, ["web"], []],
    }
