"""Definition -> Lock: apt says which packages an image has, with the checksum of each.

The base is what mmdebstrap calls minbase: what is essential or required, and apt. It is resolved
alone first and is then asked for by name with all the rest: so it is the same for every definition
of a suite, and its tree is built once.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import platform
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from osbuild_pika.errors import HostError, InputError, PikaError
from osbuild_pika.image import apt, lock, mirrors
from osbuild_pika.image.lock import Lock, Package, Release, Source
from osbuild_pika.image.values import Definition, generations

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
# What an init needs. busybox: DHCP, reboot; with OpenRC it is the first process, too.
INITS = {
    "systemd": ("systemd", "systemd-sysv", "dbus"),
    "s6": ("s6", "execline", "busybox"),
    "openrc": ("openrc", "busybox"),
    "none": (),
}
RESOLVER = "systemd-resolved"  # a part of systemd in older suites
# What merges /usr needs perl; a tree that is merged from the first can say so instead.
MERGER, IS_MERGED = "usrmerge", "usr-is-merged"
MAX_NEAR = 3  # names that are told of
MAX_SHOWN = 10  # packages that a message names
_URI = re.compile(
    r"'(?P<url>[^']+)' (?P<name>[^_ ]+)_(?P<version>[^_ ]+)_(?P<arch>[^_ ]+)\.deb "
    r"(?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})"
)

Tell = Callable[[str], None]


class Record(NamedTuple):
    """What an index says of a package."""

    is_essential: bool
    is_required: bool


def host_architecture() -> str:
    """This machine's architecture as Debian calls it. Raises HostError."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise HostError(f"machines of the kind {machine} are not known")
    return ARCHITECTURES[machine]


def resolve(
    definition: Definition,
    path: str,
    below: Sequence[Lock],
    environment: Mapping[str, str],
    tell: Tell,
) -> Lock:
    """Ask the mirrors which packages a definition means now. path: the definition's. below: the
    locks of what it is made from, the first generation's first.

    tell: is given a line at each step. Raises InputError, HostError.
    """
    architecture = host_architecture()
    first_path, first = generations(definition, path)[0]
    sources = mirrors.choose(first, first_path, environment)
    for each in sources:
        tell(f"indexes of {each.uri} {' '.join(each.suites)}")
    if any(each.is_any_age and not each.is_snapshot for each in sources):
        tell("of any age, for this machine's apt is told so (Acquire::Check-Valid-Until)")
    with apt.private(sources, architecture) as private:
        private.call("apt-get", "update", "-q")
        tell("resolving")
        packages = _packages(private, definition, architecture, below)
        releases = [_release(each, sources) for each in _signed(private.lists)]
    dates = [datetime.fromisoformat(each.date) for each in releases]
    return Lock(
        request=lock.request(definition, below[-1] if below else None),
        distribution=definition.distribution,
        suite=definition.suite,
        architecture=architecture,
        source_date_epoch=int(max(dates).timestamp()),
        keyring_sha256=_sha256(sources[0].signed_by) if first.keyring else None,
        sources=tuple(_in_image(each, first) for each in sources),
        releases=tuple(sorted(releases, key=lambda each: (each.origin, each.codename))),
        packages=tuple(sorted(packages, key=lambda each: each.name)),
    )


def _packages(
    private: apt.Apt, definition: Definition, architecture: str, below: Sequence[Lock]
) -> list[Package]:
    """What is installed; of a definition with a parent, beside what is there already."""
    there = {each.name: each.version for each_lock in below for each in each_lock.packages}
    names = lock.wanted(definition) - there.keys()
    if there:
        _refuse_excluded(there.keys(), definition)
    if there and not names:
        return []
    init = {*INITS[definition.init]} - there.keys()
    known = records(private, {*names, *init, RESOLVER, IS_MERGED})
    _refuse_unknown(private, sorted({*names, *init} - known.keys()), definition)
    without = _without(private, definition)
    if definition.base == "none":
        plain = private.call("apt-get", "download", "--print-uris", "-qq", *sorted(names))
        return _listed(plain, known, set(), names) if names else []
    names |= init
    if there:
        added = _added(private, there, names, without)
        _refuse_excluded({each.name for each in added}, definition)
        return added
    if definition.init == "systemd":
        names |= {RESOLVER} & known.keys()
    patterns = _minbase(definition.suite, architecture)
    base = _base(private, patterns, IS_MERGED in known)
    whole = _install(private, [*patterns, *sorted({"apt"} | base | names), *without])
    _refuse_excluded({match["name"] for match in whole}, definition)
    known = records(private, {match["name"] for match in whole})
    return [_package(match, known, base, names) for match in whole]


