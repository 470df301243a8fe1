"""The user namespace of a build, and the mounts that only the build sees.

Root in it is an ordinary, subordinate id of the host. It has no process of its own: an open
descriptor holds it, so it ends with the engine, however that ends. What enters it is started
through nsenter, setpriv and sh: in 3 ms, from any thread, and it dies with the thread that
started it.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from osbuild_pika.engine import libc
from osbuild_pika.errors import HostError

COUNT = 65536
ROOT_BASE = 1_900_000_000  # for root without an entry in /etc/subuid
# Started as the engine's child, it asks for its death with the engine before it looks whether the
# engine still lives; so there is no moment in which it could stay behind.
_ONLY_BELOW = '[ "$PPID" = "$0" ] && exec "$@"'
# Its arguments: process, its uid and gid, first id, number of ids.
_MAP = 'read go; newuidmap "$0" 0 "$1" 1 1 "$3" "$4" && newgidmap "$0" 0 "$2" 1 1 "$3" "$4"'
_HINT = (
    "see user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp"
)


@dataclass(frozen=True)
class Ids:
    """Ids 0..count-1 inside are base..base+count-1 outside, for users and groups alike."""

    base: int
    count: int = COUNT


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
    numbers = [str(number) for number in (os.getpid(), uid, gid, ids.base, ids.count)]
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
    return Ids(1, ids.count)


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
    """A user namespace, for the time of a `with` block. The caller must be root (see
    become_root)."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._fd = -1

    def __enter__(self) -> Self:
        with _start(["unshare", "--user", "--", "sh", "-c", "echo; read end"]) as first:
            if not (first.stdout and first.stdout.read(1)):
                _, said = first.communicate()
                why = said.decode(errors="replace").strip()
                raise HostError(f"cannot make a user namespace: {why}; {_HINT}")
            try:
                self._write_maps(first.pid)
                self._fd = os.open(f"/proc/{first.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                first.communicate()  # it ends at the end of its input
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)
        self._fd = -1

    def _write_maps(self, pid: int) -> None:
        line = f"0 {self.ids.base} {self.ids.count}"
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(line, encoding="ascii")
        except OSError as error:
            last = self.ids.base + self.ids.count - 1
            raise HostError(
                f"cannot map the ids {self.ids.base} to {last}: {error.strerror}; are they all in "
                "/proc/self/uid_map and /proc/self/gid_map?"
            ) from error

    def enter_argv(self) -> list[str]:
        """What to put before a command that shall run as root inside.

        To be started by this process and no other: it dies with the thread that started it.
        """
        engine = os.getpid()
        return [
            *("nsenter", f"--user=/proc/{engine}/fd/{self._fd}", "--setuid", "0", "--setgid", "0"),
            *("--", "setpriv", "--pdeathsig", "KILL", "--"),
            *("sh", "-c", _ONLY_BELOW, str(engine)),
        ]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command as root inside, with an empty session keyring; options are Popen's.

        It is killed when the calling thread ends. Raises HostError if it cannot be started.
        """
        try:
            libc.join_new_session_keyring()
            return subprocess.Popen([*self.enter_argv(), *argv], **options)
        except FileNotFoundError as error:
            raise HostError(f"{error.filename} not found (Debian package util-linux)") from error
