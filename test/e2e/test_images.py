"""The example images boot in a real Incus, and their guests are well."""

from __future__ import annotations

import glob
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boot
import guests
import private_incus
import pytest
import workshop
from workshop import Workshop

EXAMPLES = ("debian-12", "web", "tiny")


def launch(shop: Workshop, daemon: Path, image: str | Path, *words: str) -> dict[str, Any]:
    """What `launch` says of a new instance."""
    socket = private_incus.places(daemon).socket
    done = shop.call("launch", image, *words, "--socket", socket, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def inside(daemon: Path, name: str, *command: str) -> str:
    return private_incus.incus(daemon, "exec", name, "--", *command).decode()


def address(daemon: Path, name: str) -> str:
    """The address that an instance was given."""

    def listed() -> str:
        found = private_incus.incus(daemon, "list", name, "--format", "csv", "-c", "4")
        return found.decode().strip().partition(" ")[0]

    return guests.until(listed)


@pytest.mark.parametrize("kind", ["unified", "split"])
def test_debian_says_ready_and_is_well(kind: str, shop: Workshop, daemon: Path) -> None:
    name = f"debian-{kind}"
    image = shop.path / f"debian-12/output/incus-{kind}"
    told = launch(shop, daemon, image, name, "--wait", "ready")
    boot_id = inside(daemon, name, "cat", "/proc/sys/kernel/random/boot_id").strip()
    assert (told["outcome"], told["state"], told["boot_id"]) == ("reached", "ready", boot_id)
    assert inside(daemon, name, "systemctl", "is-system-running", "--wait").strip() == "running"
    assert inside(daemon, name, "systemctl", "--failed", "--no-legend") == ""
    given = address(daemon, name)
    assert f"{given} (DHCP4 via {private_incus.ADDRESS.partition('/')[0]})" in inside(
        daemon, name, "networkctl", "status", "eth0"
    )
    assert inside(daemon, name, "dpkg", "--audit") == ""
    assert inside(daemon, name, "dpkg", "--verify") == ""
    status = json.loads(inside(daemon, name, "cat", "/run/pika-cloud/status.json"))
    assert (status["state"], status["boot_id"]) == ("ready", boot_id)
    shown = json.loads(shop.call("runs", "show", "debian-12", "--format", "json").stdout)
    assert boot_id in [each["boot_id"] for each in shown["boots"]]


def test_a_web_server_is_ready_when_it_serves(shop: Workshop, daemon: Path) -> None:
    told = launch(shop, daemon, "web", "w1", "--wait", "ready")
    assert (told["outcome"], told["state"]) == ("reached", "ready")
    url = f"http://{address(daemon, 'w1')}/"
    assert private_incus.inside(daemon, "curl", "-sf", "--retry", "5", url) == b"hello\n"


def test_a_guest_without_a_lifecycle_is_seen_booted(shop: Workshop, daemon: Path) -> None:
    told = launch(shop, daemon, "tiny", "t1", "--wait", "booted")
    assert (told["outcome"], told["state"]) == ("reached", "booted")
    fetch = ("/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/")
    assert inside(daemon, "t1", *fetch) == "tiny\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_incus_gives_back_what_was_built(
    example: str, shop: Workshop, daemon: Path, tmp_path: Path
) -> None:
    (image,) = (shop.path / example / "output/incus-unified").iterdir()
    built = hashlib.sha256(image.read_bytes()).hexdigest()
    known = shop.artifacts(example)[image.name]
    assert (known["fingerprint"], known["sha256"]) == (built, built)
    listed = json.loads(private_incus.incus(daemon, "image", "list", "--format", "json"))
    if built not in [each["fingerprint"] for each in listed]:
        private_incus.incus(daemon, "image", "import", str(image))
    private_incus.incus(daemon, "image", "export", built, str(tmp_path / "back"))
    (back,) = tmp_path.iterdir()
    assert hashlib.sha256(back.read_bytes()).hexdigest() == built


def test_a_split_image_has_one_fingerprint(shop: Workshop) -> None:
    directory = shop.path / "debian-12/output/incus-split"
    names = ["debian-12-metadata.tar.zst", "debian-12.squashfs"]
    both = hashlib.sha256(b"".join((directory / name).read_bytes() for name in names))
    known = shop.artifacts("debian-12")
    assert {known[name]["fingerprint"] for name in names} == {both.hexdigest()}


def test_the_linter_passes_what_we_build(shop: Workshop) -> None:
    split = shop.path / "debian-12/output/incus-split"
    for image in [split, *(shop.path / each / "output/incus-unified" for each in EXAMPLES)]:
        done = shop.call("check", image)
        assert done.returncode == 0, done.stdout + done.stderr


def demo(shop: Workshop, definition: Path) -> subprocess.CompletedProcess[str]:
    """What `make demo` does with a definition."""
    command = [sys.executable, str(workshop.EXAMPLES / "boot.py"), str(definition), str(shop.path)]
    return subprocess.run(
        command, env=shop.variables(), capture_output=True, text=True, check=False
    )


def test_the_demo_ends_well_only_when_the_guest_is_ready(shop: Workshop, daemon: Path) -> None:
    done = demo(shop, workshop.EXAMPLES / "debian-12.yaml")
    assert done.returncode == 0, done.stderr
    assert "demo: ready after" in done.stdout
    assert "demo says ready" in done.stderr
    failing = shop.path / "failing.yaml"
    example = (workshop.EXAMPLES / "tiny.yaml").read_text()
    failing.write_text(example.replace("name: tiny", 'name: failing\nhooks: {last: "exit 3"}'))
    done = demo(shop, failing)
    assert done.returncode == 5
    assert "not ready" in done.stderr
    assert glob.glob(f"{boot.PREFIX}*") == []
