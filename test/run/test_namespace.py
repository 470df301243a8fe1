"""Commands run as root in a user namespace, and none outlives it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import staging

from osbuild_pika.engine import namespace
from osbuild_pika.engine.namespace import COUNT, Ids, UserNamespace
from osbuild_pika.errors import HostError

pytestmark = pytest.mark.skipif(not staging.can_run(), reason="needs root and user namespaces")


@pytest.fixture(name="users")
def fixture_users() -> Iterator[UserNamespace]:
    before = sorted(os.listdir("/proc/self/fd"))
    with UserNamespace(namespace.find_ids()) as users:
        yield users
    assert sorted(os.listdir("/proc/self/fd")) == before


def said(users: UserNamespace, *argv: str) -> str:
    with users.popen(argv, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    return str(output)


def assert_none_sleeps(seconds: str) -> None:
    deadline = time.monotonic() + 5
    while staging.processes(seconds) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not staging.processes(seconds)


def test_a_command_is_root_inside_only(users: UserNamespace) -> None:
    assert said(users, "id", "-G") == "0\n"
    assert said(users, "cat", "/proc/self/uid_map").split() == ["0", str(users.ids.base), "65536"]
    assert said(users, "cat", "/proc/self/gid_map").split() == ["0", str(users.ids.base), "65536"]


def test_a_command_gets_no_descriptors(users: UserNamespace) -> None:
    assert said(users, "sh", "-c", "echo /proc/self/fd/*").split()[3:] == ["/proc/self/fd/3"]


def test_files_belong_to_subordinate_ids(users: UserNamespace) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        os.chown(path, users.ids.base, users.ids.base)
        said(users, "sh", "-c", f"touch {path}/file; chown 5:6 {path}/file")
        facts = Path(path, "file").stat()
    assert (facts.st_uid, facts.st_gid) == (users.ids.base + 5, users.ids.base + 6)


@pytest.mark.parametrize(("body", "status"), [("exit 7", 7), ("kill -9 $$", -9)])
def test_the_status_is_the_commands(users: UserNamespace, body: str, status: int) -> None:
    with users.popen(["sh", "-c", body]) as process:
        assert process.wait() == status


@pytest.mark.parametrize("delay_s", [0, 0.002, 0.004, 0.006, 0.01, 0.2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command(
    users: UserNamespace, number: signal.Signals, delay_s: float
) -> None:
    seconds = f"70.0{os.getpid()}{int(number)}"
    with users.popen(["sleep", seconds]) as process:
        time.sleep(delay_s)
        users.kill(process, number)
    assert process.returncode == -number
    assert_none_sleeps(seconds)


def test_nothing_outlives_the_namespace() -> None:
    seconds = f"71.0{os.getpid()}"
    with UserNamespace(namespace.find_ids()) as users:
        said(users, "sh", "-c", f"setsid sleep {seconds} >&- 2>&- &")
        assert staging.processes(seconds)
    assert not staging.processes(seconds)


def test_ids_that_cannot_be_mapped_are_named() -> None:
    with (
        pytest.raises(HostError, match=r"cannot map the ids 4294967290 to"),
        UserNamespace(Ids(4294967290, COUNT)),
    ):
        pass
