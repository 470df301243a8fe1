"""What a guest tells: the verdict on its unit, the probe, the records, and Incus's own answer."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika import lifecycle
from osbuild_pika.inside import guestreport

SYSTEMCTL = """#!/bin/sh
case "$1" in
show) cat "$STATES/unit"; [ ! -e "$STATES/next" ] || cp "$STATES/next" "$STATES/unit" ;;
list-units) cat "$STATES/failed" 2>/dev/null ;;
*) echo "$@" >>"$STATES/asked" ;;
esac
"""
ACTIVE = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n"
WAITING = "LoadState=loaded\nActiveState=activating\nSubState=start\nResult=success\n"
FAILED = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n"
# Each time it is looked at it is the other way.
FLAPPING = """#!/bin/sh
cat "$STATES/unit"
mv "$STATES/unit" "$STATES/new"
mv "$STATES/other" "$STATES/unit"
mv "$STATES/new" "$STATES/other"
"""
AN_HOUR_ON = int(time.monotonic() + 3600) * 1_000_000  # however long a test waits, it is later
S6_SVSTAT = """#!/bin/sh
cat "$STATES/s6"
"""
ROOT = Path(__file__).parents[2]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the status that is in the path."""

    seen: list[Any]

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]))
        self.end_headers()

    def do_PATCH(self) -> None:
        length = int(self.headers["Content-Length"])
        self.seen.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return ""


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="url")
def fixture_url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


