"""What a guest with s6 or OpenRC gets, as files; three that boot are in test/e2e/test_inits.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.inside import guest
from osbuild_pika.inside.stage import StageError

PROGRAMS = {
    "s6": ("usr/bin/s6-svscan", "usr/bin/busybox", "usr/bin/python3"),
    "openrc": ("usr/sbin/openrc", "usr/bin/busybox", "usr/bin/python3"),
}
SERVICES = {"s6": "etc/s6/services/web/run", "openrc": "etc/init.d/web"}
INITS = sorted(PROGRAMS)


def tree_for(init: str, path: Path) -> Path:
    """A tree with what an init needs, and the service web."""
    for name in (*PROGRAMS[init], SERVICES[init]):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch(mode=0o755)
    for name in ("sbin", "bin"):
        (path / name).symlink_to(f"usr/{name}")
    return path


def scripts(tree: Path) -> list[Path]:
    """What runs in a guest by a shell."""
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    heads = (b"#!/bin/sh\n", b"#!/sbin/openrc-run\n")
    return [path for path in files if path.read_bytes().startswith(heads)]


@pytest.mark.parametrize("init", INITS)
def test_every_script_is_one_for_a_plain_shell(init: str, tmp_path: Path) -> None:
    tree = tree_for(init, tmp_path)
    guest.make(tree, {"init": init, "ready": {"service": "web"}})
    found = scripts(tree)
    assert len(found) >= 5
    for path in found:
        assert path.stat().st_mode & 0o111 == 0o111, path
        subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.mark.parametrize("init", INITS)
def test_a_guest_without_systemd_has_a_network_and_no_identity(init: str, tmp_path: Path) -> None:
    tree = tree_for(init, tmp_path)
    (tree / "etc/machine-id").write_text("0" * 32)
    guest.make(tree, {"init": init})
    assert not (tree / "etc/machine-id").exists()
    assert (tree / "etc/fstab").read_bytes() == b""
    assert (tree / "etc/resolv.conf").readlink() == Path("../run/pika-cloud-resolv.conf")
    assert (tree / "usr/sbin/init").exists()
    assert not (tree / "etc/systemd").exists()
    rules = json.loads((tree / "usr/lib/pika-cloud/report.json").read_text())
    assert rules == {"init": init, "service": None, "http": None, "within_s": 120}


@pytest.mark.parametrize("init", INITS)
def test_a_resolver_that_a_definition_gave_stays_there_too(init: str, tmp_path: Path) -> None:
    tree = tree_for(init, tmp_path)
    (tree / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    guest.make(tree, {"init": init})
    assert (tree / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize("init", INITS)
def test_without_network_or_lifecycle_nothing_of_them_is_there(init: str, tmp_path: Path) -> None:
    tree = tree_for(init, tmp_path)
    guest.make(tree, {"init": init, "network": "none", "lifecycle": False})
    names = {path.name for path in tree.rglob("*")}
    assert not [name for name in names if "dhcp" in name or "report" in name]
    assert "resolv.conf" not in names


def test_s6_answers_the_signal_by_which_incus_stops(tmp_path: Path) -> None:
    tree = tree_for("s6", tmp_path)
    guest.make(tree, {"init": "s6", "ready": {"service": "web"}})
    controls = tree / "usr/lib/pika-cloud/s6-svscan"
    assert "s6-svscanctl -t" in (controls / "SIGPWR").read_text()
    assert {"SIGPWR", "SIGTERM", "SIGINT", "finish", "crash"} <= {
        path.name for path in controls.iterdir()
    }
    assert "kill -PWR 1" in (tree / "usr/sbin/poweroff").read_text()


def test_openrc_starts_what_is_in_its_runlevels(tmp_path: Path) -> None:
    tree = tree_for("openrc", tmp_path)
    (tree / "etc/runlevels/sysinit").mkdir(parents=True)
    (tree / "etc/runlevels/sysinit/hwclock.sh").symlink_to("/etc/init.d/hwclock.sh")
    guest.make(tree, {"init": "openrc", "ready": {"service": "web"}})
    levels = tree / "etc/runlevels"
    assert {path.relative_to(levels).as_posix() for path in levels.rglob("*/*")} == {
        "sysinit/pika-cloud-early",
        "boot/pika-cloud-report",
        "default/pika-cloud-dhcp",
    }
    for name in ("init", "reboot", "poweroff", "halt"):
        assert (tree / "usr/sbin" / name).readlink() == Path("../bin/busybox")


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("missing", "options", "why"),
    [
        (2, {}, "no python3"),
        (1, {}, "no busybox"),
        (0, {}, "add the package"),
        (None, {"ready": {"service": "nope"}}, "no service nope"),
        (None, {"ready": {"service": "../x"}}, "is no name of a service"),
        (None, {"ready": {"unit": "web.service"}}, "name a service"),
    ],
)
def test_what_another_init_lacks_is_named(
    init: str, missing: int | None, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    tree = tree_for(init, tmp_path)
    gone = [] if missing is None else [PROGRAMS[init][missing]]
    for name in gone:
        (tree / name).unlink()
    with pytest.raises(StageError, match=why):
        guest.make(tree, {"init": init, **options})


@pytest.mark.parametrize("init", INITS)
def test_the_init_of_a_package_is_not_taken_away(init: str, tmp_path: Path) -> None:
    tree = tree_for(init, tmp_path)
    (tree / "usr/sbin").mkdir(exist_ok=True)
    (tree / "usr/sbin/init").symlink_to("../lib/systemd/systemd")
    with pytest.raises(StageError, match="/sbin/init is there already"):
        guest.make(tree, {"init": init})


def test_a_unit_and_a_service_are_one_too_many(tmp_path: Path) -> None:
    for name in ("usr/bin/systemctl", "usr/bin/python3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    ready = {"unit": "a.service", "service": "a"}
    with pytest.raises(StageError, match="leave one out"):
        guest.make(tmp_path, {"network": "none", "ready": ready})
