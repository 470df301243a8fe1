"""image.lock.json: which packages exactly, and whether that still answers a definition.

One line a package, sorted by name: a change of a package is a change of a line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from osbuild_pika.errors import InputError
from osbuild_pika.image import checking, reading
from osbuild_pika.image.values import Definition

VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
_NAMES = {"parent": "the lock of what it is made from"}
_DEBIAN_UTC = ("UTC", "Etc/UTC")  # what an image has without tzdata
_PLAIN_LOCALES = ("C", "POSIX", "C.UTF-8")


@dataclass(frozen=True)
class Package:
    """auto: only there because another needs it. base: in the base system alone, too."""

    name: str
    version: str
    arch: str
    url: str
    sha256: str
    size: int
    auto: bool
    essential: bool
    base: bool


@dataclass(frozen=True)
class Source:
    """What the image's own apt is to ask. signed_by: a path in the image."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str
    is_snapshot: bool


@dataclass(frozen=True)
class Release:
    """A signed index. signers: fingerprints of keys; date: RFC 3339."""

    origin: str
    codename: str
    date: str
    sha256: str
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """request: what of the definition it answers. source_date_epoch: the newest index's date.
    packages: what is installed, without what the definition's parent has.

    keyring_sha256: of the definition's own keyring, None if it has none.
    """

    request: Mapping[str, Any]
    distribution: str
    suite: str
    architecture: str
    source_date_epoch: int
    keyring_sha256: str | None
    sources: tuple[Source, ...]
    releases: tuple[Release, ...]
    packages: tuple[Package, ...]


def request(definition: Definition, below: Lock | None = None) -> dict[str, Any]:
    """What of a definition decides which packages there are, as JSON has it. below: the lock of
    its parent, if it has one."""
    if definition.parent and below:
        own = {"from": definition.parent.name, "parent": identity(below)}
        return {**own, **_packages(definition)}
    return {
        "from": "@".join(
            filter(None, (f"{definition.distribution}/{definition.suite}", definition.snapshot))
        ),
        "base": definition.base,
        "init": definition.init,
        "mirror": [json.loads(json.dumps(dataclasses.asdict(each))) for each in definition.mirrors],
        "keyring": definition.keyring,
        **_packages(definition),
    }


def _packages(definition: Definition) -> dict[str, Any]:
    excluded = {"exclude": sorted(definition.excluded)} if definition.excluded else {}
    return {"packages": sorted(wanted(definition)), **excluded}


def identity(lock: Lock) -> str:
    """What a lock says of packages, as a digest: two that are the same (is_same) have the same."""
    text = encode(dataclasses.replace(lock, source_date_epoch=0, releases=()))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def wanted(definition: Definition) -> set[str]:
    """The packages that are asked for by name, with those that other keys need.

    What an init needs depends on the suite: debian.py adds it.
    """
    names = set(definition.packages)
    if definition.base == "none":
        return names
    if definition.lifecycle:
        names.add("python3")
    if definition.timezone and definition.timezone not in _DEBIAN_UTC:
        names.add("tzdata")
    if definition.locale and definition.locale not in _PLAIN_LOCALES:
        names.add("locales")
    return names


def place_of(path: str) -> str:
    """Where the lock of the definition at `path` lies: image.yaml has image.lock.json."""
    return str(Path(path).with_suffix(".lock.json"))


def check(lock: Lock, definition: Definition, path: str, below: Lock | None = None) -> None:
    """Raise InputError if a lock does not answer a definition. path: the lock's. below: the lock
    of the definition's parent."""
    have, want = lock.request, request(definition, below)
    for key in dict.fromkeys([*want, *have]):
        if have.get(key) == want.get(key):
            continue
        what = (
            _difference(have[key], want[key])
            if key == "packages"
            else f"{_NAMES.get(key, key)} is another"
        )
        name = Path(path).name
        raise InputError(f"{name} is not of this definition any more ({what}): osbuild-pika lock")


def _difference(have: list[str], want: list[str]) -> str:
    added, gone = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    parts = (
        f"without {', '.join(added)}" if added else "",
        f"with {', '.join(gone)}" if gone else "",
    )
    return "it is " + " and ".join(filter(None, parts))


def is_same(old: Lock, new: Lock) -> bool:
    """Whether two locks give the same image: indexes that were only signed again do not count."""
    return dataclasses.replace(
        new, source_date_epoch=old.source_date_epoch, releases=old.releases
    ) == dataclasses.replace(old)


def changes(old: Lock, new: Lock) -> list[str]:
    """What a new lock changes: "+ name version", "- name version", "name old -> new"."""
    before = {each.name: each.version for each in old.packages}
    after = {each.name: each.version for each in new.packages}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        had, has = before.get(name), after.get(name)
        if had is None:
            lines.append(f"+ {name} {has}")
        elif has is None:
            lines.append(f"- {name} {had}")
        elif had != has:
            lines.append(f"  {name} {had} -> {has}")
    return lines


def encode(lock: Lock) -> str:
    """The text of a lock's file."""
    document = {"version": VERSION, **dataclasses.asdict(lock)}
    packages = document.pop("packages")
    head = json.dumps(document, indent=2).removesuffix("\n}")
    rows = ",\n".join(f"    {json.dumps(each)}" for each in packages)
    return f'{head},\n  "packages": [\n{rows}\n  ]\n}}\n'


def read(path: str) -> Lock | None:
    """The lock at a path, None if there is none. Raises InputError."""
    try:
        data = reading.read_file(path, MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    return decode(data, Path(path).name)


@lru_cache(maxsize=2)
def decode(data: bytes, name: str) -> Lock:
    """The lock that a file of this name holds. Raises InputError.

    A verb reads its lock more than once; of the same bytes the check is made once.
    """
    fix = "make it again: osbuild-pika lock"
    try:
        document: Any = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        raise InputError(f"{name} is no JSON; {fix}") from None
    for fault in checking.violations(document, "lock"):
        raise InputError(f"{name}: {fault}; {fix}")
    return Lock(
        request=document["request"],
        distribution=document["distribution"],
        suite=document["suite"],
        architecture=document["architecture"],
        source_date_epoch=document["source_date_epoch"],
        keyring_sha256=document["keyring_sha256"],
        sources=tuple(_frozen(Source, each) for each in document["sources"]),
        releases=tuple(_frozen(Release, each) for each in document["releases"]),
        packages=tuple(Package(**each) for each in document["packages"]),
    )


def _frozen(kind: Any, given: Mapping[str, Any]) -> Any:
    """A value of a class, with tuples for lists."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def write(lock: Lock, path: str) -> None:
    """Put a lock in its place in one step. Raises InputError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        Path(temporary).write_text(encode(lock))
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{ascii(path)[1:-1]}: {error.strerror}") from None
