"""What guests of every init have: the helper, the rules of the report, an address by DHCP.

systemd brings its own network manager. Where another init is, busybox's udhcpc asks for the
address: the image has busybox for init, reboot and poweroff already.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from osbuild_pika.inside import files, intree
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HERE = Path(__file__).parent
FOLDER = "/usr/lib/pika-cloud"
HELPER, REPORTER = f"{FOLDER}/pika-cloud-lifecycle", f"{FOLDER}/pika-cloud-report"
RULES = f"{FOLDER}/report.json"
EARLY_SCRIPT, DHCP_SCRIPT, LEASE_SCRIPT = (
    f"{FOLDER}/{name}" for name in ("early", "dhcp", "dhcp-lease")
)
EARLY, DHCP, REPORT = "pika-cloud-early", "pika-cloud-dhcp", "pika-cloud-report"  # services
INTERPRETER = "#!/usr/bin/python3"
WITHIN_S = 120  # how long a guest may take to be ready, if nothing else is said
RESOLVER = "/run/pika-cloud-resolv.conf"
SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z")
# What any service may rely on, and Incus does not give its containers.
EARLY_TEXT = """\
#!/bin/sh
# Before any service: /run and /dev/shm, and this machine's own ssh host keys.
mountpoint -q /run || mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -p /run/lock /dev/shm
chmod 1777 /run/lock
mountpoint -q /dev/shm || mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
if [ -x /usr/sbin/sshd ]; then
    set -- /etc/ssh/ssh_host_*_key
    [ -e "$1" ] || ssh-keygen -A
fi
exit 0
"""
# The server knows a machine by its MAC address; its name is for the server's DNS.
DHCP_TEXT = f"""\
#!/bin/sh
# Keeps an address for eth0, from when there is an eth0.
until [ -e /sys/class/net/eth0 ]; do sleep 1; done
read -r name </proc/sys/kernel/hostname
exec busybox udhcpc -f -i eth0 -t 5 -T 2 -A 5 -x "hostname:$name" -s {LEASE_SCRIPT}
"""
LEASE_TEXT = f"""\
#!/bin/sh
# What udhcpc was told, for one network link: deconfig, bound, renew; leasefail and nak say nothing.
case $1 in
deconfig)
    busybox ip -4 address flush dev "$interface"
    busybox ip link set "$interface" up
    ;;
bound | renew)
    busybox ifconfig "$interface" "$ip" netmask "${{subnet:-255.255.255.0}}" ${{mtu:+mtu "$mtu"}}
    for each in $router; do
        busybox ip -4 route replace default via "$each" dev "$interface" onlink
        break
    done
    {{
        [ -z "$domain" ] || echo "search $domain"
        for each in $dns; do echo "nameserver $each"; done
    }} >{RESOLVER}.new
    mv {RESOLVER}.new {RESOLVER}
    ;;
esac
exit 0
"""


def install_helper(tree: Path) -> None:
    """Put the lifecycle helper and the reporter into the tree. Raises StageError."""
    if not intree.has_program(tree, "/usr/bin/python3"):
        raise StageError("the tree has no python3 for the lifecycle: add it, or lifecycle: false")
    sources = {HELPER: HERE.parent / "lifecycle.py", REPORTER: HERE / "guestreport.py"}
    for path, source in sources.items():
        _, _, rest = source.read_bytes().partition(b"\n")
        files.write(tree, path, INTERPRETER.encode() + b"\n" + rest, 0o755)


def write_rules(tree: Path, init: str, waited_for: str | None, ready: Mapping[str, Any]) -> None:
    """Say what ready means. waited_for: the unit or the service. ready: http, within_s."""
    rules = {
        "init": init,
        "unit" if init == "systemd" else "service": waited_for,
        "http": ready.get("http"),
        "within_s": ready.get("within_s", WITHIN_S),
    }
    files.write(tree, RULES, f"{json.dumps(rules, indent=2)}\n".encode())


def service_of(ready: Mapping[str, Any], init: str) -> str | None:
    """The service that is waited for, where there are no units. Raises StageError."""
    if ready.get("unit") is not None:
        raise StageError(f"ready: a unit is systemd's; with init {init} name a service")
    service: str | None = ready.get("service")
    if service is not None and not SERVICE_NAME.match(service):
        raise StageError(f"ready: {ascii(service)[:80]} is no name of a service such as nginx")
    return service


def install_early(tree: Path) -> None:
    """Put what runs before any service into the tree."""
    script(tree, EARLY_SCRIPT, EARLY_TEXT)


def install_dhcp(tree: Path) -> None:
    """Put what gets an address into the tree; a resolver that was given stays."""
    script(tree, DHCP_SCRIPT, DHCP_TEXT)
    script(tree, LEASE_SCRIPT, LEASE_TEXT)
    if not os.path.lexists(resolve(tree, "/etc/resolv.conf", follow=False)):
        files.link(tree, "/etc/resolv.conf", f"..{RESOLVER}")


def script(tree: Path, path: str, text: str, mode: int = 0o755) -> None:
    files.write(tree, path, text.encode(), mode)


def need_busybox(tree: Path, init: str) -> None:
    """Raises StageError."""
    if not intree.has_program(tree, "busybox"):
        raise StageError(f"the tree has no busybox, which a guest with {init} needs: add it")


def be_init(tree: Path, init: str) -> None:
    """Make sure that /sbin/init is nobody's yet. Raises StageError."""
    if os.path.lexists(resolve(tree, "/sbin/init", follow=False)):
        what = "a package's, such as systemd-sysv, or a file of yours"
        raise StageError(f"/sbin/init is there already ({what}): leave that out, or init: {init}")
