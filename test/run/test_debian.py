"""A real Debian tree, from packages of the host's own mirror, through the whole engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builds
import debs
import later
import pytest
import staging
from builds import Place
from debs import Deb
from users import USER, UsersPlace

EPOCH = 1_760_000_000
ANYONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP0 ops@example.org"
WANTED = ("systemd", "systemd-sysv", "dbus", "systemd-resolved", "python3", "openssh-server")
SOURCE = {
    "types": "deb",
    "uris": "http://example.org/debian",
    "suites": ["bookworm", "bookworm-updates"],
    "components": ["main"],
    "signed-by": "/usr/share/keyrings/debian-archive-keyring.gpg",
}
GUEST = {"ready": {"unit": "ssh.service", "http": "http://127.0.0.1/", "within_s": 60}}
PACK = """
tar --create --sort=name --numeric-owner --xattrs --format=posix --file=all.tar \\
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \\
    --directory=/run/osbuild/inputs/tree .
"""


class Built:
    """A build that is done: what, of which packages, and its tree."""

    def __init__(self, place: Place, what: dict[str, Any], packages: list[Deb]) -> None:
        self.place = place
        self.what = what
        self.packages = packages
        self.tree = place.path / "out/rootfs"

    def read(self, name: str) -> str:
        return (self.tree / name).read_text()


def ours(kind: str, /, **options: Any) -> dict[str, Any]:
    return {"type": f"org.osbuild-pika.{kind}", "options": options}


def theirs(kind: str, /, **options: Any) -> dict[str, Any]:
    return {"type": f"org.osbuild.{kind}", "options": options}


def definition(first: list[Deb], rest: list[Deb]) -> dict[str, Any]:
    """A manifest with all that a definition can become, and its tree as an archive."""
    stages = [
        debs.stage("bootstrap", first),
        debs.stage("install", rest),
        ours("deb.config", sources=[SOURCE], debconf=["man-db man-db/auto-update boolean false"]),
        ours("hook", name="post-packages", script="systemctl disable dpkg-db-backup.timer"),
        ours("files", files=[{"path": "/srv/a/index.html", "content": "hello", "user": "man"}]),
        theirs("users", users={"ops": {"keys": [ANYONE], "groups": ["users"], "password": "!"}}),
        theirs("groups", groups={"web": {"gid": 2000}}),
        theirs("hostname", hostname="web"),
        theirs("locale", language="C.UTF-8"),
        theirs("timezone", zone="Europe/Berlin"),
        theirs("systemd", enabled_services=["ssh"], masked_services=["apt-daily.timer"]),
        ours("guest", **GUEST),
        ours("hook", name="last", script="dpkg --audit; dpkg --verify"),
        ours("clean"),
    ]
    tree = {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline"}
    packed = builds.sh(PACK, inputs={"tree": {**tree, "references": ["name:rootfs"]}})
    found = builds.manifest(packed, rootfs=stages)
    for pipeline in found["pipelines"]:
        pipeline["source-epoch"] = EPOCH
    return found


@pytest.fixture(name="cache", scope="module")
def fixture_cache(pytestconfig: pytest.Config) -> Path:
    builds.needs_root()
    debs.needs_programs()
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("debs")


@pytest.fixture(name="folder", scope="module")
def fixture_folder() -> Iterator[Path]:
    """A directory whose parents everybody may search; tmp_path has others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture(name="built", scope="module")
def fixture_built(cache: Path, folder: Path) -> Built:
    """The image, built by root."""
    minimum = debs.fetch(cache)
    packages = debs.fetch(cache, *WANTED)
    first, rest = debs.minbase_of(packages, minimum)
    what = definition(first, rest)
    (folder / "root").mkdir()
    place = Place(folder / "root")
    with debs.served(packages) as sources:
        code, records = place.build({**what, "sources": sources}, exports=("rootfs",))
    assert code == 0, records[-3:]
    return Built(place, what, packages)


def differences(*archives: Path) -> list[str]:
    """What is not the same in two archives."""
    sides: list[dict[str, Any]] = []
    for archive in archives:
        with tarfile.open(archive) as opened:
            sides.append({each.name: _facts(opened, each) for each in opened})
    names = sorted({*sides[0], *sides[1]})
    return [name for name in names if sides[0].get(name) != sides[1].get(name)]


