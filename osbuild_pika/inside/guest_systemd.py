"""A guest whose first process is systemd: networkd, and units that report."""

from __future__ import annotations

import os
import re

from osbuild_pika.inside import files, guestparts, intree, units
from osbuild_pika.inside.guestparts import REPORTER
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

UNITS = "/usr/lib/systemd/system"
NETWORK_FILE = "/etc/systemd/network/eth0.network"
UNIT_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9\\:_.-]*(@[A-Za-z0-9\\:_.-]+)?\.[a-z]+\Z")
NETWORK = """\
[Match]
Name=eth0

[Network]
DHCP=yes
IPv6AcceptRA=yes

[DHCPv4]
ClientIdentifier=mac
UseHostname=no
"""
NO_NETWORK = """\
[Match]
Name=eth0

[Link]
Unmanaged=yes
"""
# Where /sys can be written, networkd waits for udev to name the links. Without udev in the image
# it would wait for ever, and an unprivileged container's /sys can be written. A mount of its own:
# beside networkd's other limits, systemd 257 does not heed ReadOnlyPaths= of /sys.
NO_UDEV = """\
[Service]
BindReadOnlyPaths=/sys
"""
# A container is never let load modules, and where there is no libkmod even a list of none fails.
MODULES = """\
[Unit]
ConditionVirtualization=!container
"""
# A guest may have no network, and what waits for one should not wait for long then.
ONLINE = """\
[Unit]
ConditionPathExists=/sys/class/net/eth0

[Service]
ExecStart=
ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --interface=eth0 --timeout=30
"""
# A container may ask the kernel about its own network links only; the rest are the host's.
TRIGGER = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net
"""
SSH_KEYS = """\
[Unit]
Description=Make this machine's ssh host keys
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""
# Early, for it waits for nothing: `booted` is told before other units are started, and a unit
# that is needed early can be the one that is waited for.
REPORT = """\
[Unit]
Description=Tell the Incus host how far this guest is
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target{before}

[Service]
Type=notify
NotifyAccess=main
RemainAfterExit=yes
ExecStart={reporter} boot
TimeoutStartSec=60

[Install]
WantedBy=multi-user.target
"""
FAILED = """\
[Unit]
Description=Tell the Incus host that {unit} failed
After=pika-cloud-report.service

[Service]
Type=oneshot
ExecStart={reporter} failed
"""
DROP_IN = """\
[Unit]
Wants=pika-cloud-report.service
OnFailure=pika-cloud-failed.service
"""


def make(tree: Path, options: Mapping[str, Any]) -> str:
    """Returns what was done. Raises StageError."""
    if not intree.has_program(tree, "systemctl"):
        raise StageError("the tree has no systemd: add the package, or set init to none")
    if units.has(tree, "systemd-modules-load.service"):
        drop_in = f"{UNITS}/systemd-modules-load.service.d/pika-cloud.conf"
        files.write(tree, drop_in, MODULES.encode())
    enabled = [*_network(tree, options), *_ssh(tree)]
    if options.get("lifecycle", True):
        enabled += _report(tree, options.get("ready") or {})
    files.write(tree, "/etc/machine-id", b"", 0o444)
    if enabled:
        intree.run_checked(tree, ["systemctl", "--quiet", "enable", "--", *enabled])
    return f"enabled {', '.join(enabled) or 'nothing'}"


def _network(tree: Path, options: Mapping[str, Any]) -> list[str]:
    """Let systemd set up eth0 by DHCP, or leave it alone. Returns the units to enable."""
    is_wanted = options.get("network", "dhcp") == "dhcp"
    if not os.path.lexists(resolve(tree, NETWORK_FILE, follow=False)):  # else it is the user's
        files.write(tree, NETWORK_FILE, (NETWORK if is_wanted else NO_NETWORK).encode())
    if not is_wanted:
        return []
    if not units.has(tree, "systemd-networkd.service"):
        raise StageError("the tree has no systemd-networkd: add the package, or network: none")
    online = f"{UNITS}/systemd-networkd-wait-online.service.d/pika-cloud.conf"
    files.write(tree, online, ONLINE.encode())
    if units.has(tree, "systemd-udevd.service"):
        trigger = f"{UNITS}/systemd-udev-trigger.service.d/pika-cloud.conf"
        files.write(tree, trigger, TRIGGER.encode())
    else:
        drop_in = f"{UNITS}/systemd-networkd.service.d/pika-cloud.conf"
        files.write(tree, drop_in, NO_UDEV.encode())
    wanted = ["systemd-networkd.service"]
    if units.has(tree, "systemd-resolved.service"):
        wanted.append("systemd-resolved.service")
        if not os.path.lexists(resolve(tree, "/etc/resolv.conf", follow=False)):
            files.link(tree, "/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    return wanted


def _ssh(tree: Path) -> list[str]:
    """Have the ssh host keys made at the first boot, if there is an ssh server."""
    if not intree.has_program(tree, "/usr/sbin/sshd"):
        return []
    files.write(tree, f"{UNITS}/pika-cloud-ssh-keys.service", SSH_KEYS.encode())
    return ["pika-cloud-ssh-keys.service"]


def _report(tree: Path, ready: Mapping[str, Any]) -> list[str]:
    """Have the guest report its boot. ready: unit or service, http, within_s. Returns the units
    to enable."""
    unit = unit_of(ready)
    guestparts.write_rules(tree, "systemd", unit, ready)
    before = ""
    if unit is not None:
        if not UNIT_NAME.match(unit):
            raise StageError(f"ready: {ascii(unit)[:80]} is no unit such as nginx.service")
        if not units.has(tree, re.sub(r"@.*(\.[a-z]+)\Z", r"@\1", unit)):
            raise StageError(f"ready: the tree has no unit {unit}")
        before = f" {unit}\nPartOf={unit}"
        failed = FAILED.format(unit=unit.replace("%", "%%"), reporter=REPORTER)
        files.write(tree, f"{UNITS}/pika-cloud-failed.service", failed.encode())
        files.write(tree, f"{UNITS}/{unit}.d/pika-cloud.conf", DROP_IN.encode())
    text = REPORT.format(before=before, reporter=REPORTER)
    files.write(tree, f"{UNITS}/pika-cloud-report.service", text.encode())
    return ["pika-cloud-report.service"]


def unit_of(ready: Mapping[str, Any]) -> str | None:
    """The unit that is waited for. Raises StageError."""
    if ready.get("service") is None:
        unit: str | None = ready.get("unit")
        return unit
    if ready.get("unit") is not None:
        raise StageError("ready: names a unit and a service; leave one out")
    return f"{ready['service']}.service"
