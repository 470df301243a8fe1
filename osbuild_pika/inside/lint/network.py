"""Does a guest get an address, find names, and have host keys? For trees with systemd only."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import error, warning
from osbuild_pika.inside.lint.system import is_systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.lint.view import View

UNITS = "etc/systemd/system"
VENDOR = ("usr/lib/systemd/system", "lib/systemd/system")
MANAGERS = {
    "systemd-networkd.service": "systemd-networkd",
    "networking.service": "ifupdown",
    "NetworkManager.service": "NetworkManager",
    "connman.service": "connman",
    "dhcpcd.service": "dhcpcd",
}
DEVICES = {"container": "eth0", "vm": "enp5s0"}
TRUE = ("yes", "true", "on", "1", "ipv4")
RESOLVED = ("stub-resolv.conf", "resolv.conf")


def lint_network(view: View, kind: str) -> Iterator[Finding]:
    """kind: "container" or "vm"."""
    if not is_systemd(view):
        return
    managers = sorted({name for unit, name in MANAGERS.items() if is_enabled(view, unit)})
    if not managers:
        if _is_left_alone(view, DEVICES[kind]):
            return
        text = "no network manager is enabled, so no instance gets an address; enable one"
        yield error("network", UNITS, text)
    elif len(managers) > 1:
        text = f"{' and '.join(managers)} are enabled; disable all but one"
        yield error("network", UNITS, text)
    elif managers == ["systemd-networkd"]:
        yield from _networkd(view, DEVICES[kind])
    elif managers == ["ifupdown"]:
        yield from _ifupdown(view, DEVICES[kind])
    yield from _resolver(view)
    yield from _host_keys(view)


def is_enabled(view: View, unit: str) -> bool:
    """Whether a unit is started: a link to it in a .wants or .requires, and it is not masked."""
    masked = view.entries.get(f"{UNITS}/{unit}")
    if masked is not None and masked.kind == tree.LINK and masked.target == "/dev/null":
        return False
    places = [name for place in (UNITS, *VENDOR) for name in view.children(place)]
    wants = [name for name in places if name.endswith((".wants", ".requires"))]
    return any(f"{name}/{unit}" in view.entries for name in wants)


def _is_left_alone(view: View, device: str) -> bool:
    """Whether somebody wrote that nobody is to set up a device."""
    first = next(iter(_matching(view, device)), None)
    return first is not None and _is_true(_settings(view.text(first)).get("Link.Unmanaged", ""))


def _matching(view: View, device: str) -> list[str]:
    """The .network files that are for a device; the first one counts."""
    return [name for name in _networks(view) if _matches(_settings(view.text(name)), device)]


def _is_true(value: str) -> bool:
    return value.lower() in TRUE


def _networkd(view: View, device: str) -> Iterator[Finding]:
    matching = _matching(view, device)
    if _is_left_alone(view, device):
        return
    if any(name.endswith((".yaml", ".yml")) for name in view.children("etc/netplan")):
        return  # which writes networkd's files at boot
    if not matching:
        text = f"no .network matches {device}, so it gets no address; write one with DHCP=yes"
        yield error("network", "etc/systemd/network", text)
        return
    settings = _settings(view.text(matching[0]))
    if not _is_true(settings.get("Network.DHCP", "no")):
        if "Network.Address" not in settings and "Address.Address" not in settings:
            text = f"gives {device} no address; write DHCP=yes in [Network]"
            yield error("network", matching[0], text)
        return
    name = settings.get("DHCPv4.ClientIdentifier", settings.get("DHCP.ClientIdentifier", ""))
    if name != "mac":
        text = "a copied instance asks with another id; write ClientIdentifier=mac in [DHCPv4]"
        yield warning("dhcp-identifier", matching[0], text)


def _networks(view: View) -> list[str]:
    """The .network files in networkd's order: by name, those of /etc before others of the name."""
    found: dict[str, str] = {}
    for place in ("etc/systemd/network", "usr/lib/systemd/network", "lib/systemd/network"):
        for name in view.children(place):
            if name.endswith(".network"):
                found.setdefault(name.rpartition("/")[2], name)
    return [path for _, path in sorted(found.items())]


