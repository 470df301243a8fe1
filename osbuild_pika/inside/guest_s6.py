"""A guest whose first process is s6-svscan, as Debian packages it: without s6-linux-init.

/sbin/init is a script of ours. It prepares what services rely on, copies the service directories
of the image to the scan directory and becomes s6-svscan, whose answers to signals lie there too:
Incus stops a guest by SIGPWR.

    /etc/s6/services/NAME           the image's services
    /usr/lib/pika-cloud/s6/NAME     our own: an address by DHCP, the report
    /usr/lib/pika-cloud/s6-svscan   what s6-svscan runs when it is signalled, and at its end
    /run/service                    the scan directory: a copy of all three, new at each boot
"""

from __future__ import annotations

import os

from osbuild_pika.inside import files, guestparts, intree
from osbuild_pika.inside.guestparts import FOLDER, REPORTER, script
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

SERVICES, OURS, CONTROLS = "/etc/s6/services", f"{FOLDER}/s6", f"{FOLDER}/s6-svscan"
SCAN_DIRECTORY = "/run/service"
REBOOT_MARK = "/run/s6/reboot"
GRACE_S = 3  # that a process has from SIGTERM to SIGKILL when the guest ends
INIT = f"""\
#!/bin/sh
# The first process: it prepares what services rely on, and becomes s6-svscan.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
cd /
umask 022
{guestparts.EARLY_SCRIPT}
rm -rf /run/s6 {SCAN_DIRECTORY}
mkdir -p /run/s6/basedir {SCAN_DIRECTORY}
cp -a {CONTROLS} {SCAN_DIRECTORY}/.s6-svscan
for each in {SERVICES} {OURS}; do
    [ ! -d "$each" ] || cp -a "$each/." {SCAN_DIRECTORY}/
done
exec s6-svscan {SCAN_DIRECTORY}
"""
STOP = f"""\
#!/bin/sh
exec s6-svscanctl -t {SCAN_DIRECTORY}
"""
REBOOT = f"""\
#!/bin/sh
: >{REBOOT_MARK}
exec s6-svscanctl -t {SCAN_DIRECTORY}
"""
# Services have ended; what they left behind may not have. A signal to all does not reach the first
# process, which this is.
FINISH = f"""\
#!/bin/sh
exec </dev/null 2>/dev/null
kill -TERM -1
seconds=0
while [ $seconds -lt {GRACE_S} ] && kill -0 -1; do
    seconds=$((seconds + 1))
    sleep 1
done
kill -KILL -1
sync
[ ! -e {REBOOT_MARK} ] || exec busybox reboot -f
exec busybox poweroff -f
"""
SIGNALS = {
    "SIGPWR": STOP,  # Incus
    "SIGTERM": STOP,
    "SIGUSR1": STOP,  # what busybox's halt and poweroff send
    "SIGUSR2": STOP,
    "SIGINT": REBOOT,  # as the kernel does for the keys Control, Alt and Delete
    "finish": FINISH,
    "crash": FINISH,
}
COMMANDS = {"reboot": "INT", "poweroff": "PWR", "halt": "PWR"}
DHCP_RUN = f"""\
#!/bin/sh
exec 2>&1
exec {guestparts.DHCP_SCRIPT}
"""
ONCE = f"""\
#!/bin/sh
{REPORTER} boot
"""
# s6-supervise starts what ended on its own again, and that is told only if it was not ready before;
# what is not started again may have failed.
WATCH = f"""\
#!/bin/sh
service={SCAN_DIRECTORY}/%s
{REPORTER} boot
while s6-svwait -D "$service"; do
    if [ "$(s6-svstat -o wantedup "$service")" = true ]; then
        s6-svwait -u "$service" || exit
        grep -q '"state": "ready"' /run/pika-cloud/status.json || {REPORTER} boot
    else
        {REPORTER} failed
        s6-svwait -u "$service" && {REPORTER} boot
    fi
done
"""
STAY_DOWN = """\
#!/bin/sh
exit 125
"""


def make(tree: Path, options: Mapping[str, Any]) -> str:
    """Returns what was done. Raises StageError."""
    if not intree.has_program(tree, "s6-svscan"):
        raise StageError("the tree has no s6: add the package, or set init to another")
    guestparts.need_busybox(tree, "s6")
    guestparts.be_init(tree, "s6")
    guestparts.install_early(tree)
    script(tree, "/sbin/init", INIT)
    for name, text in SIGNALS.items():
        script(tree, f"{CONTROLS}/{name}", text)
    for name, signal in COMMANDS.items():
        if not intree.has_program(tree, name):
            script(tree, f"/sbin/{name}", f"#!/bin/sh\nkill -{signal} 1\n")
    files.make_directory(tree, SERVICES)
    if options.get("network", "dhcp") == "dhcp":
        guestparts.install_dhcp(tree)
        _service(tree, guestparts.DHCP, DHCP_RUN)
    if options.get("lifecycle", True):
        _report(tree, options.get("ready") or {})
    return f"made {', '.join(_names(tree, SERVICES)) or 'no'} of the image's services s6's"


def has(tree: Path, service: str) -> bool:
    return os.path.isdir(resolve(tree, f"{SERVICES}/{service}"))


def _report(tree: Path, ready: Mapping[str, Any]) -> None:
    service = guestparts.service_of(ready, "s6")
    if service is not None and not has(tree, service):
        raise StageError(f"ready: the tree has no service {service}, in {SERVICES}")
    guestparts.write_rules(tree, "s6", service, ready)
    run = ONCE if service is None else WATCH % service
    _service(tree, guestparts.REPORT, run, STAY_DOWN)


def _service(tree: Path, name: str, run: str, finish: str = "") -> None:
    """A service of ours: what it prints goes to the console."""
    script(tree, f"{OURS}/{name}/type", "longrun\n", 0o644)
    script(tree, f"{OURS}/{name}/run", run)
    if finish:
        script(tree, f"{OURS}/{name}/finish", finish)


def _names(tree: Path, folder: str) -> list[str]:
    return sorted(os.listdir(resolve(tree, folder)))
