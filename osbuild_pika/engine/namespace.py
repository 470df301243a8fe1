"""The user namespace of a build, and the mounts that only the build sees.

Root in it is an ordinary, subordinate id of the host. A process namespace comes with it, whose
first process waits for its input to end: so when the engine ends, however that happens, the
kernel kills everything that was started inside. Commands enter through nsenter, in 3 ms.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from osbuild_pika import libc
from osbuild_pika.engine.processes import signal_children
from osbuild_pika.errors import HostError

COUNT = 65536
ROOT_BASE = 1_900_000_000  # for root without an entry in /etc/subuid
# What to put before bubblewrap. It looks its child up in /proc, by the number that the child has in
# the namespace; if that is not there it ends, and its child waits for ever.
OWN_PROC = ("unshare", "--mount-proc", "--")
_START_S = 5.0  # for nsenter to start a command
# Its arguments: process, its uid and gid, first id, number of ids.
_MAP = 'read go; newuidmap "$0" 0 "$1" 1 1 "$3" "$4" && newgidmap "$0" 0 "$2" 1 1 "$3" "$4"'
_FIRST = "echo; read end"
_HINT = (
    "see user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp"
)


class Ids(NamedTuple):
    """Ids 0..size-1 inside are base..base+size-1 outside, for users and groups alike."""

    base: int
    size: int = COUNT


def find_ids(etc: Path = Path("/etc")) -> Ids:
    """The subordinate ids of the caller. Raises HostError."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    users, groups = (_ranges(etc / file, (name, str(uid))) for file in ("subuid", "subgid"))
    both = [base for base in users if base in groups]
    if both:
        return Ids(both[0])
    if uid == 0 and not users and not groups:
        return Ids(ROOT_BASE)
    raise HostError(
        f"{name} has no {COUNT} subordinate ids that are the same in {etc}/subuid and "
        f"{etc}/subgid: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {name}"
    )


def _ranges(path: Path, names: Sequence[str]) -> list[int]:
    """The first ids of the ranges in a subid file that are large enough and somebody's."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    fields = [line.split(":") for line in lines]
    whole = [(entry[0], entry[1], entry[2]) for entry in fields if len(entry) == 3]
    return [
        int(base)
        for name, base, count in whole
        if name in names and base.isdecimal() and count.isdecimal() and int(count) >= COUNT
    ]


def become_root(ids: Ids) -> Ids:
    """Make an ordinary user the root of a namespace in which its subordinate ids are 1..65536.

    Returns the ids as they are called in there; for root there is nothing to do. What this
    process writes from now on is the user's outside. The caller must have one thread. Raises
    HostError.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return ids
    numbers = [str(number) for number in (os.getpid(), uid, gid, ids.base, ids.size)]
    with _start(["sh", "-c", _MAP, *numbers]) as maps:
        try:
            libc.unshare(libc.CLONE_NEWUSER)
        except OSError as error:
            raise HostError(f"cannot make a user namespace: {error.strerror}; {_HINT}") from error
        libc.stay_dumpable()  # else newuidmap takes us for root's
        _, said = maps.communicate(b"\n")
    if maps.returncode != 0:
        why = said.decode(errors="replace").strip()
        raise HostError(f"cannot map the subordinate ids (Debian package uidmap): {why}")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return Ids(1, ids.size)


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    except FileNotFoundError as error:
        raise HostError(f"{error.filename} not found (Debian package util-linux)") from error


def private_mounts() -> None:
    """Leave the caller's mount namespace: what is mounted from now on ends with this process and
    its children, and nobody else sees it. The caller must be root and have one thread. Raises
    HostError."""
    try:
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    except OSError as error:
        raise HostError(f"cannot make a mount namespace: {error.strerror}") from error


class UserNamespace:
    """A user namespace and what runs in it, for the time of a `with` block. The caller must be
    root (see become_root)."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._first: subprocess.Popen[bytes] | None = None
        self._fds: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        first = _start(["unshare", "--user", "--pid", "--fork", "--", "sh", "-c", _FIRST])
        try:
            if not (first.stdout and first.stdout.read(1)):
                _, said = first.communicate()
                why = said.decode(errors="replace").strip()
                raise HostError(f"cannot make a user namespace: {why}; {_HINT}")
            self._write_maps(first.pid)
            self._fds = tuple(
                os.open(f"/proc/{first.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
                for name in ("user", "pid_for_children")
            )
        except BaseException:
            first.communicate()
            raise
        self._first = first
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill what still runs inside, and wait until it is gone."""
        if self._first is not None:
            self._first.communicate()  # it ends at the end of its input, and with it all others
        for fd in self._fds:
            os.close(fd)
        self._fds = ()

    def _write_maps(self, pid: int) -> None:
        line = f"0 {self.ids.base} {self.ids.size}"
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(line, encoding="ascii")
        except OSError as error:
            last = self.ids.base + self.ids.size - 1
            raise HostError(
                f"cannot map the ids {self.ids.base} to {last}: {error.strerror}; are they all in "
                "/proc/self/uid_map and /proc/self/gid_map?"
            ) from error

    @property
    def path(self) -> str:
        """What names it for other processes, while this one lives: /proc/PID/fd/N."""
        return f"/proc/{os.getpid()}/fd/{self._fds[0]}"

    def enter_argv(self) -> list[str]:
        """What to put before a command that shall run as root inside.

        The process that is started so is nsenter; the command is its child, and gives its exit
        status. To end it, use `kill`.
        """
        user, pid = (f"/proc/{os.getpid()}/fd/{fd}" for fd in self._fds)
        return [
            *("nsenter", f"--user={user}", f"--pid={pid}", "--setuid", "0", "--setgid", "0"),
            *("--", "setpriv", "--pdeathsig", "KILL", "--"),
        ]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command as root inside, with an empty session keyring; options are Popen's.

        It is gone at the end of the block at the latest. Raises HostError if it cannot be started.
        """
        try:
            libc.join_new_session_keyring()
            return subprocess.Popen([*self.enter_argv(), *argv], **options)
        except FileNotFoundError as error:
            raise HostError(f"{error.filename} not found (Debian package util-linux)") from error

    def kill(self, process: subprocess.Popen[Any], number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a command of popen. What it started itself is not told.

        Popen's own methods reach nsenter; a command that is just being started may miss that.
        """
        deadline = time.monotonic() + _START_S
        while process.poll() is None and not signal_children(process.pid, number):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.002)
