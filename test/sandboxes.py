"""A stage's sandbox as upstream osbuild (v191) makes it: its namespaces, binds and environment.

The root is that of the host, as for a pipeline without a build pipeline. There is no runner: the
stage is the first program that bubblewrap starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    "container": "bwrap-osbuild",
    "LC_CTYPE": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin",
    "PYTHONPATH": "/run/osbuild/lib",
    "PYTHONUNBUFFERED": "1",
    "TERM": "dumb",
}
# What upstream leaves to a stage, by the numbers of linux/capability.h.
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_LINUX_IMMUTABLE": 9,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
    "CAP_MAC_OVERRIDE": 32,
}
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # minors of major 1
FOLDERS = ("dev", "tree", "var", "mounts", "inputs")
LINKS = ("bin", "sbin", "lib", "lib64")


def can_run() -> bool:
    """Whether this machine has what a sandbox takes: bubblewrap, and root."""
    if os.geteuid() != 0 or not shutil.which("bwrap"):
        return False
    command = ["bwrap", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


class Sandbox:
    """The host's side of one stage: a directory with its devices, its tree and its arguments."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in FOLDERS:
            (directory / name).mkdir(parents=True)
        (directory / "var/tmp").mkdir()
        (directory / "meta").touch()
        (directory / "cmdline").write_text("root=/dev/osbuild\n")
        for name, minor in NODES.items():
            self._node(name, os.makedev(1, minor))
        self._node("tty", os.makedev(5, 0))

    @property
    def dev(self) -> Path:
        """Where services make the nodes of devices; /dev of the stage."""
        return self.directory / "dev"

    @property
    def tree(self) -> Path:
        return self.directory / "tree"

    def _node(self, name: str, device: int) -> None:
        os.mknod(self.dev / name, 0o666 | stat.S_IFCHR, device)
        (self.dev / name).chmod(0o666)

    def start(
        self, stage: Path, devices: dict[str, Any], options: dict[str, Any]
    ) -> subprocess.Popen[str]:
        """Start a stage's executable; its output, of both kinds, is a pipe."""
        arguments = {
            "tree": "/run/osbuild/tree",
            "paths": {
                "devices": "/dev",
                "inputs": "/run/osbuild/inputs",
                "mounts": "/run/osbuild/mounts",
            },
            "devices": devices,
            "inputs": {},
            "mounts": {},
            "options": options,
            "meta": {"id": "0" * 64},
        }
        (self.directory / "arguments").write_text(json.dumps(arguments))
        return subprocess.Popen(
            self.command(stage),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, stage: Path) -> list[str]:
        """The call of bubblewrap."""
        program = f"/run/osbuild/bin/{stage.name}"
        return [
            str(shutil.which("bwrap")),
            *("--chdir", "/", "--die-with-parent", "--new-session"),
            *("--unshare-ipc", "--unshare-pid", "--unshare-net"),
            *_capabilities(),
            *self._system(),
            *self._osbuild(stage, program),
            *("--", program),
        ]

    def _system(self) -> Iterator[str]:
        """The arguments that make the system below which the stage runs."""
        yield from ("--ro-bind", "/usr", "/usr")
        for name in LINKS:
            yield from ("--symlink", f"usr/{name}", f"/{name}")
        yield from ("--dev-bind", str(self.dev), "/dev", "--tmpfs", "/dev/shm")  # noqa: S108
        yield from ("--dir", "/etc", "--tmpfs", "/run", "--tmpfs", "/tmp")  # noqa: S108
        yield from ("--bind", str(self.directory / "var"), "/var")
        yield from ("--proc", "/proc", "--ro-bind", "/sys", "/sys")
        yield from ("--ro-bind-try", "/sys/fs/selinux", "/sys/fs/selinux")
        for name in ("mke2fs.conf", "containers", "selinux"):
            yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
        yield from ("--ro-bind", str(self.directory / "cmdline"), "/proc/cmdline")

    def _osbuild(self, stage: Path, program: str) -> Iterator[str]:
        """The arguments that give the stage its work."""
        for name in ("tree", "meta", "mounts"):
            yield from ("--bind", str(self.directory / name), f"/run/osbuild/{name}")
        yield from ("--ro-bind", str(self.directory / "inputs"), "/run/osbuild/inputs")
        yield from ("--ro-bind", str(ROOT / "osbuild_pika"), "/run/osbuild/lib/osbuild_pika")
        arguments = str(self.directory / "arguments")
        yield from ("--ro-bind", arguments, "/run/osbuild/api/arguments")
        yield from ("--ro-bind", str(stage), program)


def _capabilities() -> Iterator[str]:
    """What upstream keeps, of what we have: bubblewrap 0.8, refused one of them, keeps all."""
    with open("/proc/self/status", encoding="ascii") as file:
        ours = next(int(line.split()[1], 16) for line in file if line.startswith("CapPrm"))
    yield from ("--cap-drop", "ALL")
    for name, number in CAPABILITIES.items():
        if ours >> number & 1:
            yield from ("--cap-add", name)


@contextlib.contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Have the processes of a sandbox gone at the end of the block: they die with their parent."""
    with process:
        try:
            yield process
        finally:
            process.kill()
