"""What makes a tree a guest: its network, its identity at the first boot, and its own report.

An image is started many times, so nothing in it may name one machine: no machine-id, no ssh host
keys, no resolver of the build host. Where each file lies and what it says stands in
docs/reference/guest.md; guest_systemd, guest_s6 and guest_openrc have what differs by init.
"""

from __future__ import annotations

import os
import re

from osbuild_pika.inside import files, guest_openrc, guest_s6, guest_systemd, guestparts
from osbuild_pika.inside.places import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    Maker = Callable[[Path, Mapping[str, Any]], str]

HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
INITS: dict[str, Maker] = {
    "systemd": guest_systemd.make,
    "s6": guest_s6.make,
    "openrc": guest_openrc.make,
}


def make(tree: Path, options: Mapping[str, Any]) -> str:
    """Make the tree a guest as the stage's options say. Returns what was done. Raises
    StageError."""
    forget_machine(tree)
    if not os.path.lexists(resolve(tree, "/etc/hosts", follow=False)):
        files.write(tree, "/etc/hosts", HOSTS.encode())
    if options.get("lifecycle", True):
        guestparts.install_helper(tree)
    init = options.get("init", "systemd")
    if init not in INITS:
        return "made a guest without an init of its own"
    files.write(tree, "/etc/fstab", b"")
    return INITS[init](tree, options)


def forget_machine(tree: Path) -> None:
    """Remove what only one machine may have."""
    paths = [resolve(tree, f"/{name}", follow=False) for name in _OF_ONE_MACHINE]
    ssh = resolve(tree, "/etc/ssh")
    if os.path.isdir(ssh):
        paths += [entry.path for entry in os.scandir(ssh) if _HOST_KEY.match(entry.name)]
    for path in paths:
        if os.path.lexists(path):
            os.unlink(path)


_OF_ONE_MACHINE = (
    *("etc/machine-id", "var/lib/dbus/machine-id", "etc/.resolv.conf.systemd-resolved.bak"),
    *("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"),
)
_HOST_KEY = re.compile(r"ssh_host_.*_key(\.pub)?\Z")
