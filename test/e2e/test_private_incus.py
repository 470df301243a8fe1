"""The daemon of the tests and the demo leaves nothing behind, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guests
import private_incus
import pytest

SERVING = """
printf '#!/bin/sh\\n[ "$1" != bound ] || ifconfig $interface $ip netmask $subnet\\n' >/bin/bound
chmod 755 /bin/bound
udhcpc -i eth0 -n -q -s /bin/bound && mkdir /srv && echo hello >/srv/index.html && httpd -h /srv
while :; do sleep 0.1; done
"""
QUIET: Any = {"capture_output": True, "check": False, "timeout": 30}
PROGRAM = Path(private_incus.__file__)


@pytest.fixture
def directory(incus: Path) -> Iterator[Path]:  # one runs already
    path = Path(tempfile.mkdtemp(prefix="pi.", dir="/tmp")) / "i"  # short
    path.parent.chmod(0o711)
    yield path
    private_incus.stop(path)
    shutil.rmtree(path.parent)


def mentions(text: str) -> list[str]:
    """What of the machine still names a path: processes, mounts, control groups."""
    own = os.getpid()
    seen = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and path.parts[2] != str(own):
            seen.append(line)
    mounts = Path("/proc/self/mountinfo").read_text().split("\n")
    return seen + [line for line in mounts if text in line]


def cgroups(instance: str) -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return [*top.glob(f"lxc.*{instance}*"), *top.glob(f"*/lxc.*{instance}*")]


def launch(directory: Path, tmp_path: Path, name: str, script: str = guests.STAY) -> None:
    path = guests.unified(tmp_path, script)
    private_incus.incus(directory, "image", "import", str(path), "--alias", "image")
    private_incus.incus(directory, "launch", "image", name)
    assert cgroups(name)


def test_it_is_started_and_stopped_from_a_command_line(directory: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "start", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{directory}/d/unix.socket\n"
    launch(directory, tmp_path, "left-behind")
    assert mentions(str(directory))
    subprocess.run([sys.executable, str(PROGRAM), "stop", str(directory)], check=True)
    assert not directory.exists()
    assert mentions(str(directory)) == []
    assert cgroups("left-behind") == []


def test_a_kill_of_its_parent_ends_all_of_it(directory: Path, tmp_path: Path) -> None:
    pid = private_incus.start(directory)
    launch(directory, tmp_path, "killed-off")
    os.kill(pid, signal.SIGKILL)
    child = private_incus.STARTED[pid]
    guests.until(lambda: child.poll() is not None and not mentions(str(directory)))
    private_incus.stop(directory)
    assert not directory.exists()
    assert cgroups("killed-off") == []


def test_its_guests_get_addresses_and_can_be_asked_from_inside(
    directory: Path, tmp_path: Path
) -> None:
    private_incus.start(directory)
    private_incus.add_network(directory)
    launch(directory, tmp_path, "served", SERVING)
    address = guests.until(lambda: address_of(directory, "served"))
    fetch = f"import urllib.request as r; print(r.urlopen('http://{address}/').read())"
    assert guests.until(lambda: asked(directory, fetch)) == b"b'hello\\n'\n"
    assert b"hello" not in subprocess.run([sys.executable, "-c", fetch], **QUIET).stdout


def address_of(directory: Path, name: str) -> str:
    listed = private_incus.incus(directory, "list", name, "--format", "csv", "-c", "4")
    return listed.decode().strip().partition(" ")[0]


def asked(directory: Path, program: str) -> bytes:
    try:
        return private_incus.inside(directory, sys.executable, "-c", program)
    except subprocess.CalledProcessError:
        return b""


def test_it_reaches_no_network_and_no_other_incus(directory: Path, incus: Path) -> None:
    private_incus.start(directory)
    private_incus.incus(directory, "network", "list")
    inside = private_incus.inside(directory, "ip", "-brief", "link")
    assert [line.split()[0] for line in inside.decode().strip().split("\n")] == ["lo"]
    private_incus.incus(directory, "project", "create", "ours")
    assert b"ours" not in private_incus.incus(incus, "project", "list")
