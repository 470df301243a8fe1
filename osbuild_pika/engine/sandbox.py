"""The sandbox of one stage: upstream osbuild's (v191), but entered as a user namespace's root.

What a stage finds in it, and where, is upstream's promise to its stages: the same binds, the same
environment, the same capabilities. Different are: root is a subordinate id of the host, so what
belongs to the host's root belongs to nobody; the host's name is hidden; /dev takes no new nodes;
/etc holds what upstream's runners put there, and there is no runner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CAPABILITIES = frozenset(
    (
        *("CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"),
        *("CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_LINUX_IMMUTABLE"),
        *("CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP"),
        *("CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"),
        *("CAP_SYS_NICE", "CAP_SYS_RESOURCE"),
    )
)
HOSTNAME = "localhost"
PROGRAMS = "/run/osbuild/bin"
LINKS = ("lib", "lib64", "bin", "sbin")


class Sandbox(NamedTuple):
    """area: the directory of `area.prepared`. stage: the name of the stage's program.

    capabilities: what the stage's .meta.json asks for beside CAPABILITIES.
    source_epoch: Unix seconds. term: the caller's TERM.
    """

    area: Path
    stage: str
    capabilities: frozenset[str] = frozenset()
    source_epoch: int | None = None
    term: str = "dumb"


def environment(sandbox: Sandbox) -> dict[str, str]:
    """All that a stage finds in its environment, but for PWD, which bubblewrap sets."""
    variables = {
        "container": "bwrap-osbuild",
        "LC_CTYPE": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin",
        "PYTHONPATH": "/run/osbuild/lib",
        "PYTHONUNBUFFERED": "1",
        "TERM": sandbox.term,
    }
    if sandbox.source_epoch is not None:
        variables["SOURCE_DATE_EPOCH"] = str(sandbox.source_epoch)
    return variables


def argv(sandbox: Sandbox, status_fd: int | None = None) -> list[str]:
    """The command that runs the stage, to be started inside the user namespace.

    status_fd: where bubblewrap says (JSON) how the stage ended, if it did start.
    Root in a namespace holds every capability there, so bubblewrap is never refused one: 0.8
    would keep all of them then and say nothing. It needs a /proc of the process namespace that it
    is started in.
    """
    status = () if status_fd is None else ("--json-status-fd", str(status_fd))
    return [
        "bwrap",
        *("--chdir", "/", "--die-with-parent", "--new-session"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--hostname", HOSTNAME, *status),
        *("--cap-drop", "ALL"),
        *(
            word
            for name in sorted(CAPABILITIES | sandbox.capabilities)
            for word in ("--cap-add", name)
        ),
        "--clearenv",
        *(
            word
            for name, value in environment(sandbox).items()
            for word in ("--setenv", name, value)
        ),
        *_system(sandbox.area),
        *_work(sandbox.area, f"{PROGRAMS}/{sandbox.stage}"),
        *("--", f"{PROGRAMS}/{sandbox.stage}"),
    ]


def _system(area: Path) -> Iterator[str]:
    """The binds that make the system below which the stage runs."""
    yield from ("--ro-bind", f"{area}/root/usr", "/usr")
    yield from ("--ro-bind-try", f"{area}/root/boot", "/boot")
    for name in LINKS:
        yield from ("--symlink", f"usr/{name}", f"/{name}")
    yield from ("--dev-bind", f"{area}/dev", "/dev", "--tmpfs", "/dev/shm")  # noqa: S108
    yield from ("--bind", f"{area}/etc", "/etc")
    yield from ("--tmpfs", "/run", "--tmpfs", "/tmp")  # noqa: S108
    yield from ("--bind", f"{area}/var", "/var", "--proc", "/proc")
    yield from ("--ro-bind", "/sys", "/sys")  # not from the area: see area.py
    yield from ("--ro-bind-try", f"{area}/root/ostree", "/ostree")
    yield from ("--ro-bind", f"{area}/lib", "/run/osbuild/lib")
    yield from ("--ro-bind", f"{area}/cmdline", "/proc/cmdline")


def _work(area: Path, program: str) -> Iterator[str]:
    """The binds that give the stage its work."""
    for name in ("tree", "meta", "mounts"):
        yield from ("--bind", f"{area}/{name}", f"/run/osbuild/{name}")
    yield from ("--ro-bind", f"{area}/stage", program)
    yield from ("--ro-bind", f"{area}/inputs", "/run/osbuild/inputs")
    yield from ("--ro-bind", f"{area}/api/arguments", "/run/osbuild/api/arguments")
    yield from ("--dir", "/run/osbuild/api")
    yield from ("--bind", f"{area}/api/osbuild", "/run/osbuild/api/osbuild")
