"""A guest whose first process is busybox's init and whose services are OpenRC's, as on Alpine.

OpenRC's own openrc-init (0.45) does not end when Incus tells a guest to; sysvinit would bring its
forty scripts for a machine that this is not.
"""

from __future__ import annotations

import os

from osbuild_pika.inside import files, guestparts, intree
from osbuild_pika.inside.guestparts import script
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

SCRIPTS, RUNLEVELS = "/etc/init.d", "/etc/runlevels"
BUSYBOX = "../bin/busybox"
INITTAB = """\
::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
::ctrlaltdel:/sbin/reboot
::shutdown:/sbin/openrc shutdown
"""
COMMANDS = ("init", "reboot", "poweroff", "halt")
# The host's clock and control groups are not the guest's to set up.
UNWANTED = ("hwclock.sh", "cgroups")
EARLY = f"""\
#!/sbin/openrc-run
description="Prepare what services rely on"

start() {{
	ebegin "$description"
	{guestparts.EARLY_SCRIPT}
	eend $?
}}
"""
DHCP = f"""\
#!/sbin/openrc-run
description="Get an address for eth0 by DHCP"
supervisor=supervise-daemon
command={guestparts.DHCP_SCRIPT}
respawn_delay=1
respawn_max=0

depend() {{
	provide net
}}
"""
# It waits for services that start after it: so it is not waited for.
REPORT = f"""\
#!/sbin/openrc-run
description="Tell the Incus host how far this guest is"

start() {{
	ebegin "$description"
	setsid {guestparts.REPORTER} boot </dev/null >/dev/console 2>&1 &
	eend 0
}}
"""


def make(tree: Path, options: Mapping[str, Any]) -> str:
    """Returns what was done. Raises StageError."""
    if not intree.has_program(tree, "openrc"):
        raise StageError("the tree has no openrc: add the package, or set init to another")
    guestparts.need_busybox(tree, "openrc")
    guestparts.be_init(tree, "openrc")
    for name in COMMANDS:
        if not os.path.lexists(resolve(tree, f"/sbin/{name}", follow=False)):
            files.link(tree, f"/sbin/{name}", BUSYBOX)
    files.write(tree, "/etc/inittab", INITTAB.encode())
    for name in UNWANTED:
        _drop(tree, "sysinit", name)
    guestparts.install_early(tree)
    enabled = [_service(tree, "sysinit", guestparts.EARLY, EARLY)]
    if options.get("network", "dhcp") == "dhcp":
        guestparts.install_dhcp(tree)
        enabled.append(_service(tree, "default", guestparts.DHCP, DHCP))
    if options.get("lifecycle", True):
        _rules(tree, options.get("ready") or {})
        enabled.append(_service(tree, "boot", guestparts.REPORT, REPORT))
    return f"enabled {', '.join(enabled)}"


def enable(tree: Path, service: str, runlevel: str = "default") -> None:
    """As `rc-update add` does it."""
    files.link(tree, f"{RUNLEVELS}/{runlevel}/{service}", f"{SCRIPTS}/{service}")


def _rules(tree: Path, ready: Mapping[str, Any]) -> None:
    service = guestparts.service_of(ready, "openrc")
    if service is not None and not os.path.isfile(resolve(tree, f"{SCRIPTS}/{service}")):
        raise StageError(f"ready: the tree has no service {service}, in {SCRIPTS}")
    guestparts.write_rules(tree, "openrc", service, ready)


def _service(tree: Path, runlevel: str, name: str, text: str) -> str:
    script(tree, f"{SCRIPTS}/{name}", text)
    enable(tree, name, runlevel)
    return name


def _drop(tree: Path, runlevel: str, name: str) -> None:
    path = resolve(tree, f"{RUNLEVELS}/{runlevel}/{name}", follow=False)
    if os.path.lexists(path):
        os.unlink(path)
