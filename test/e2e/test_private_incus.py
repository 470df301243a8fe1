"""The daemon of the tests and the demo leaves nothing behind, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import guests
import private_incus
import pytest

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


def launch(directory: Path, tmp_path: Path, name: str) -> None:
    path = guests.unified(tmp_path)
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
    while private_incus.STARTED[pid].poll() is None or mentions(str(directory)):
        time.sleep(0.05)
    private_incus.stop(directory)
    assert not directory.exists()
    assert cgroups("killed-off") == []


def test_it_reaches_no_network_and_no_other_incus(directory: Path, incus: Path) -> None:
    private_incus.start(directory)
    private_incus.incus(directory, "network", "list")
    inside = private_incus.inside(directory, "ip", "-brief", "link")
    assert [line.split()[0] for line in inside.decode().strip().split("\n")] == ["lo"]
    private_incus.incus(directory, "project", "create", "ours")
    assert b"ours" not in private_incus.incus(incus, "project", "list")
