"""Debian 12 with systemd, s6 and OpenRC boots in a real Incus, says ready, and ends when told."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import guests
import private_incus
import pytest
from workshop import Workshop

INITS = ("systemd", "s6", "openrc")
# What the first process is, and which program it runs.
FIRST = {
    "systemd": ("systemd", "/usr/lib/systemd/systemd"),
    "s6": ("s6-svscan", "/usr/bin/s6-svscan"),
    "openrc": ("init", "/usr/bin/busybox"),
}
# What is told last when the service ends with 78, which is for good: but OpenRC's supervisor starts
# it again whatever it ended with.
LAST_WORD = {"systemd": "failed", "s6": "failed", "openrc": "ready"}
START = {
    "systemd": "systemctl start web",
    "s6": "s6-svc -u /run/service/web",
    "openrc": "rc-service web status",
}
URL = "http://127.0.0.1:8080/"
STOP_S = 60
DEFINITION = """\
name: on-{init}
from: debian/bookworm
init: {init}
packages: [openssh-server]
users: [{{name: web, uid: 990}}]
files: [{{path: /srv/web/index.html, content: "by {init}\\n"}}]
services:
  run:
    web:
      command: [sh, -c, '[ ! -e /srv/web/bad ] || exit 78; exec "$@"', sh,
                python3, -m, http.server, --bind, 127.0.0.1, --directory, /srv/web, "8080"]
      env: {{SAID: "it's $HOME"}}
      user: web
ready: {{service: web, http: "{url}", within: 2m}}
compression: zstd-3
"""
# The process of who serves: its supervisor has the same words, its logger the same user.
SERVER = """\
cd /proc
for each in [0-9]*; do
    [ "$(stat -c %U $each 2>/dev/null)" != web ] || ! grep -qs '[h]ttp.server' $each/cmdline ||
        echo $each
