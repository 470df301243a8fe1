"""What data/osbuild/modules/org.osbuild-pika.escape tries, from a stage or from within a tree.

A bundle brings it a Python of its own, so that it runs in any tree.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import debs
import pytest
import staging
from debs import Deb

PROGRAM = staging.MODULES / "org.osbuild-pika.escape"
NAMES = re.findall(r"@attempt\ndef (\w+)", PROGRAM.read_text())
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
# Within a tree these places are its own, or are not there.
OWN = {
    *("write_alternatives", "write_arguments", "write_dev", "write_inputs", "write_modules"),
    *("write_its_own_program", "write_usr", "hand_out_ids_of_the_host"),
}
# The program looks for these, and leaves its answer in the tree.
SCRIPT = """\
#!/bin/sh
set -e
mkdir -p /run/osbuild/api
ln -s / /run/osbuild/tree
cp /opt/escape/options.json /run/osbuild/api/arguments
export PYTHONHOME=/opt/escape LD_LIBRARY_PATH=
/opt/escape/lib/ld.so --library-path /opt/escape/lib /opt/escape/python3 -S /opt/escape/program
for kind in proc sysfs; do umount /tmp/$kind 2>/dev/null || true; done
rm -r /run/osbuild/api /run/osbuild/tree
"""
UNNEEDED = ("__pycache__", "test", "site-packages", "dist-packages", "config-*", "idlelib")
SYSTEM = ("/usr", "/proc", "/sys", "/dev", "/etc")
Attempts = dict[str, list[str]]


def need() -> None:
    """Skip the test where nothing can be tried."""
    if not staging.can_run():
        pytest.skip("needs root and user namespaces")
    if platform.machine() != "x86_64":
        pytest.skip("system calls by their numbers")


def host() -> dict[str, object]:
    """What the attempts would change."""
    return {
        "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
        "name": platform.node(),
        # Others may mount elsewhere meanwhile.
        "mounts": [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4].startswith(SYSTEM)
        ],
        "usr": sorted(os.listdir("/usr")),
        "null": os.stat("/dev/null").st_rdev,
        "dev": sorted(name for name in os.listdir("/dev") if "pika" in name or name == "disk"),
    }


@contextmanager
def targets(directory: Path) -> Iterator[dict[str, Any]]:
    """What the program is told to try itself on, as its options; the host must stay as it is."""
    secret = directory / "secret"
    secret.write_text("of the host")
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{directory}")
    abstract.listen()
    before = host()
    server = socket.create_server(("127.0.0.1", 0))
    with server, abstract, subprocess.Popen(["sleep", "300"]) as process:
        yield {
            "pid": process.pid,
            "secret": str(secret),
            "disk": os.stat("/").st_dev,
            "abstract": str(directory),
            "port": server.getsockname()[1],
            "key": f"osbuild-pika-{os.getpid()}",
        }
        alive = process.poll() is None
        process.kill()
    assert alive
    assert host() == before


def package(place: Path, options: dict[str, Any], **scripts: str) -> Deb:
    """A package `escape` with the program, its options and a Python that needs nothing else."""
    home = place / "escape.tree/opt/escape"
    library = home / "lib"
    standard = Path(sysconfig.get_path("stdlib"))
    unneeded = shutil.ignore_patterns(*UNNEEDED)
    shutil.copytree(standard, library / standard.name, symlinks=False, ignore=unneeded)
    python = Path("/proc/self/exe").resolve()
    shutil.copy(python, home / "python3")
    for binary in (python, *(library / standard.name / "lib-dynload").glob("*.so")):
        said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(/\S+) \(0x", said):
            name = "ld.so" if "/ld-linux" in path else Path(path).name
            shutil.copy(path, library / name)
    shutil.copy(PROGRAM, home / "program")
    (home / "options.json").write_text(json.dumps({"options": options}))
    return debs.make(place, "escape", **scripts)


def unexpected(attempts: Attempts, **reasons: set[str]) -> dict[str, list[str]]:
    """The attempts within a tree that did not fail as they should: also what is not there, or can
    only be read, is not changed. reasons: other ones."""
    assert set(attempts) == set(NAMES)
    known = {**REASONS, **reasons}
    return {
        name: said
        for name, said in attempts.items()
        if name not in OWN and said[0] not in known.get(name, DENIED) | UNSEEN | {"EROFS"}
    }
