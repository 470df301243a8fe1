"""What this host has of what a build needs, and how to get the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ENOUGH_BYTES = 1024**3
# Program -> Debian package.
PROGRAMS = {
    "bwrap": "bubblewrap",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "tar": "tar",
}
# Of stages that make Debian trees.
DEBIAN = {"mmdebstrap": "mmdebstrap", "apt-ftparchive": "apt-utils", "dpkg-deb": "dpkg"}
# Of users that are not root.
MAPPERS = {"newuidmap": "uidmap", "newgidmap": "uidmap"}
# The switches that forbid user namespaces, and the value of each that does.
SWITCHES = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}
TRIED = (
    ("ids", "subordinate ids"),
    ("root", "namespaces"),
    ("namespace", "sandbox"),
    ("store", "store's format"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. fix: what to do about it; "" if it is well.

    is_needed: without it nothing can be built.
    """

    name: str
    text: str
    fix: str = ""
    is_needed: bool = True

    @property
    def is_ok(self) -> bool:
        return not self.fix

    def as_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": "ok" if self.is_ok else "problem" if self.is_needed else "note",
            "text": self.text,
            "fix": self.fix or None,
        }


def programs(which: Callable[[str], str | None] = shutil.which) -> list[Check]:
    """The programs that the engine starts."""
    wanted = {**PROGRAMS, **({} if os.geteuid() == 0 else MAPPERS)}
    missing = {name: package for name, package in wanted.items() if which(name) is None}
    if not missing:
        return [Check("programs", ", ".join(wanted))]
    packages = " ".join(sorted(set(missing.values())))
    return [Check("programs", f"no {', '.join(missing)}", f"apt-get install {packages}")]


def debian(which: Callable[[str], str | None] = shutil.which) -> Check:
    """The programs that Debian images are made with; other builds need none of them."""
    missing = {name: package for name, package in DEBIAN.items() if which(name) is None}
    if not missing:
        return Check("Debian images", ", ".join(DEBIAN))
    fix = f"apt-get install {' '.join(sorted(set(missing.values())))}"
    return Check("Debian images", f"no {', '.join(missing)}", fix, is_needed=False)


def tried(answer: Mapping[str, Any], read: Callable[[str], str]) -> list[Check]:
    """What chores.probe found. read: the content of a file below /proc/sys; "" if there is none."""
    found = []
    for name, words in TRIED:
        why = answer.get(name)
        if why is None:
            continue
        if not why:
            text = f"from {answer['base']}" if name == "ids" else "works"
            found.append(Check(words, text))
        else:
            found.append(Check(words, why, _fix(name, read)))
    if answer.get("overlay") is not None:
        text = "overlay mounts work on the store's file system"
        no = "the store's file system carries no overlay: trees are copied, which is slower"
        fix = "" if answer["overlay"] else "use a --store on ext4, xfs or btrfs"
        found.append(Check("overlay", no if fix else text, fix, is_needed=False))
    return found


def _fix(name: str, read: Callable[[str], str]) -> str:
    if name == "ids":
        return "give the user 65536 ids in /etc/subuid and /etc/subgid"
    if name == "store":
        return "see the message, or use another --store"
    closed = [switch for switch, value in SWITCHES.items() if read(switch) == value]
    if closed:
        return "; ".join(f"sysctl -w {each.replace('/', '.')}={_opposite(each)}" for each in closed)
    return "no sysctl forbids it: let the container's seccomp or AppArmor profile allow it"


def _opposite(switch: str) -> str:
    return {"user/max_user_namespaces": "15000"}.get(switch, str(1 - int(SWITCHES[switch])))


def read_switch(name: str) -> str:
    """A value below /proc/sys; "" if there is none."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def places(named: Iterable[tuple[str, str]]) -> list[Check]:
    """Whether directories can be written, or made, and how much room there is in the first."""
    found = []
    for name, path in named:
        there = _existing(path)
        if os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK):
            text = path if there == path else f"{path} (will be made)"
            found.append(Check(name, text))
        else:
            what = "is no directory" if not os.path.isdir(there) else "cannot be written"
            found.append(Check(name, f"{there} {what}", f"choose another {name}"))
        if len(found) == 1:
            found.append(_room(there))
    return found


def _existing(path: str) -> str:
    """A path, or the nearest directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _room(path: str) -> Check:
    facts = os.statvfs(path)
    free = facts.f_bavail * facts.f_frsize
    text = f"{free / 1024**3:.1f} GiB free for the store"
    fix = "" if free >= ENOUGH_BYTES else "osbuild-pika gc --max-size 1GiB, or use another --store"
    return Check("room", text, fix, is_needed=False)


def kernel(can_tell_exits: bool, filesystems: str) -> list[Check]:
    """What the kernel can. can_tell_exits: how processes ended that are nobody's child.

    filesystems: /proc/filesystems.
    """
    release = os.uname().release
    found = [Check("kernel", f"Linux {release}")]
    if "overlay" not in filesystems.split():
        text = "no overlay file system: trees are copied, which is slower"
        found.append(Check("overlayfs", text, "modprobe overlay", is_needed=False))
    text = f"PIDFD_GET_INFO {'tells' if can_tell_exits else 'does not tell'} how an engine ended"
    fix = "" if can_tell_exits else "nothing is lost but the signal's name; Linux 6.15 has it"
    found.append(Check("exit status", text, fix, is_needed=False))
    return found
