"""What a guest gets, as files; what runs in its tree is seen in test/run/test_debian.py."""

from __future__ import annotations

import configparser
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.inside import guest, intree
from osbuild_pika.inside.stage import StageError

PROGRAMS = ("usr/bin/systemctl", "usr/bin/python3", "usr/sbin/sshd")
UNITS = ("systemd-networkd.service", "systemd-resolved.service", "web.service", "at@.service")


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with all that a guest may want; its systemctl is not run."""
    for name in (*PROGRAMS, *(f"usr/lib/systemd/system/{unit}" for unit in UNITS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh/ssh_host_rsa_key").write_text("secret")
    (tmp_path / "etc/machine-id").write_text("0" * 32)

    def enable(tree: Path, words: list[str], what: str = "") -> None:
        (tree / "enabled").write_text("\n".join(words))

    monkeypatch.setattr(intree, "run_checked", enable)
    return tmp_path


def unit(tree: Path, name: str) -> configparser.ConfigParser:
    """A unit's file, as systemd reads it: names with case, `%` means nothing here."""
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string((tree / f"usr/lib/systemd/system/{name}").read_text())
    return found


def make(tree: Path, **options: Any) -> list[str]:
    guest.make(tree, options)
    return (tree / "enabled").read_text().splitlines()[4:]


def test_a_guest_has_a_network_keys_at_its_first_boot_and_no_identity(tree: Path) -> None:
    assert make(tree) == [
        "systemd-networkd.service",
        "systemd-resolved.service",
        "pika-cloud-ssh-keys.service",
        "pika-cloud-report.service",
    ]
    assert (tree / "etc/machine-id").read_bytes() == (tree / "etc/fstab").read_bytes() == b""
    assert not (tree / "etc/ssh/ssh_host_rsa_key").exists()
    assert (tree / "etc/resolv.conf").readlink() == Path("../run/systemd/resolve/stub-resolv.conf")
    assert "ClientIdentifier=mac" in (tree / "etc/systemd/network/eth0.network").read_text()
    assert "127.0.0.1 localhost" in (tree / "etc/hosts").read_text()


def test_the_helper_is_the_one_implementation(tree: Path) -> None:
    make(tree)
    first, _, rest = (
        (tree / "usr/lib/pika-cloud/pika-cloud-lifecycle").read_bytes().partition(b"\n")
    )
    ours = (Path(guest.__file__).parents[1] / "lifecycle.py").read_bytes()
    assert (first, rest) == (b"#!/usr/bin/python3", ours.partition(b"\n")[2])


def test_what_is_waited_for_tells_its_end_and_its_return(tree: Path) -> None:
    make(tree, ready={"unit": "web.service", "http": "http://127.0.0.1/", "within_s": 9})
    rules = json.loads((tree / "usr/lib/pika-cloud/report.json").read_text())
    known = {"init": "systemd", "http": "http://127.0.0.1/", "within_s": 9}
    assert rules == {**known, "unit": "web.service"}
    report = unit(tree, "pika-cloud-report.service")
    assert report["Unit"]["PartOf"] == "web.service"
    assert report["Unit"]["Before"] == "shutdown.target web.service"
    drop_in = unit(tree, "web.service.d/pika-cloud.conf")["Unit"]
    assert drop_in["OnFailure"] == "pika-cloud-failed.service"
    assert drop_in["Wants"] == "pika-cloud-report.service"
    assert unit(tree, "pika-cloud-failed.service")["Service"]["ExecStart"].endswith(" failed")


def test_an_instance_of_a_template_can_be_waited_for(tree: Path) -> None:
    for name in ("at@home.service", "at@home.example.service"):
        make(tree, ready={"unit": name})
        assert (tree / f"usr/lib/systemd/system/{name}.d/pika-cloud.conf").exists()


def test_a_resolver_and_hosts_that_a_definition_gave_stay(tree: Path) -> None:
    (tree / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (tree / "etc/hosts").write_text("mine\n")
    make(tree)
    assert (tree / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"
    assert (tree / "etc/hosts").read_text() == "mine\n"


def test_a_network_that_a_definition_gave_stays(tree: Path) -> None:
    path = tree / "etc/systemd/network/eth0.network"
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    make(tree)
    assert path.read_text() == "mine\n"


def test_networkd_waits_for_udev_only_where_there_is_one(tree: Path) -> None:
    make(tree)
    drop_in = unit(tree, "systemd-networkd.service.d/pika-cloud.conf")["Service"]
    assert dict(drop_in) == {"BindReadOnlyPaths": "/sys"}
    shutil.rmtree(tree / "usr/lib/systemd/system/systemd-networkd.service.d")
    (tree / "usr/lib/systemd/system/systemd-udevd.service").touch()
    make(tree)
    assert not (tree / "usr/lib/systemd/system/systemd-networkd.service.d").exists()


def test_no_kernel_module_is_a_containers_to_load(tree: Path) -> None:
    make(tree)
    assert not (tree / "usr/lib/systemd/system/systemd-modules-load.service.d").exists()
    (tree / "usr/lib/systemd/system/systemd-modules-load.service").touch()
    make(tree)
    drop_in = unit(tree, "systemd-modules-load.service.d/pika-cloud.conf")["Unit"]
    assert dict(drop_in) == {"ConditionVirtualization": "!container"}


def test_without_a_network_eth0_is_left_alone(tree: Path) -> None:
    enabled = make(tree, network="none")
    assert not [name for name in enabled if "network" in name or "resolved" in name]
    assert "Unmanaged=yes" in (tree / "etc/systemd/network/eth0.network").read_text()


def test_with_udev_networkd_is_left_as_it_is(tree: Path) -> None:
    (tree / "usr/lib/systemd/system/systemd-udevd.service").touch()
    make(tree)
    assert not (tree / "usr/lib/systemd/system/systemd-networkd.service.d").exists()


def test_without_init_or_lifecycle_nothing_of_them_is_there(tree: Path) -> None:
    assert guest.make(tree, {"init": "none", "lifecycle": False}).startswith("made a guest")
    assert not (tree / "usr/lib/pika-cloud").exists()
    assert not (tree / "etc/systemd").exists()
    assert not (tree / "etc/machine-id").exists()


@pytest.mark.parametrize(
    ("missing", "options", "why"),
    [
        ("usr/bin/python3", {}, "no python3"),
        ("usr/bin/systemctl", {}, "no systemd"),
        ("usr/lib/systemd/system/systemd-networkd.service", {}, "no systemd-networkd"),
        ("usr/sbin/sshd", {"ready": {"unit": "nope.service"}}, "no unit nope.service"),
        ("usr/sbin/sshd", {"ready": {"unit": "../x"}}, "is no unit"),
    ],
)
def test_what_is_missing_is_named(
    tree: Path, missing: str, options: dict[str, Any], why: str
) -> None:
    (tree / missing).unlink()
    with pytest.raises(StageError, match=why):
        guest.make(tree, options)