def _added(
    private: apt.Apt, there: Mapping[str, str], names: set[str], without: Sequence[str]
) -> list[Package]:
    """What apt would install where some packages are, by name and version. Raises InputError if
    that has to be done with other versions of them."""
    fixed = [f"{name}={version}" for name, version in sorted(there.items())]
    try:
        whole = _install(private, [*fixed, *sorted(names), *without])
    except PikaError as error:
        if not re.search(r"Version .* was not found", str(error)):
            raise
        fix = "osbuild-pika lock --update, of what this is made from"
        raise InputError(f"the archive has newer packages than the parent's lock: {fix}") from None
    added = [match for match in whole if match["name"] not in there]
    known = records(private, {match["name"] for match in added})
    return [_package(match, known, set(), names) for match in added]


def _base(private: apt.Apt, patterns: Sequence[str], can_be_merged: bool) -> set[str]:
    """The names of the base. apt takes the first of `usrmerge | usr-is-merged`: only where that
    would be installed, the other is asked for."""
    base = {match["name"] for match in _install(private, [*patterns, "apt"])}
    if MERGER in base and can_be_merged:
        base = {match["name"] for match in _install(private, [*patterns, "apt", IS_MERGED])}
    return base


def _without(private: apt.Apt, definition: Definition) -> list[str]:
    """How apt is told of packages that must not come along; a pattern may match any number."""
    plain = {name for name in definition.excluded if "*" not in name}
    return [f"{name}-" for name in sorted(records(private, plain))] if plain else []


def _refuse_excluded(names: Iterable[str], definition: Definition) -> None:
    """Raise InputError for packages that are needed though they are excluded."""
    found = [
        f"{name} (exclude: {pattern})"
        for name in sorted(names)
        for pattern in definition.excluded
        if fnmatchcase(name, pattern)
    ]
    if found:
        listed = ", ".join(found[:MAX_SHOWN])
        raise InputError(f"excluded packages are in the base, or others need them: {listed}")


def _listed(
    text: str, known: Mapping[str, Record], base: set[str], names: set[str]
) -> list[Package]:
    return [_package(match, known, base, names) for match in _URI.finditer(text)]


def _minbase(suite: str, architecture: str) -> list[str]:
    """mmdebstrap's patterns: only the suite's own packages decide, not those of its pockets."""
    own = f"?or(?archive(^{re.escape(suite)}$),?codename(^{re.escape(suite)}$))"
    ours = f"{own},?architecture({architecture})"
    return [f"?narrow({ours},?essential)", f"?narrow({ours},?priority(required))"]


def _install(private: apt.Apt, names: Sequence[str]) -> list[re.Match[str]]:
    """What apt would install on an empty system. Raises InputError, HostError."""
    text = private.call("apt-get", "install", "--print-uris", "-q", *names)
    lines = [line for line in text.split("\n") if line.startswith("'")]
    found = [match for line in lines if (match := _URI.fullmatch(line))]
    if len(found) != len(lines):
        odd = next(line for line in lines if not _URI.fullmatch(line))
        raise HostError(f"apt has no SHA-256 for {ascii(odd)[:200]}: the mirror's index is too old")
    if not found:
        raise HostError("the mirror has no essential packages for this suite and architecture")
    return found


def _package(
    match: re.Match[str], known: Mapping[str, Record], base: set[str], names: set[str]
) -> Package:
    name = match["name"]
    record = known.get(name, Record(False, False))
    # What a definition asks for by name changes nothing in the base: it is the same for all.
    is_base = record.is_essential or record.is_required or name == "apt"
    is_asked = is_base if name in base else name in names
    return Package(
        name=name,
        version=urllib.parse.unquote(match["version"]),
        arch=match["arch"],
        url=match["url"],
        sha256=match["sha256"],
        size=int(match["size"]),
        auto=not is_asked,
        essential=record.is_essential,
        base=name in base,
    )