def _facts(opened: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, ...]:
    file = opened.extractfile(member) if member.isreg() else None
    content = file.read() if file else member.linkname
    kind = (member.type, member.mode, member.uid, member.gid, member.mtime)
    return (*kind, content, sorted(member.pax_headers.items()))


def test_all_is_installed_as_it_is_locked(built: Built) -> None:
    words = ["dpkg-query", f"--admindir={built.tree}/var/lib/dpkg", "--show"]
    form = "--showformat=${Package} ${Version} ${Architecture} ${db:Status-Abbrev}\n"
    said = subprocess.run([*words, form], check=True, capture_output=True, text=True).stdout
    expected = [f"{each.name} {each.version} {each.arch} ii" for each in built.packages]
    assert sorted(line.strip() for line in said.splitlines()) == sorted(expected)
    marks = built.read("var/lib/apt/extended_states")
    auto = {line.split()[1] for line in marks.splitlines() if line.startswith("Package:")}
    assert auto == {each.name for each in built.packages if each.auto}
    assert not auto & set(WANTED)


def test_it_is_a_guest_without_the_identity_of_a_machine(built: Built) -> None:
    tree = built.tree
    assert built.read("etc/machine-id") == ""
    assert not list(tree.glob("etc/ssh/ssh_host_*"))
    assert os.readlink(tree / "etc/resolv.conf") == "../run/systemd/resolve/stub-resolv.conf"
    wants = os.listdir(tree / "etc/systemd/system/multi-user.target.wants")
    ours = {"pika-cloud-report.service", "pika-cloud-ssh-keys.service"}
    assert ours | {"systemd-networkd.service", "ssh.service"} <= set(wants)
    assert built.read("etc/apt/sources.list.d/debian.sources").startswith("Types: deb\nURIs: ")
    assert built.read("home/ops/.ssh/authorized_keys") == f"{ANYONE}\n"
    assert (tree / "home/ops/.ssh/authorized_keys").stat().st_uid == (
        tree / "home/ops"
    ).stat().st_uid
    assert os.readlink(tree / "etc/localtime") == "../usr/share/zoneinfo/Europe/Berlin"
    helper = tree / "usr/lib/pika-cloud/pika-cloud-lifecycle"
    assert helper.read_text().startswith("#!/usr/bin/python3\n")


def test_nothing_of_the_build_is_left_in_it(built: Built) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/lib/apt/lists/partial"):
        assert os.listdir(built.tree / name) == []
    assert not (built.tree / "usr/sbin/policy-rc.d").exists()
    assert not (built.tree / "etc/apt/sources.list").exists()
    left = ("99mmdebstrap", "00mmdebstrap", "policy-rc.d")
    assert not [path for name in left for path in built.tree.rglob(name)]
    files = [path for path in built.tree.rglob("*") if path.is_file() and not path.is_symlink()]
    marks = [b"mmdebstrap", b"/var/tmp/deb-", b"osbuild/inputs"]
    etc_and_var = [path for path in files if path.parts[len(built.tree.parts)] in ("etc", "var")]
    assert not [path for path in etc_and_var for mark in marks if mark in path.read_bytes()]
    late = [path for path in built.tree.rglob("*") if path.lstat().st_mtime > EPOCH]
    assert not late


@pytest.mark.slow  # test/e2e/test_same_image.py has an image built twice in any case
def test_a_users_build_at_another_time_and_place_has_the_same_bytes(
    built: Built, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not staging.can_run():
        pytest.skip("needs user namespaces")
    if shutil.which("faketime") is None:
        pytest.skip("needs faketime")
    with debs.served(built.packages) as sources:
        code, records = built.place.build({**built.what, "sources": sources})
    assert code == 0, records[-3:]
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("BUILDS_UMASK", "077")
    theirs = UsersPlace(folder / USER)
    rootfs = built.what["pipelines"][0]
    lived = {**rootfs, "stages": later.lived(rootfs["stages"])}
    what = {**built.what, "pipelines": [lived, *built.what["pipelines"][1:]]}
    with debs.served(list(reversed(built.packages))) as sources:
        code, records = theirs.build({**what, "sources": sources})
    assert code == 0, records[-3:]
    assert later.days(records)
    assert not later.days(records) & later.present()
    archives = theirs.output / "all.tar", built.place.output / "all.tar"
    assert differences(*archives) == []
    assert archives[0].read_bytes() == archives[1].read_bytes()