class Guest:
    """A directory that stands for a guest: its helper, its units' states, its records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("lib", "bin", "states"):
            (path / name).mkdir()
        shutil.copy(ROOT / "osbuild_pika/lifecycle.py", path / "lib/pika-cloud-lifecycle")
        for name, text in {"systemctl": SYSTEMCTL, "s6-svstat": S6_SVSTAT}.items():
            (path / "bin" / name).write_text(text)
            (path / "bin" / name).chmod(0o755)

    def report(self, verb: str, **rules: Any) -> None:
        (self.path / "lib/report.json").write_text(json.dumps(rules))
        environment = {
            "PATH": f"{self.path}/bin:{os.environ['PATH']}",
            "STATES": f"{self.path}/states",
            "PIKA_CLOUD_LIB": f"{self.path}/lib",
            "PIKA_CLOUD_RUN": f"{self.path}/run",
            "PIKA_CLOUD_GUEST_API": f"{self.path}/sock",
            "PIKA_CLOUD_S6": f"{self.path}/service",
            "PIKA_CLOUD_OPENRC": f"{self.path}/openrc",
        }
        program = ROOT / "osbuild_pika/inside/guestreport.py"
        subprocess.run(
            [sys.executable, "-I", str(program), verb], env=environment, check=True, timeout=60
        )

    def unit(self, text: str, name: str = "unit") -> None:
        (self.path / "states" / name).write_text(text)

    def events(self) -> list[tuple[str, str]]:
        lines = (self.path / "run/events.jsonl").read_bytes().splitlines()
        found = [lifecycle.decode("event", line) for line in lines]
        assert {each["boot_id"] for each in found} == {lifecycle.boot_id()}
        return [(each["kind"], each["message"]) for each in found]

    def status(self) -> dict[str, Any]:
        return lifecycle.decode("status", (self.path / "run/status.json").read_bytes())


@pytest.fixture(name="guest")
def fixture_guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.mark.parametrize(
    ("unit", "verdict"),
    [
        ({"LoadState": "loaded", "ActiveState": "active"}, "active"),
        ({"LoadState": "loaded", "ActiveState": "reloading"}, "active"),
        ({"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead"}, "waiting"),
        ({"LoadState": "loaded", "ActiveState": "activating"}, "waiting"),
        ({"LoadState": "loaded", "ActiveState": "failed", "Result": "signal"}, "failed"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "failed"),
        ({"LoadState": "masked", "ActiveState": "inactive"}, "failed"),
        ({}, "waiting"),
    ],
)
def test_what_a_units_state_means(unit: dict[str, str], verdict: str) -> None:
    assert guestreport.judge(unit, 1.0)[0] == verdict


@pytest.mark.parametrize("kind", ["simple", "exec", "idle"])
def test_a_unit_that_never_says_it_is_ready_has_to_run(kind: str) -> None:
    unit = {"LoadState": "loaded", "ActiveState": "active", "Type": kind}
    young = {**unit, "ActiveEnterTimestampMonotonic": str(AN_HOUR_ON)}
    assert guestreport.judge(young, 1.0) == ("waiting", "just started")
    assert guestreport.judge({**young, "Type": "notify"}, 1.0) == ("active", "active")
    assert guestreport.judge({**unit, "ActiveEnterTimestampMonotonic": "1"}, 1.0)[0] == "active"


def test_a_unit_that_is_started_again_and_again_is_never_ready(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = f"{ACTIVE}Type=exec\nActiveEnterTimestampMonotonic={AN_HOUR_ON}\n"
    guest.unit(unit)
    (guest.path / "bin/systemctl").write_text(FLAPPING)
    guest.unit(WAITING, "other")
    monkeypatch.setenv("PATH", f"{guest.path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("STATES", f"{guest.path}/states")
    seen = []

    def look() -> tuple[str, str]:
        seen.append(guestreport.look_at_unit("web.service", guestreport.SETTLE_S))
        return seen[-1]

    is_ready, why = guestreport.wait(look, "web.service", None, 0.5)
    assert (is_ready, why[:38]) == (False, "not ready within 0.5 s: web.service is")
    assert set(seen) <= {("waiting", "just started"), ("waiting", "activating (start)")}


def test_only_success_and_redirects_are_an_answer(url: str) -> None:
    assert guestreport.probe(f"{url}/200") == guestreport.probe(f"{url}/302") == ""
    assert guestreport.probe(f"{url}/503").endswith("status 503")
    assert "status 404" in guestreport.probe(f"{url}/404/x?y")
    assert "refused" in guestreport.probe("http://127.0.0.1:1/")
    assert guestreport.probe("http://127.0.0.1:no/") != ""


def test_a_boot_is_told_until_it_is_ready(guest: Guest, url: str) -> None:
    guest.unit(WAITING)
    guest.unit(ACTIVE, "next")
    guest.report("boot", unit="web.service", http=f"{url}/200", within_s=30)
    assert guest.events() == [
        ("booted", "the guest has booted"),
        ("starting", "waiting for web.service"),
        ("ready", f"web.service is active, {url}/200 answers"),
    ]
    assert guest.status()["state"] == "ready"
    assert guest.status()["details"]["unit"] == "web.service"


def test_without_a_unit_the_system_is_waited_for(guest: Guest) -> None:
    guest.unit(ACTIVE)
    guest.unit("bad.service loaded failed failed Bad\n", "failed")
    guest.report("boot", unit=None, http=None, within_s=30)
    assert guest.events()[-1] == ("ready", "multi-user.target is active")
    assert guest.status()["details"]["failed_units"] == ["bad.service"]


def test_a_unit_that_fails_is_told_with_its_reason(guest: Guest) -> None:
    guest.unit(FAILED)
    guest.report("boot", unit="web.service", within_s=30)
    assert guest.events()[-1] == ("failed", "web.service failed: exit-code")
    asked = (guest.path / "states/asked").read_text()
    assert asked == "stop --no-block pika-cloud-report.service\n"


def test_a_guest_that_is_not_ready_in_time_says_what_is_missing(guest: Guest, url: str) -> None:
    guest.unit(ACTIVE)
    guest.report("boot", unit="web.service", http=f"{url}/500", within_s=0.2)
    assert guest.events()[-1] == ("failed", f"not ready within 0.2 s: {url}/500: status 500")


def test_a_unit_that_fails_later_is_told_once_and_its_return_too(guest: Guest) -> None:
    guest.unit(ACTIVE)
    guest.report("boot", unit="web.service", within_s=30)
    guest.report("failed", unit="web.service")  # it runs: nothing to tell
    guest.unit(FAILED)
    guest.report("failed", unit="web.service")
    guest.report("failed", unit="web.service")
    guest.unit(ACTIVE)
    guest.report("boot", unit="web.service", within_s=30)
    kinds = [kind for kind, _ in guest.events()]
    assert kinds == ["booted", "starting", "ready", "failed", "starting", "ready"]


@pytest.mark.parametrize(
    ("said", "tells", "verdict", "why"),
    [
        ("true true false -1 -1 3", False, "active", "active"),
        ("true true false -1 -1 0", False, "waiting", "just started"),
        ("true true true -1 -1 0", True, "active", "active"),
        ("true true false -1 -1 9", True, "waiting", "up, and not ready yet"),
        ("false true false 3 -1 0", False, "waiting", "down (exited with status 3), to be started"),
        ("false true false -1 9 0", False, "waiting", "down (killed by signal 9), to be started"),
        ("false false false 78 -1 0", False, "failed", "exited with status 78"),
        ("false false false -1 15 0", False, "waiting", "down (killed by signal 15)"),  # s6-svc -d
        ("", False, "waiting", "not supervised yet"),
    ],
)
def test_what_s6_says_of_a_service_means(said: str, tells: bool, verdict: str, why: str) -> None:
    found = guestreport.judge_s6(said, tells, 1.0)
    assert (found[0], found[1][: len(why)]) == (verdict, why)


def test_under_s6_a_service_is_waited_for(guest: Guest, url: str) -> None:
    (guest.path / "service/web").mkdir(parents=True)
    (guest.path / "service/.s6-svscan").mkdir()
    guest.unit("true true false -1 -1 0\n", "s6")
    guest.report("boot", init="s6", service="web", http=f"{url}/200", within_s=30)
    guest.report("failed", init="s6", service="web")  # it runs: nothing to tell
    guest.unit("false false false 78 -1 0\n", "s6")
    guest.report("failed", init="s6", service="web")
    guest.report("boot", init="s6", service="web", within_s=30)
    guest.report("boot", init="s6", service="other", within_s=30)
    assert guest.events() == [
        ("booted", "the guest has booted"),
        ("starting", "waiting for web"),
        ("ready", f"web is active, {url}/200 answers"),
        ("failed", "web failed: exited with status 78"),
        ("starting", "waiting for web"),
        ("failed", "web failed: exited with status 78"),
        ("starting", "waiting for other"),
        ("failed", "other failed: there is no such service"),
    ]
    assert guest.status()["details"]["service"] == "other"
    assert guest.status()["details"]["failed_units"] == ["web"]
    assert not (guest.path / "states/asked").exists()  # systemctl was asked for nothing


def test_under_openrc_a_service_is_waited_for(guest: Guest) -> None:
    state = guest.path / "openrc"
    for name in ("started", "failed", "options/web"):
        (state / name).mkdir(parents=True)
    (state / "failed/bad").symlink_to("/etc/init.d/bad")
    guest.report("boot", init="openrc", service="bad", within_s=30)
    guest.report("boot", init="openrc", service="web", within_s=0.2)
    (state / "started/web").symlink_to("/etc/init.d/web")
    (state / "options/web/child_pid").write_text("4194304")  # more than there can be
    guest.report("boot", init="openrc", service="web", within_s=0.2)
    (state / "options/web/child_pid").write_text(str(os.getpid()))
    guest.report("boot", init="openrc", service="web", within_s=30)
    assert [each for each in guest.events() if each[0] != "starting"] == [
        ("booted", "the guest has booted"),
        ("failed", "bad failed: it could not be started"),
        ("failed", "not ready within 0.2 s: web is stopped"),
        ("failed", "not ready within 0.2 s: web is down, to be started again"),
        ("ready", "web is active"),
    ]


def test_under_openrc_the_default_runlevel_stands_for_the_system(guest: Guest) -> None:
    state = guest.path / "openrc"
    state.mkdir()
    (state / "softlevel").write_text("boot")
    guest.report("boot", init="openrc", service=None, within_s=0.2)
    (state / "softlevel").write_text("default")
    guest.report("boot", init="openrc", service=None, within_s=30)
    assert [each for each in guest.events() if each[0] != "starting"] == [
        ("booted", "the guest has booted"),
        ("failed", "not ready within 0.2 s: runlevel default is at boot"),
        ("ready", "runlevel default is active"),
    ]


def test_what_another_boot_left_does_not_count(guest: Guest) -> None:
    (guest.path / "run").mkdir()
    old = {"schema_version": 1, "state": "ready", "updated_at": "t", "message": "", "boot_id": "x"}
    (guest.path / "run/status.json").write_text(json.dumps(old))
    guest.unit(ACTIVE)
    guest.report("boot", unit=None, within_s=30)
    assert guest.events()[0][0] == "booted"


def test_incus_is_told_and_may_refuse(guest: Guest) -> None:
    Handler.seen = []
    guest.unit(ACTIVE)
    with serving(UnixServer(str(guest.path / "sock"), Handler)):
        guest.report("boot", unit=None, within_s=30)
    assert Handler.seen == [("/1.0", {"state": "Ready"})]
    assert guest.status()["state"] == "ready"


def test_it_leaves_nothing_beside_the_image_files(guest: Guest) -> None:
    guest.unit(ACTIVE)
    guest.report("boot", unit=None, within_s=30)
    assert sorted(os.listdir(guest.path / "lib")) == ["pika-cloud-lifecycle", "report.json"]


def test_wrong_arguments_are_one_line() -> None:
    program = str(ROOT / "osbuild_pika/inside/guestreport.py")
    done = subprocess.run([sys.executable, "-I", program, "x"], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == f"{guestreport.USAGE}\n"