def _settings(text: str) -> dict[str, str]:
    """Section.Key -> value of a unit file; of several the last."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped.strip("[]")
        elif "=" in stripped and not stripped.startswith(("#", ";")):
            key, _, value = stripped.partition("=")
            found[f"{section}.{key.strip()}"] = value.strip()
    return found


def _matches(settings: dict[str, str], device: str) -> bool:
    """Whether a .network is for a plain Ethernet device of this name."""
    names = settings.get("Match.Name")
    if names is not None:
        patterns = names.split()
        if not any(fnmatchcase(device, each) for each in patterns if not each.startswith("!")):
            return False
    elif "Match.Type" not in settings and "Match.MACAddress" not in settings:
        return False
    kinds = settings.get("Match.Type", "ether").split()
    return "ether" in kinds and not {"Match.Kind", "Match.Driver"} & settings.keys()


def _ifupdown(view: View, device: str) -> Iterator[Finding]:
    path = "etc/network/interfaces"
    parts = list(view.children(f"{path}.d"))
    text = "\n".join(view.text(name) for name in (path, *parts))
    if not re.search(rf"^\s*iface\s+{device}\s+inet6?\s", text, re.MULTILINE):
        yield error("network", path, f"has no {device}; write 'iface {device} inet dhcp'")
    elif not re.search(rf"^\s*(auto|allow-hotplug)\s.*\b{device}\b", text, re.MULTILINE):
        yield error("network", path, f"does not bring {device} up; write 'auto {device}'")


def _resolver(view: View) -> Iterator[Finding]:
    path = "etc/resolv.conf"
    entry = view.entries.get(path)
    has_resolved = view.has("usr/lib/systemd/systemd-resolved")
    if entry is not None and entry.kind == tree.FILE:
        servers = re.findall(r"^\s*nameserver\s+(\S+)", view.text(path), re.MULTILINE)
        if servers:
            text = f"has a builder's name servers ({', '.join(servers[:3])})"
            yield error("resolv-conf", path, f"{text}; {_fix(has_resolved)}")
            return
    if not has_resolved or not is_enabled(view, "systemd-resolved.service"):
        return
    wanted = tuple(f"run/systemd/resolve/{name}" for name in RESOLVED)
    target = entry.target if entry is not None and entry.kind == tree.LINK else ""
    if not target.endswith(wanted):
        text = "is no link to systemd-resolved's file, so no name is found"
        yield error("resolv-conf", path, f"{text}; {_fix(has_resolved)}")


def _fix(has_resolved: bool) -> str:
    link = "link it to ../run/systemd/resolve/stub-resolv.conf"
    return link if has_resolved else "remove it"


def _host_keys(view: View) -> Iterator[Finding]:
    """Without keys sshd fails, and the boot is degraded: a unit has to make them."""
    if not view.has("usr/sbin/sshd"):
        return
    if not any(is_enabled(view, unit) for unit in ("ssh.service", "sshd.service", "ssh.socket")):
        return
    if view.has("usr/bin/cloud-init"):
        return  # which makes keys
    for place in (UNITS, *VENDOR):
        for name in view.below(place):
            if not name.endswith((".service", ".conf")):
                continue
            unit = name[len(place) + 1 :]
            if "ssh-keygen" in view.text(name) and _takes_part(view, unit):
                return
    text = "no unit makes host keys, so sshd fails; enable one that runs ssh-keygen -A before it"
    yield error("ssh-keygen", UNITS, text)


def _takes_part(view: View, unit: str) -> bool:
    """Whether a unit, or the one that this drop-in is of, is started with sshd or at boot."""
    owner = unit.partition("/")[0].removesuffix(".d") if "/" in unit else unit
    if owner in ("ssh.service", "sshd.service", "ssh@.service"):
        return True
    return is_enabled(view, owner) or is_enabled(view, owner.replace("@", "@rsa"))
