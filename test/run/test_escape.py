"""A stage that wants out: each of its attempts fails, for a known reason, and the host stays."""

import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import staging

ESCAPE = staging.MODULES / "org.osbuild-pika.escape"
NAMES = re.findall(r"@attempt\ndef (\w+)", ESCAPE.read_text())
DENIED = {"EACCES", "EPERM"}
READ_ONLY = DENIED | {"EROFS"}
NOT_HERE = DENIED | {"ENOSYS"}  # of a kernel that lacks it
UNSEEN = {"ENOENT"}
# What is not simply forbidden. Attempts on a process of the host: it is not there.
REASONS = {
    "abstract_socket": {"ECONNREFUSED"},
    "hand_out_ids_of_the_host": {"EINVAL"},
    "io_ports": NOT_HERE,
    "kexec": NOT_HERE,
    "keyctl": {"ENOKEY"},
    "kill_host_process": {"ESRCH"},
    "load_a_module": NOT_HERE,
    "local_network": {"ECONNREFUSED"},
    "mount_over_usr": {"EXDEV"},
    "network": {"ENETUNREACH"},
    "open_by_handle": {"EPERM", "ESTALE"},
    "pidfd": {"ESRCH"},
    "ptrace": {"ESRCH"},
    "read_above_the_tree": UNSEEN,
    "read_memory": {"ESRCH"},
    "read_the_store": UNSEEN,
    "replace_null": DENIED | {"EBUSY"},  # EBUSY: it is a mount, for who may not make nodes
    "root_of_a_host_process": UNSEEN,
    "root_of_the_first_process": UNSEEN,
    "setns_of_a_host_process": UNSEEN,
    "setns_user": {"EINVAL"},
    "sysrq": DENIED | UNSEEN,  # a kernel without it
    "write_alternatives": READ_ONLY,
    "write_arguments": READ_ONLY,
    "write_inputs": READ_ONLY,
    "write_its_own_program": READ_ONLY,
    "write_modules": READ_ONLY,
    "write_usr": READ_ONLY,
}
Attempts = dict[str, list[str]]

pytestmark = [
    pytest.mark.skipif(not staging.can_run(), reason="needs root and user namespaces"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by their numbers"),
]


def host() -> dict[str, object]:
    """What the attempts would change."""
    return {
        "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
        "name": platform.node(),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "usr": sorted(os.listdir("/usr")),
        "null": os.stat("/dev/null").st_rdev,
        "dev": sorted(name for name in os.listdir("/dev") if "pika" in name or name == "disk"),
    }


@pytest.fixture(scope="module", name="attempts")
def fixture_attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    directory = tmp_path_factory.mktemp("escape")
    secret = directory / "run/secret"
    tree = directory / "run/tree"
    tree.mkdir(parents=True)
    secret.write_text("of the host")
    os.mknod(tree / "planted", 0o20666, os.makedev(1, 5))
    (tree / "planted").chmod(0o666)
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{directory}")
    abstract.listen()
    before = host()
    server = socket.create_server(("127.0.0.1", 0))
    with server, abstract, subprocess.Popen(["sleep", "300"]) as process:
        options = {
            "pid": process.pid,
            "secret": str(secret),
            "disk": os.stat("/").st_dev,
            "abstract": str(directory),
            "port": server.getsockname()[1],
            "key": f"osbuild-pika-{os.getpid()}",
        }
        job = staging.Job(str(directory / "run"), str(ESCAPE), options)
        job.secret = str(options["key"])
        result = staging.run(job)
        alive = process.poll() is None
        process.kill()
    assert result.status == 0, result.output
    assert alive
    yield json.loads((tree / "attempts.json").read_text())
    assert host() == before


@pytest.mark.parametrize("name", NAMES)
def test_an_attempt_fails(attempts: Attempts, name: str) -> None:
    errno, _ = attempts[name]
    assert errno in REASONS.get(name, DENIED), attempts[name]


def test_the_host_is_as_it_was(attempts: Attempts) -> None:
    assert set(attempts) == set(NAMES)
    assert not Path("/usr/osbuild-pika-escape").exists()
