"""Where a distribution's packages come from, and what signs them.

The definition's `mirror`, else OSBUILD_PIKA_MIRROR, else what apt on this machine is set up with:
that is asked, never changed. No mirror's name stands in the code.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.image.reading import shown
from osbuild_pika.image.rules import SNAPSHOT, url_problems
from osbuild_pika.image.values import Definition, Mirror

ENVIRONMENT = "OSBUILD_PIKA_MIRROR"
KEYRINGS = {  # file, and the package that holds it
    "debian": ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    "ubuntu": (
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        "ubuntu-keyring (in Debian ubuntu-archive-keyring)",
    ),
}
COMPONENTS = {"debian": ("main",), "ubuntu": ("main", "universe")}
_CHECK_AGE = "Acquire::Check-Valid-Until"
_POCKETS = ("", "-updates", "-security")
_ROLLING = ("sid", "unstable", "experimental")  # they have no pockets
_FIELDS = ("REPO_URI", "RELEASE", "CODENAME", "SUITE", "ORIGIN", "COMPONENT", "CREATED_BY")


@dataclass(frozen=True)
class AptSource:
    """A mirror with suites and components. signed_by: a keyring's path on this machine.

    is_any_age: an index is not refused for its age.
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str
    is_snapshot: bool = False
    is_any_age: bool = False


class Target(NamedTuple):
    """An index that apt on this machine knows. "" is what it does not know (yet)."""

    uri: str
    release: str
    codename: str
    suite: str
    origin: str
    component: str


def choose(definition: Definition, path: str, environment: Mapping[str, str]) -> list[AptSource]:
    """The sources of a definition's packages, at least one. path: the definition's.

    Raises InputError, HostError.
    """
    keyring = _keyring(definition, path)
    mirrors = definition.mirrors or _of_environment(definition, environment)
    if mirrors:
        return [_source(each, definition, keyring) for each in mirrors]
    if definition.snapshot:
        raise InputError(
            f"{definition.suite}@{definition.snapshot}: which service has snapshots? Give its URL "
            f"with {SNAPSHOT} in it as `mirror:` in the definition or as {ENVIRONMENT}"
        )
    found = of_host(host_targets(), definition.distribution, definition.suite)
    if not found:
        raise HostError(
            f"no mirror for {definition.distribution}/{definition.suite}: write `mirror: URL` in "
            f"the definition, set {ENVIRONMENT}, or let apt on this machine have it as a source"
        )
    is_any_age = host_takes_any_age()
    return [
        AptSource(uri, suites, parts, keyring, is_any_age=is_any_age)
        for uri, suites, parts in found
    ]


def _keyring(definition: Definition, path: str) -> str:
    """The keyring that must have signed. Raises InputError, HostError if it is not there."""
    if definition.keyring is not None:
        own = os.path.abspath(Path(path).parent / definition.keyring)
        if not os.path.isfile(own):
            raise InputError(f"keyring {shown(definition.keyring)}: there is no such file")
        return own
    name, package = KEYRINGS[definition.distribution]
    if not os.path.isfile(name):
        raise HostError(f"{name} is not there: install the package {package}, or give a `keyring:`")
    return name


def _of_environment(definition: Definition, environment: Mapping[str, str]) -> tuple[Mirror, ...]:
    """The mirrors that the environment names, with blanks between them. Raises InputError."""
    urls = environment.get(ENVIRONMENT, "").split()
    for url in urls:
        for problem in url_problems(url, definition.snapshot is not None):
            raise InputError(f"{ENVIRONMENT}: {shown(url)}: {problem}")
    return tuple(map(Mirror, urls))


def _source(mirror: Mirror, definition: Definition, keyring: str) -> AptSource:
    return AptSource(
        mirror.url.replace(SNAPSHOT, definition.snapshot or ""),
        mirror.suites or (definition.suite,),
        mirror.components or COMPONENTS[definition.distribution],
        keyring,
        is_snapshot=definition.snapshot is not None,
        is_any_age=definition.snapshot is not None,  # it was out of date soon after it was made
    )


def host_targets() -> list[Target]:
    """What apt on this machine is set up with; nothing where there is no apt."""
    form = "\t".join(f"$({name})" for name in _FIELDS)
    found = []
    for line in _asked("apt-get", "indextargets", "--format", form).split("\n"):
        # What apt does not know it leaves as it was asked.
        fields = ["" if each.startswith("$(") else each for each in line.split("\t")]
        if len(fields) == len(_FIELDS) and fields[-1] == "Packages":
            found.append(Target(*fields[:-1]))
    return found


def host_takes_any_age() -> bool:
    """Whether apt on this machine was told that its mirrors' indexes may be out of date."""
    return bool(re.search(r'"(false|no|off|0)"', _asked("apt-config", "dump", _CHECK_AGE)))


def _asked(*words: str) -> str:
    """What a program of this machine's apt prints; nothing where there is no apt."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return ""
    return done.stdout


def of_host(
    targets: Iterable[Target], distribution: str, suite: str
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """What of a machine's sources serves a suite: (URI, suites, components), in apt's order.

    A machine that has another suite of the distribution has its mirror, and a mirror has all
    suites: then its suites' names are changed into the wanted one's.
    """
    known = [each for each in targets if each.uri.startswith(("http://", "https://"))]
    ours = [each for each in known if each.origin.lower() == distribution]
    if not any(each.origin for each in known):
        ours = known  # no list was got yet: names are all there is to go by
    present = suite if _pockets(ours, suite) else _main_suite(ours)
    if not present:
        return []
    found: dict[str, tuple[list[str], list[str]]] = {}
    for target, pocket in _pockets(ours, present):
        if pocket and suite in _ROLLING:
            continue
        suites, components = found.setdefault(target.uri, ([], []))
        suites += [suite + pocket] if suite + pocket not in suites else []
        components += [target.component] if target.component not in components else []
    return [(uri, tuple(suites), tuple(parts)) for uri, (suites, parts) in found.items()]


def _pockets(targets: Iterable[Target], suite: str) -> list[tuple[Target, str]]:
    """The targets of a suite, each with what its name adds to the suite's."""
    return [
        (target, pocket)
        for target in targets
        for pocket in _POCKETS
        if suite + pocket in (target.release, target.codename, target.suite)
    ]


def _main_suite(targets: Iterable[Target]) -> str:
    """The first suite that is no pocket of another; "" if there is none and for what we guess."""
    return next((each.release for each in targets if each.origin and "-" not in each.release), "")
