"""Loop devices and mounts for real: made, partitioned, formatted, filled, and none is left."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import own_mounts
from modules import needs, output_of, run

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import RemoteError
from osbuild_pika.host import ServiceClient, ServiceManager
from osbuild_pika.loopback import Loop, Part
from osbuild_pika.mounts import NAMESPACE

UUID = "d209c89e-ea5e-4fbd-b161-b461cce297e0"
SOON_S = 20.0

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="needs root and loop"
)


class Host:
    """An engine's end: services, the stage's /dev, tree and mounts."""

    def __init__(self, place: Path, services: ServiceManager) -> None:
        self.dev, self.tree, self.root = place / "dev", place / "tree", place / "mounts"
        for path in (self.dev, self.tree, self.root):
            path.mkdir()
        self.services = services
        with (self.tree / "disk.img").open("wb") as file:
            file.truncate(32 << 20)

    def start(self, kind: str, name: str, module: str) -> ServiceClient:
        executable = data_folder(f"{kind}s") / f"org.osbuild.{module}"
        return self.services.start(f"{kind}/{name}", str(executable))

    def open(self, name: str = "disk", **options: Any) -> Any:
        options = {"filename": "disk.img", **options}
        arguments = {"dev": str(self.dev), "tree": str(self.tree), "parent": None}
        service = self.start("device", name, "loopback")
        return service.call("open", {**arguments, "options": options}, timeout_s=SOON_S)

    def mount(
        self, device: str | None, target: str = "/", module: str = "ext4", **options: Any
    ) -> Any:
        arguments = {"source": device, "target": target, "options": options}
        places = {"root": str(self.root), "tree": str(self.tree)}
        service = self.start("mount", f"m{len(self.services.services)}", module)
        return service.call("mount", {**arguments, **places}, timeout_s=SOON_S)

    def format(self, name: str) -> None:
        output_of("mkfs.ext4", "-q", "-U", UUID, str(self.dev / name))


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path) -> Iterator[Host]:
    with own_mounts():
        with ServiceManager() as services:
            yield Host(tmp_path, services)
        assert str(tmp_path) not in Path("/proc/thread-self/mountinfo").read_text()
    assert str(tmp_path) not in backing_files()


def backing_files() -> str:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return " ".join(path.read_text() for path in files)


def size_of(node: Path) -> int:
    with node.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def test_a_file_is_a_device(host: Host) -> None:
    reply = host.open()
    node = host.dev / reply["path"]
    facts = node.stat()
    assert stat.S_ISBLK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o666
    assert reply["node"] == {"major": os.major(facts.st_rdev), "minor": os.minor(facts.st_rdev)}
    assert reply["path"] == f"loop{reply['node']['minor']}"
    assert size_of(node) == 32 << 20
    with node.open("r+b") as file:
        file.write(b"x" * 512)
    host.services.stop()
    assert (host.tree / "disk.img").read_bytes()[:513] == b"x" * 512 + b"\0"


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"start": 2048}, (32 << 20) - (1 << 20)),
        ({"start": 2048, "size": 100}, 51200),
        ({"start": 1, "size": 2, "sector-size": 4096}, 8192),
        ({"size": 8.0, "lock": True}, 4096),
    ],
)
def test_a_part_of_a_file(options: Any, size: int, host: Host) -> None:
    assert size_of(host.dev / host.open(**options)["path"]) == size


def test_what_may_only_be_read(host: Host) -> None:
    options: dict[str, Any] = {"read-only": True}
    name = host.open(**options)["path"]
    assert Path(f"/sys/block/{name}/ro").read_text() == "1\n"


@pytest.mark.parametrize(
    ("filename", "said"),
    [
        ("none.img", "No such file"),
        ("pipe", "pipe is no regular file"),
        ("out", "No such file"),
        ("../disk.img", ""),
        (None, "the option filename is missing"),
    ],
)
def test_files_that_are_not_in_the_tree(filename: Any, said: str, host: Host) -> None:
    os.mkfifo(host.tree / "pipe")
    outside = host.tree.parent / "outside"
    outside.write_bytes(b"x" * 4096)
    (host.tree / "out").symlink_to(outside)
    if not said:  # ".." stops at the tree, as in a root directory
        assert host.open(filename=filename)["path"]
        return
    with pytest.raises(RemoteError, match=said):
        host.open(filename=filename)


def test_a_disk_is_partitioned_formatted_and_filled(host: Host) -> None:
    needs("sfdisk")
    whole = host.open("whole", lock=True)
    device = {"device": {"path": str(host.dev / whole["path"])}}
    table = {"label": "gpt", "uuid": UUID, "partitions": [{"start": 2048, "size": 16384}, {}]}
    status, output = run(host.tree, "sfdisk", table, devices=device)
    assert status == 0, output
    host.services.stop()

    part = host.open("part", start=2048, size=16384)
    device = {"device": {"path": str(host.dev / part["path"])}}
    assert run(host.tree, "mkfs.ext4", {"uuid": UUID}, devices=device)[0] == 0
    host.services.stop()

    node = host.dev / host.open("disk", start=2048, size=16384)["path"]
    path = Path(host.mount(str(node)))
    assert path == host.root
    (path / "hello").write_text("there")
    host.services.stop()
    part = host.open("part", start=2048, size=16384)
    assert output_of("debugfs", "-R", "cat /hello", str(host.dev / part["path"])) == "there"


def test_partitions_have_nodes(host: Host) -> None:
    needs("addpart")
    file = os.open(host.tree / "disk.img", os.O_RDWR)
    loop = Loop.set_up(file, Part(0, 32 << 20), False, True, False)
    try:
        # As the kernel does by itself where it knows the kind of table, which not all do.
        output_of("addpart", f"/dev/{loop.name}", "2", "2048", "100")
        loop.make_nodes(str(host.dev))
    finally:
        loop.close()
        os.close(file)
    node = host.dev / f"{loop.name}p2"
    assert stat.S_IMODE(node.stat().st_mode) == 0o666
    assert node.stat().st_rdev != (host.dev / loop.name).stat().st_rdev


def test_a_mount_below_a_mount_stays_below_it(host: Host) -> None:
    one = host.open("one", size=32768)
    two = host.open("two", start=32768)
    for each in (one, two):
        host.format(each["path"])
    root = Path(host.mount(str(host.dev / one["path"])))
    (root / "usr").mkdir()
    (root / "boot").symlink_to("/usr/boot")
    boot = host.mount(str(host.dev / two["path"]), "/boot", norecovery=True, readonly=True)
    assert boot == str(root / "usr/boot")
    with pytest.raises(OSError, match="Read-only"):
        Path(boot, "x").mkdir()


def test_mounted_files_have_the_ids_of_the_stage(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = host.open()
    host.format(disk["path"])
    command = ["unshare", "--user", sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 1900000000 65536")
        monkeypatch.setenv(NAMESPACE, f"/proc/{holder.pid}/ns/user")
        path = Path(host.mount(str(host.dev / disk["path"])))
        assert path.stat().st_uid == 1900000000
        ids: Any = {"user": 1900000000, "group": 1900000000, "extra_groups": []}
        subprocess.run(["touch", "mine"], cwd=path, check=True, **ids)
        holder.communicate(b"\n")
    host.services.stop()
    disk = host.open("again")
    shown = output_of("debugfs", "-R", "stat /mine", str(host.dev / disk["path"]))
    assert shown.split("User:")[1].split()[0] == "0"


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [("ext4", None, "needs a source"), ("ext4", "/dev/null", "cannot be mounted as ext4")],
)
def test_what_cannot_be_mounted(module: str, source: Any, said: str, host: Host) -> None:
    with pytest.raises(RemoteError, match=said):
        host.mount(source, "/", module)


def test_a_mount_is_shown_in_the_tree(host: Host) -> None:
    (host.root / "data").mkdir()
    (host.root / "data/file").write_text("x")
    (host.tree / "srv").mkdir()
    assert host.mount(None, "tree://srv", "bind", source="mount://data") is None
    assert (host.tree / "srv/file").read_text() == "x"
    host.services.stop()
    assert list((host.tree / "srv").iterdir()) == []
    with pytest.raises(RemoteError, match="begins with tree:// or mount://"):
        host.mount(None, "tree://srv", "bind", source="/etc")


def test_a_killed_service_leaves_no_loop_device(host: Host) -> None:
    host.open()
    assert str(host.tree) in backing_files()
    process = host.services.services["device/disk"].process
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + SOON_S
    while str(host.tree) in backing_files() and time.monotonic() < until:
        time.sleep(0.01)
    assert str(host.tree) not in backing_files()
