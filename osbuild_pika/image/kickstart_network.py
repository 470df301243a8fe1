"""network: the host's name, and static addresses for systemd-networkd."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from osbuild_pika.image.kickstart_draft import Draft
from osbuild_pika.image.reading import shown

Data = Mapping[str, Any]
_DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_ETHERNET = re.compile(r"eth[0-9]{1,3}")
_DOMAINS = re.compile(r"[A-Za-z0-9._-]{1,253}(,[A-Za-z0-9._-]{1,253})*")
_OTHERS = {  # pykickstart's names, and what they ask for
    "essid": "a wireless network",
    "wepkey": "a wireless network",
    "wpakey": "a wireless network",
    "bondslaves": "a bond",
    "bridgeslaves": "a bridge",
    "teamslaves": "a team",
    "vlanid": "a VLAN",
}
_UNUSED = {"dhcpclass": "--dhcpclass", "ethtool": "--ethtool", "bindto": "--bindto"}


class _WrongError(Exception):
    """What is wrong with an address."""


def network(draft: Draft, at: int, data: Data) -> None:
    """Add what a command asks of the guest's network. DHCP on eth0 is there without it."""
    if data.get("hostname"):
        draft.put("hostname", str(data["hostname"]), at)
    others = [what for key, what in _OTHERS.items() if data.get(key)]
    if others:
        why = f"{others[0]}: a guest gets its devices from Incus: `incus network`"
        draft.refuse(at, "network", why)
        return
    for key, option in _UNUSED.items():
        if data.get(key):
            draft.note(at, f"{option} is left out")
    try:
        lines = list(_lines(data))
    except _WrongError as error:
        draft.fault(at, f"{error}: correct it")
        return
    if not lines:
        return
    device = _device(draft, at, str(data.get("device") or ""))
    path = f"/etc/systemd/network/10-{device}.network"
    if any(each["path"] == path for each in draft.document.get("files", ())):
        draft.fault(at, f"{device} stands in an earlier line: write one of them")
        return
    # It comes before eth0.network, with which every guest is made, and so counts instead.
    text = f"[Match]\nName={device}\n\n[Network]\n" + "".join(f"{line}\n" for line in lines)
    draft.append("files", {"path": path, "content": text}, at)


def _device(draft: Draft, at: int, given: str) -> str:
    """Incus calls a guest's devices eth0, eth1, ..., whatever the machine's own were called."""
    if _ETHERNET.fullmatch(given):
        return given
    if given:
        draft.note(at, "on eth0, as Incus calls it")
    return "eth0"


def _lines(data: Data) -> Iterator[str]:
    """Lines of a .network file's [Network]; none if DHCP does it all. Raises _WrongError."""
    is_static = str(data.get("bootProto")) == "static"
    own = [*_ipv4(data, is_static), *_ipv6(data)]
    for each in str(data.get("nameserver") or "").split(","):
        if each.strip():
            own.append(f"DNS={_address(each.strip())}")
    domains = ",".join(str(data[key]) for key in _SEARCHED if data.get(key))
    if domains and not _DOMAINS.fullmatch(domains):
        raise _WrongError(f"{shown(domains)} are no domains")
    if domains:
        own.append(f"Domains={domains.replace(',', ' ')}")
    if not own:
        return
    yield "DHCP=no" if is_static and data.get("ip") else "DHCP=yes"
    yield f"IPv6AcceptRA={'no' if data.get('noipv6') else 'yes'}"
    yield from own


_SEARCHED = ("ipv4_dns_search", "ipv6_dns_search")


def _ipv4(data: Data, is_static: bool) -> Iterator[str]:
    given, mask = str(data.get("ip") or ""), str(data.get("netmask") or "")
    if not is_static or given in ("", "dhcp"):
        return
    try:
        address = ipaddress.IPv4Interface(f"{_address(given)}/{mask or 24}")
    except ValueError:
        raise _WrongError(f"{shown(mask)} is no netmask") from None
    yield f"Address={address.with_prefixlen}"
    if data.get("gateway") and not data.get("nodefroute"):
        yield f"Gateway={_address(str(data['gateway']))}"


def _ipv6(data: Data) -> Iterator[str]:
    given = str(data.get("ipv6") or "")
    if given in ("", "auto", "dhcp"):
        return
    try:
        yield f"Address={ipaddress.IPv6Interface(given).with_prefixlen}"
    except ValueError:
        raise _WrongError(f"{shown(given)} is no IPv6 address with its prefix") from None
    if data.get("ipv6gateway"):
        yield f"Gateway={_address(str(data['ipv6gateway']))}"


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _WrongError(f"{shown(text)} is no address") from None
    if "%" in text:
        raise _WrongError(f"{shown(text)}: a scope is none of an image")
    return str(address)
