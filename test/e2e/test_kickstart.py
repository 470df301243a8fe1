"""A Debian kickstart, built by the command line as a user builds it: its tree has what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import Workshop

pytest.importorskip("pykickstart", reason="needs pykickstart")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbg ops"
KICKSTART = f"""
lang C.UTF-8
keyboard --xlayouts='us','de (neo)'
timezone Europe/Berlin --utc
timesource --ntp-server=time.example
rootpw --plaintext secret
group --name=web --gid=990
user --name=ops --uid=1500 --gid=1500 --groups=sudo,web --gecos=Operations
sshkey --username=ops "{KEY}"
services --enabled=cron --disabled=systemd-timesyncd
network --bootproto=static --ip=192.0.2.4 --netmask=255.255.255.0 --hostname=web.example
part / --size=1000
%packages
cron
adduser
systemd-timesyncd
-exim4-base
%end
%post --log=/root/first.log
echo "one $(id -u)"; false; echo $POSIXLY_CORRECT > /root/first; exit 3
%end
%post --interpreter=/usr/bin/python3 --erroronfail
print("two", open("/root/first.log").read(), file=open("/root/second", "w"))
%end
"""


@pytest.fixture(name="place", scope="module")
def fixture_place(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Runs of its own, and the store of the others: Debian is in it already."""
    made = Workshop(tmp_path_factory.mktemp("kickstart"), shop.store)
    (made.path / "web.ks").write_text(KICKSTART)
    return made


@pytest.fixture(scope="module")
def tree(place: Workshop) -> Path:
    return place.build(place.path / "web.ks", "-x", "rootfs") / "rootfs"


def fields(tree: Path, name: str, key: str) -> list[str]:
    lines = (tree / "etc" / name).read_text().splitlines()
    return next(line.split(":") for line in lines if line.startswith(f"{key}:"))


def test_accounts_are_there(tree: Path) -> None:
    _, _, uid, gid, *rest = fields(tree, "passwd", "ops")
    assert (uid, gid, rest) == ("1500", "1500", ["Operations", "/home/ops", "/bin/bash"])
    assert fields(tree, "group", "web")[2:] == ["990", "ops"]
    assert fields(tree, "group", "sudo")[3] == "ops"
    assert fields(tree, "group", "ops")[2] == "1500"
    assert fields(tree, "shadow", "root")[1].startswith("$6$")
    assert (tree / "home/ops/.ssh/authorized_keys").read_text() == f"{KEY}\n"


def test_settings_are_there(tree: Path) -> None:
    assert (tree / "etc/hostname").read_text() == "web.example\n"
    assert (tree / "etc/localtime").readlink() == Path("../usr/share/zoneinfo/Europe/Berlin")
    assert 'XKBLAYOUT="us,de"' in (tree / "etc/default/keyboard").read_text()
    assert "NTP=time.example" in (tree / "etc/systemd/timesyncd.conf.d/kickstart.conf").read_text()
    wants = tree / "etc/systemd/system"
    assert (wants / "multi-user.target.wants/cron.service").is_symlink()
    assert not (wants / "sysinit.target.wants/systemd-timesyncd.service").is_symlink()
    networks = sorted(each.name for each in (tree / "etc/systemd/network").glob("*eth0.network"))
    assert networks == ["10-eth0.network", "eth0.network"]


def test_scripts_ran_in_order_each_as_it_says(tree: Path) -> None:
    assert (tree / "root/first").read_text() == "y\n"
    assert (tree / "root/second").read_text() == "two one 0\n\n"
    assert (tree / "root/first.log").stat().st_mode & 0o777 == 0o600


def test_no_password_stands_in_a_record(place: Workshop, tree: Path) -> None:
    assert tree.is_dir()
    written = [each for each in (place.path / "runs").rglob("*") if each.is_file()]
    assert written
    assert not [each for each in written if b"secret" in each.read_bytes()]
    assert "secret" not in (place.path / "web.lock.json").read_text()


def test_a_build_again_is_cached(place: Workshop, tree: Path) -> None:
    assert tree.is_dir()
    done = place.call("plan", "web.ks", "-x", "rootfs")
    assert " 0 of " in f" {done.stdout.splitlines()[-1]}", done.stdout
