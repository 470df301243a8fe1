"""Debian 13 under each init boots in a real Incus, says ready, and is well."""

from __future__ import annotations

import json
from pathlib import Path

import guests
import private_incus
import pytest
import workshop
from workshop import Workshop

from osbuild_pika.errors import ExitCode

pytestmark = pytest.mark.slow
INITS = ("systemd", "s6", "openrc")
DEFINITION = """\
name: trixie-{init}
from: debian/trixie
init: {init}
services:
  run:
    web: {{command: [python3, -m, http.server, --bind, 127.0.0.1, "8080"]}}
ready: {{service: web, http: "http://127.0.0.1:8080/", within: 2m}}
compression: zstd-3
"""
# What succeeds where all services are well.
WELL = {
    "systemd": 'systemctl is-system-running --wait && [ -z "$(systemctl --failed --no-legend)" ]',
    "s6": 'for each in /run/service/*/; do [ "$(s6-svstat -o up $each)" = true ] || exit 1; done',
    "openrc": '[ -z "$(rc-status --crashed)" ]',
}


@pytest.fixture(name="trixie", scope="module")
def fixture_trixie(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where images are built of a suite that the machine's mirror has."""
    workshop.need()
    return Workshop(tmp_path_factory.mktemp("trixie"))


@pytest.fixture(name="name", scope="module", params=INITS)
def fixture_name(request: pytest.FixtureRequest, trixie: Workshop, daemon: Path) -> str:
    """An instance's name, which ends with its init's, after it said ready."""
    name = f"trixie-{request.param}"
    directory = trixie.path / name
    directory.mkdir()
    definition = directory / "image.yaml"
    definition.write_text(DEFINITION.format(init=request.param))
    locked = trixie.call("lock", definition)
    if locked.returncode == ExitCode.HOST_NOT_FIT:
        pytest.skip(f"no Debian 13 from this machine's mirror: {locked.stderr.splitlines()[-1]}")
    image = trixie.build(definition) / "incus-unified"
    checked = trixie.call("check", image)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    socket = private_incus.places(daemon).socket
    words = ("--wait", "ready", "--socket", socket, "--format", "json")
    done = trixie.call("launch", image, name, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["state"] == "ready"
    return name


def inside(daemon: Path, name: str, *command: str) -> str:
    return private_incus.incus(daemon, "exec", name, "--", *command).decode()


def test_it_is_debian_13_whole(name: str, daemon: Path) -> None:
    assert inside(daemon, name, "cat", "/etc/debian_version").startswith("13.")
    assert inside(daemon, name, "dpkg", "--audit") == ""
    assert inside(daemon, name, "dpkg", "--verify") == ""
    status = json.loads(inside(daemon, name, "cat", "/run/pika-cloud/status.json"))
    assert (status["state"], status["details"].get("failed_units")) == ("ready", None)


def test_it_has_an_address_and_a_resolver(name: str, daemon: Path) -> None:
    def listed() -> str:
        found = private_incus.incus(daemon, "list", name, "--format", "csv", "-c", "4")
        return found.decode().strip().partition(" ")[0]

    router = private_incus.ADDRESS.partition("/")[0]
    network = private_incus.ADDRESS.rpartition(".")[0]
    assert guests.until(listed).startswith(f"{network}.")
    resolvers = "cat /run/systemd/resolve/resolv.conf || cat /etc/resolv.conf"
    assert guests.until(lambda: router in inside(daemon, name, "sh", "-c", resolvers))


def test_its_services_are_well(name: str, daemon: Path) -> None:
    told = inside(daemon, name, "sh", "-c", f"({WELL[name.partition('-')[2]]}) && echo well")
    assert told.endswith("well\n")
