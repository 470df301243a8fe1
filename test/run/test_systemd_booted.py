"""Services on a real systemd, which is the first process of namespaces of its own."""

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
PROGRAM = f"""
import json, os, time
from osbuild_pika.service_managers import base, systemd
settings = systemd.default_settings()._replace(is_user=False, directory="{UNITS}")
manager = systemd.SystemdServiceManager(settings)
seen = {{}}
def until(is_so):
    while not is_so():
        time.sleep(0.05)
say = 'echo "$A|$0|$1" > /run/said.new; mv /run/said.new /run/said; exec sleep 1000'
manager.register("web", ("sh", "-c", say, "x y;%n", "$A `q`"), env={{"A": 'a %h "q" $B'}})
until(lambda: os.path.exists("/run/said"))
seen["said"], seen["list"] = open("/run/said").read(), manager.list()
first = manager.state("web")
manager.restart("web")
second = manager.state("web")
seen["restarted"] = [first.is_up, first.is_ready, second.is_up, first.pid != second.pid]
os.kill(second.pid, 9)
until(lambda: manager.state("web").pid not in (None, second.pid))
manager.stop("web")
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


@pytest.fixture
def seen(tmp_path: Path) -> Any:
    """What PROGRAM saw in a booted systemd."""
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "true")
    if subprocess.run(namespaces, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to make namespaces: run as root")
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is missing")
    run = tmp_path / "run"
    shutil.copytree(DATA / "guest", run / "units")
    (run / "units/broken.service").unlink(missing_ok=True)
    (run / "units/pika-cloud-none.service").write_text(IDLE)
    (run / "program.py").write_text(PROGRAM)
    python = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={ROOT} {sys.executable} /run/program.py"
    end = "2> /run/error || :\nsystemctl --force exit\n"
    (run / "scenario.sh").write_text(f"PATH={os.environ['PATH']} {python} {end}")
    boot = ("unshare", "--mount", "--propagation", "private", DATA / "boot.sh", UNITS, run)
    subprocess.run(boot, check=True, timeout=90)
    assert (run / "error").read_text() == ""
    return json.loads((run / "seen").read_text())


def test_a_service_lives_a_whole_life_under_systemd(seen: Any) -> None:
    assert seen["said"] == 'a %h "q" $B|x y;%n|$A `q`\n'
    assert seen["list"] == ["web"]
    assert seen["restarted"] == [True, True, True, True]
    assert (seen["stopped"], seen["started"]) == (False, True)
    assert "register it: osbuild-pika service register web" in seen["gone"]
    assert (seen["done"], seen["down"]) == (False, False)
    assert "refused: start failed with status 1" in seen["refused"]
    assert seen["left"] == ["pika-service-done.service", "pika-service-down.service"]