done
"""
RESOLVERS = "cat /run/systemd/resolve/resolv.conf || cat /etc/resolv.conf"
FETCH = f"import urllib.request as u; print(u.urlopen('{URL}').read().decode(), end='')"


@pytest.fixture(name="built", scope="module", params=INITS)
def fixture_built(request: pytest.FixtureRequest, shop: Workshop) -> str:
    """The name of an init, of which there is an image."""
    init = str(request.param)
    directory = shop.path / f"on-{init}"
    directory.mkdir()
    definition = directory / "image.yaml"
    definition.write_text(DEFINITION.format(init=init, url=URL))
    shop.build(definition)
    return init


class Instance:
    """An instance of the image with an init."""

    def __init__(self, daemon: Path, name: str) -> None:
        self.daemon = daemon
        self.name = name

    def inside(self, *command: str) -> str:
        return private_incus.incus(self.daemon, "exec", self.name, "--", *command).decode()

    def end(self, command: str) -> None:
        """Run a command that ends the guest, and who looks at it with it."""
        with suppress(RuntimeError):
            self.inside("sh", "-c", f"{command}; sleep 60")

    def boot_id(self) -> str:
        """Of the boot that it is in; "" between two of them."""
        with suppress(RuntimeError):
            return self.inside("cat", "/proc/sys/kernel/random/boot_id").strip()
        return ""

    def state(self) -> str:
        found = private_incus.incus(self.daemon, "list", self.name, "--format", "json")
        return str(json.loads(found)[0]["status"])

    def words(self) -> list[dict[str, Any]]:
        """What it told since it booted."""
        with suppress(RuntimeError):  # it has not begun
            lines = self.inside("cat", "/run/pika-cloud/events.jsonl").splitlines()
            return [json.loads(line) for line in lines]
        return []

    def kinds(self) -> list[str]:
        return [each["kind"] for each in self.words()]

    def is_ready(self) -> bool:
        return "ready" in self.kinds()

    def serves(self) -> str:
        """What its service answers; "" if it does not."""
        with suppress(RuntimeError):
            return self.inside("/usr/bin/python3", "-c", FETCH)
        return ""

    def service(self) -> str:
        """The process of its service."""
        (pid,) = self.inside("sh", "-c", SERVER).split()
        return pid


@pytest.fixture(name="instance", scope="module")
def fixture_instance(built: str, shop: Workshop, daemon: Path) -> Instance:
    """An instance that the host has seen to be ready."""
    socket = private_incus.places(daemon).socket
    image = shop.path / f"on-{built}/output/incus-unified"
    words = ("--wait", "ready", "--timeout", "2m", "--socket", socket, "--format", "json")
    done = shop.call("launch", image, f"on-{built}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["state"]) == ("reached", "ready")
    return Instance(daemon, f"on-{built}")


def test_its_first_process_is_the_init_that_was_asked_for(built: str, instance: Instance) -> None:
    comm = instance.inside("cat", "/proc/1/comm").strip()
    assert (comm, instance.inside("readlink", "/proc/1/exe").strip()) == FIRST[built]


def test_it_told_how_it_came_to_be_ready(built: str, instance: Instance) -> None:
    told = instance.words()
    assert instance.kinds() == ["booted", "starting", "ready"]
    assert {each["boot_id"] for each in told} == {instance.boot_id()}
    key, name = ("unit", "web.service") if built == "systemd" else ("service", "web")
    assert (told[-1]["details"][key], told[-1]["details"]["http"]) == (name, URL)
    assert "failed_units" not in told[-1]["details"]


def test_its_service_runs_as_it_is_defined(built: str, instance: Instance) -> None:
    assert instance.serves() == f"by {built}\n"
    pid = instance.service()
    environment = instance.inside("cat", f"/proc/{pid}/environ").split("\0")
    assert "SAID=it's $HOME" in environment
    assert instance.inside("stat", "--format", "%U", f"/proc/{pid}").strip() == "web"


def test_it_has_an_address_and_names_by_dhcp(instance: Instance) -> None:
    def listed() -> str:
        found = private_incus.incus(instance.daemon, "list", instance.name, "-f", "csv", "-c", "4")
        return found.decode().strip().partition(" ")[0]

    given = guests.until(listed)
    assert given.startswith("10.77.0.")
    server = private_incus.ADDRESS.partition("/")[0]
    guests.until(lambda: server in instance.inside("sh", "-c", RESOLVERS))


def test_nothing_of_its_packages_was_changed(instance: Instance) -> None:
    assert instance.inside("dpkg", "--verify") == instance.inside("dpkg", "--audit") == ""
    keys = "ls /etc/ssh/ssh_host_*_key 2>/dev/null | wc -l"  # nobody who is ready waits for them
    guests.until(lambda: int(instance.inside("sh", "-c", keys)) >= 2)


def test_a_service_that_ends_is_started_again_or_told(built: str, instance: Instance) -> None:
    instance.inside("sh", "-c", f"kill -9 {instance.service()}")
    guests.until(instance.serves)
    guests.until(lambda: instance.kinds()[-1:] == ["ready"])
    pid = instance.service()
    instance.inside("sh", "-c", f": >/srv/web/bad; kill -9 {pid}")
    guests.until(lambda: instance.kinds()[-1:] == [LAST_WORD[built]])
    guests.until(lambda: not instance.serves())  # nor does any that comes after it
    instance.inside("sh", "-c", f"rm /srv/web/bad; {START[built]}")
    guests.until(instance.serves)
    assert instance.service() != pid
    guests.until(lambda: instance.kinds()[-1:] == ["ready"])


def test_it_starts_again_when_it_is_told_to_reboot(instance: Instance) -> None:
    before = instance.boot_id()
    instance.end("reboot")
    assert guests.until(lambda: instance.boot_id() not in ("", before))
    assert guests.until(instance.is_ready)


def test_incus_stops_it_without_force(instance: Instance) -> None:
    private_incus.incus(instance.daemon, "stop", instance.name, "--timeout", str(STOP_S))
    assert instance.state() == "Stopped"


def test_it_stops_when_it_is_told_to_power_off(instance: Instance) -> None:
    private_incus.incus(instance.daemon, "start", instance.name)
    guests.until(instance.is_ready)
    instance.end("poweroff")
    assert guests.until(lambda: instance.state() == "Stopped")