# --- what the indexes say of a package -----------------------------------------------------------


def records(private: apt.Apt, names: Iterable[str]) -> dict[str, Record]:
    """The packages of these names that there are; apt-cache leaves out the others."""
    asked = ["apt-cache", "show", "--no-all-versions", *sorted(names)]
    found: dict[str, Record] = {}
    # Each field that is looked at has one line, whatever else a stanza has.
    for stanza in private.run(*asked).stdout.split("\n\n"):
        pairs = (line.partition(": ") for line in stanza.split("\n"))
        fields = {name: value.strip() for name, _, value in pairs}
        if "Package" in fields:
            record = Record(fields.get("Essential") == "yes", fields.get("Priority") == "required")
            found.setdefault(fields["Package"], record)
    return found


def _refuse_unknown(private: apt.Apt, names: Sequence[str], definition: Definition) -> None:
    """Raise InputError for packages that there are not, with the names that are closest."""
    if not names:
        return
    all_names = private.run("apt-cache", "pkgnames").stdout.split()
    told = []
    for name in names:
        providers = _providers(private, name)
        near = get_close_matches(name, all_names, n=MAX_NEAR, cutoff=0.7)
        if providers:
            told.append(f"{name} is a virtual package: name one of {', '.join(providers[:5])}")
        elif near := [each for each in near if each != name]:
            told.append(f"no package {name}; the closest: {', '.join(near)}")
        else:
            told.append(f"no package {name}")
    raise InputError(f"{definition.distribution}/{definition.suite}: {'; '.join(told)}")


def _providers(private: apt.Apt, name: str) -> list[str]:
    """The packages that provide a virtual one."""
    _, _, text = private.run("apt-cache", "showpkg", name).stdout.partition("Reverse Provides:")
    return sorted({line.split()[0] for line in text.split("\n") if line.strip()})


# --- what was signed -----------------------------------------------------------------------------


def _signed(lists: Path) -> list[Path]:
    """The files whose signatures apt has verified."""
    return sorted([*lists.glob("*_InRelease"), *lists.glob("*_Release")])


def _release(path: Path, sources: Sequence[mirrors.AptSource]) -> Release:
    """Raises HostError."""
    data = path.read_bytes()
    fields: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, value.strip())
    try:
        date = email.utils.parsedate_to_datetime(fields.get("Date", "")).astimezone(UTC)
    except ValueError:
        raise HostError(f"{path.name}: its Date is no date") from None
    return Release(
        origin=fields.get("Label") or fields.get("Origin", ""),
        codename=fields.get("Codename") or fields.get("Suite", ""),
        date=date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        sha256=hashlib.sha256(data).hexdigest(),
        signers=tuple(_signers(path, sources[0].signed_by)),
    )


def _signers(path: Path, keyring: str) -> list[str]:
    """The fingerprints of the keys that signed a file and are in a keyring, as gpgv tells them.

    They are told for people; apt has verified the signature already. None without gpgv.
    """
    if shutil.which("gpgv") is None or path.name.endswith("_Release"):
        return []
    done = apt.run(["gpgv", "--status-fd", "1", "--keyring", os.path.abspath(keyring), str(path)])
    return sorted(set(re.findall(r"^\[GNUPG:\] VALIDSIG .* ([0-9A-F]{16,64})$", done.stdout, re.M)))


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _in_image(source: mirrors.AptSource, definition: Definition) -> Source:
    """What the image's own apt is told: its keyring is the distribution's, or lies in /etc."""
    keyring, _ = mirrors.KEYRINGS[definition.distribution]
    if definition.keyring is not None:
        own = Path(source.signed_by)
        suffix = ".asc" if own.read_bytes().startswith(b"-----") else ".gpg"
        keyring = f"/etc/apt/keyrings/osbuild-pika{suffix}"
    return Source(source.uri, source.suites, source.components, keyring, source.is_snapshot)
