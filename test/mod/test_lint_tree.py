"""The linter finds each defect of a guest's tree, and nothing in a tree that has none."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.inside import guest_systemd, lint
from osbuild_pika.inside.lint import view as kinds
from osbuild_pika.inside.lint.view import Entry, View

Files = dict[str, Any]  # path -> content, "-> target", None (a directory) or an Entry
ROOT = (0, 0)
UNIT = "-> /usr/lib/systemd/system/x.service"
NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n"
GOOD: Files = {
    "sbin": "-> usr/sbin",
    "lib": "-> usr/lib",
    "usr/sbin/init": "-> ../lib/systemd/systemd",
    "usr/lib/systemd/systemd": Entry(kinds.FILE, 0o755, ROOT, 0),
    "usr/lib/systemd/systemd-resolved": "",
    "usr/bin/apt-get": "",
    "usr/sbin/sshd": "",
    "usr/share/keyrings/debian.gpg": "key",
    "etc/machine-id": "",
    "etc/fstab": "# nothing is mounted\n\n",
    "etc/locale.conf": "LANG=C.UTF-8\n",
    "etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf",
    "etc/group": "root:x:0:\nshadow:x:42:\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/shadow": Entry(kinds.FILE, 0o640, (0, 42), 20),
    "etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.example/debian\n"
    "Signed-By: /usr/share/keyrings/debian.gpg\n",
    "etc/ssh/sshd_config": "",
    "etc/systemd/network/eth0.network": NETWORK,
    "etc/systemd/system/multi-user.target.wants/ssh.service": UNIT,
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": UNIT,
    "etc/systemd/system/multi-user.target.wants/systemd-resolved.service": UNIT,
    "etc/systemd/system/ssh.service.d/keys.conf": "[Service]\nExecStartPre=ssh-keygen -A\n",
    "var/lib/apt/lists/lock": "",
    "var/lib/apt/lists/partial": None,
    "var/lib/dpkg/status": "Package: x\nStatus: install ok installed\n"
    "Description: x\n Status: bad\n\nPackage: y\nStatus: deinstall ok config-files\n",
    "var/lib/dbus/machine-id": "-> /etc/machine-id",
    **dict.fromkeys(("dev", "proc", "run", "sys", "tmp")),
}
SHADOW = "root:*:19000:0:99999:7:::\nops:$6$x:19000::::::\n"


def view_of(files: Files) -> View:
    entries: dict[str, Entry] = {}
    contents: dict[str, bytes] = {"etc/shadow": SHADOW.encode()}
    for path, what in files.items():
        parts = path.split("/")
        for count in range(1, len(parts)):
            entries.setdefault("/".join(parts[:count]), Entry(kinds.DIRECTORY, 0o755, ROOT, 0))
        if isinstance(what, Entry):
            entries[path] = what
        elif what is None:
            entries[path] = Entry(kinds.DIRECTORY, 0o755, ROOT, 0)
        elif what.startswith("-> "):
            entries[path] = Entry(kinds.LINK, 0o777, ROOT, 0, what[3:])
        else:
            contents[path] = what.encode()
            entries[path] = Entry(kinds.FILE, 0o644, ROOT, len(contents[path]))
    return View(entries, contents.get)


def codes(files: Files, kind: str = "container") -> list[str]:
    return sorted({finding.code for finding in lint.tree(view_of(files), kind)})


def without(*paths: str) -> Files:
    return {path: what for path, what in GOOD.items() if path not in paths}


def test_a_good_tree_has_no_finding() -> None:
    assert lint.tree(view_of(GOOD)) == ()


WANTS = "etc/systemd/system/multi-user.target.wants"
LINK_MASK = "-> /dev/null"
SOURCES = "etc/apt/sources.list.d/debian.sources"
# name: (what is changed, the code that tells)
DEFECTS: dict[str, tuple[Files, str]] = {
    "init leads nowhere": ({"usr/sbin/init": "-> /nowhere"}, "init"),
    "init leads out": ({"usr/sbin/init": "-> ../../../../../../../bin/sh"}, "init"),
    "init is a loop": ({"usr/sbin/init": "-> init"}, "init"),
    "init cannot run": ({"usr/lib/systemd/systemd": ""}, "init"),
    "merged by an absolute link": ({"lib": "-> /usr/lib"}, "usr-merge"),
    "machine-id": ({"etc/machine-id": "0123456789abcdef0123456789abcdef\n"}, "machine-id"),
    "uninitialized": ({"etc/machine-id": "uninitialized\n"}, "machine-id"),
    "machine-id of dbus": ({"var/lib/dbus/machine-id": "0123\n"}, "machine-id"),
    "host key": ({"etc/ssh/ssh_host_rsa_key": "secret"}, "ssh-host-keys"),
    "random seed": ({"var/lib/systemd/random-seed": "x"}, "random-seed"),
    "file in run": ({"run/lock/x": ""}, "volatile"),
    "file in tmp": ({"tmp/x": ""}, "volatile"),
    "directory in dev": ({"dev/pts": None}, "volatile"),
    "device": ({"opt/null": Entry(kinds.DEVICE, 0o666, ROOT, 0)}, "device-node"),
    "socket": ({"opt/x": Entry(kinds.SOCKET, 0o666, ROOT, 0)}, "socket"),
    "high id": ({"opt/x": Entry(kinds.FILE, 0o644, (100_000, 0), 0)}, "ids"),
    "high group": ({"opt/x": Entry(kinds.FILE, 0o644, (0, 65_536), 0)}, "ids"),
    "fstab": ({"etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n"}, "fstab"),
    "no locale": ({"etc/locale.conf": ""}, "locale"),
    "backup": ({"etc/shadow-": ""}, "backup-file"),
    "backups": ({"var/backups/dpkg.status.0": ""}, "backup-file"),
    "root's password": ({"etc/passwd": "root:$6$x$y:0:0::/root:/bin/sh\n"}, "root-password"),
    "no password": ({"etc/passwd": "root::0:0::/root:/bin/sh\n"}, "root-password"),
    "root's keys": ({"root/.ssh/authorized_keys": "# x\nssh-ed25519 A\n"}, "root-keys"),
    "shadow is open": ({"etc/shadow": Entry(kinds.FILE, 0o644, (0, 42), 20)}, "shadow-mode"),
    "shadow's owner": ({"etc/shadow": Entry(kinds.FILE, 0o640, (0, 7), 20)}, "shadow-mode"),
    "half configured": (
        {"var/lib/dpkg/status": "Package: x\nStatus: install ok unpacked\n"},
        "dpkg",
    ),
    "dpkg's journal": ({"var/lib/dpkg/updates/0001": ""}, "dpkg"),
    "dpkg-new": ({"etc/x.conf.dpkg-new": ""}, "dpkg-leftover"),
    "policy-rc.d": ({"usr/sbin/policy-rc.d": ""}, "builder-stub"),
    "a local mirror": ({SOURCES: "URIs: file:/srv/mirror\n"}, "apt-sources"),
    "a trusted mirror": ({SOURCES: "URIs: http://m.example\nTrusted: yes\n"}, "apt-sources"),
    "this host's mirror": ({SOURCES: "URIs: http://127.0.0.1:80/x\n"}, "apt-sources"),
    "no sources": ({SOURCES: "# nothing\n"}, "apt-sources"),
    "no keyring": ({SOURCES: "URIs: http://m.example\nSigned-By: /usr/x.gpg\n"}, "apt-keyring"),
    "lists": ({"var/lib/apt/lists/mirror_Packages": "x"}, "apt-lists"),
    "archives": ({"var/cache/apt/archives/x_1_all.deb": "x"}, "apt-lists"),
    "two managers": ({f"{WANTS}/NetworkManager.service": UNIT}, "network"),
    "a masked manager": ({"etc/systemd/system/systemd-networkd.service": LINK_MASK}, "network"),
    "another device": (
        {"etc/systemd/network/eth0.network": "[Match]\nName=ens3\n[Network]\nDHCP=yes\n"},
        "network",
    ),
    "no address": (
        {"etc/systemd/network/eth0.network": "[Match]\nName=eth*\n[Network]\nDHCP=no\n"},
        "network",
    ),
    "no identifier": (
        {"etc/systemd/network/eth0.network": "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n"},
        "dhcp-identifier",
    ),
    "the first file counts": ({"etc/systemd/network/00.network": "[Match]\nName=*\n"}, "network"),
    "a builder's resolver": ({"etc/resolv.conf": "nameserver 10.0.0.1\n"}, "resolv-conf"),
    "no link to resolved": ({"etc/resolv.conf": "-> /etc/resolv2.conf"}, "resolv-conf"),
    "no host keys": ({"etc/systemd/system/ssh.service.d/keys.conf": ""}, "ssh-keygen"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_found_by_its_code(name: str) -> None:
    change, code = DEFECTS[name]
    assert codes({**GOOD, **change}) == [code]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("usr/sbin/init", "init"),
        ("etc/machine-id", "machine-id"),
        ("etc/resolv.conf", "resolv-conf"),
        ("etc/systemd/network/eth0.network", "network"),
        (f"{WANTS}/systemd-networkd.service", "network"),
        (SOURCES, "apt-sources"),
    ],
)
def test_what_is_missing_is_found(path: str, code: str) -> None:
    assert codes(without(path)) == [code]


@pytest.mark.parametrize("name", DEFECTS)
def test_what_is_allowed_is_not_told(name: str) -> None:
    change, code = DEFECTS[name]
    assert lint.tree(view_of({**GOOD, **change}), allow=[code]) == ()


def test_a_tree_of_another_kind_is_asked_for_nothing_of_debian() -> None:
    init = Entry(kinds.FILE, 0o755, ROOT, 0)
    busybox = {
        "sbin/init": "-> ../bin/busybox",
        "bin/busybox": init,
        "etc/passwd": "root:*:0:0::/:",
    }
    assert codes(busybox) == []


def test_systemd_beside_another_init_is_asked_for_nothing() -> None:
    units = ("etc/systemd", "etc/machine-id", "etc/locale.conf", "etc/resolv.conf")
    files = {path: what for path, what in GOOD.items() if not path.startswith(units)}
    assert codes({**files, "usr/sbin/init": Entry(kinds.FILE, 0o755, ROOT, 0)}) == []


def test_ifupdown_is_a_network_manager() -> None:
    files = without(f"{WANTS}/systemd-networkd.service")
    files[f"{WANTS}/networking.service"] = UNIT
    files["etc/network/interfaces"] = "source /etc/network/interfaces.d/*\n"
    assert codes(files) == ["network"]
    files["etc/network/interfaces.d/eth0"] = "auto eth0\niface eth0 inet dhcp\n"
    assert codes(files) == []


def test_who_wants_no_network_says_so() -> None:
    alone = {"etc/systemd/network/eth0.network": guest_systemd.NO_NETWORK}
    assert codes({**GOOD, **alone}) == []
    assert codes({**without(f"{WANTS}/systemd-networkd.service"), **alone}) == []


VM: Files = {
    "boot/efi/EFI/BOOT/BOOTX64.EFI": "",
    "boot/loader/entries/a.conf": "options root=UUID=1 console=ttyS0\n",
    "usr/lib/modules/6.1/kernel/drivers/scsi/virtio_scsi.ko.xz": "",
    "usr/bin/growpart": "",
    "usr/lib/systemd/system/incus-agent.service": "",
    "etc/fstab": "UUID=1 / ext4 defaults 0 1\n",
    "etc/systemd/network/eth0.network": NETWORK.replace("eth0", "enp5s0"),
}


def test_a_virtual_machine_needs_more() -> None:
    assert codes({**GOOD, **VM}, "vm") == []
    wanted = ["agent", "console", "esp", "fstab", "growpart", "network", "virtio-scsi"]
    assert codes(GOOD, "vm") == wanted
    assert codes({**GOOD, **VM, "etc/fstab": "/dev/sda2 / ext4\n"}, "vm") == ["fstab"]


def test_errors_come_first_and_name_the_fix() -> None:
    change = {"etc/shadow-": "", "etc/machine-id": "1\n"}
    found = lint.tree(view_of({**GOOD, **change}))
    assert [each.severity for each in found] == ["error", "warning"]
    assert str(found[0]).startswith("etc/machine-id: has an id")
    assert str(found[1]).startswith("warning: etc/shadow-: is a backup; remove it [backup-file]")


# --- real directories ----------------------------------------------------------------------------


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sbin").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "sbin/init").touch(mode=0o755)
    return tree


def found_in(tree: Path) -> list[tuple[str, str]]:
    return [(each.code, each.path) for each in lint.tree(lint.of_directory(str(tree)))]


def test_links_are_never_followed_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "fstab").write_text("/dev/sda / ext4\n")
    (tree / "etc/fstab").symlink_to(tmp_path / "fstab")
    (tree / "root").symlink_to("../../root")
    (tree / "dev").symlink_to("/dev")
    assert found_in(tree) == []


def test_what_is_no_regular_file_is_never_opened(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tree / "etc/fstab")  # would wait for a writer
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tree)  # a socket's path has 108 bytes at most
        listener.bind("x")
    assert found_in(tree) == [("socket", "x")]


def test_a_file_too_large_is_not_read(tree: Path) -> None:
    with (tree / "etc/fstab").open("wb") as file:
        file.write(b"/dev/sda / ext4\n")
        file.truncate(1 << 40)
    assert found_in(tree) == []


def test_hostile_names_are_shown_in_one_line(tree: Path) -> None:
    hostile = b"\x1b[31m\xff\n::error::\xe2\x80\xae.dpkg-new"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    Path(os.fsdecode(os.path.join(os.fsencode(tree / "etc"), hostile))).touch()
    for form in ("plain", "json"):
        done = CliRunner().invoke(osbuild_pika, ["check", "--format", form, str(tree)])
        assert (done.exit_code, done.stdout.count("\n")) == (2, 1)
        assert done.stdout.strip().isprintable()
        assert "dpkg-leftover" in done.stdout


def test_a_good_tree_is_one_line(tree: Path) -> None:
    done = CliRunner().invoke(osbuild_pika, ["check", str(tree)])
    assert (done.exit_code, done.stdout) == (0, "ok: tree of 3 files\n")
