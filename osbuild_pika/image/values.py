"""What an image is made of: values that nothing changes. definition.py reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from osbuild_pika.image import reading

Id = str | int  # of a user or a group: its name or number


@dataclass(frozen=True)
class File:
    """One of content, source (a path below the definition's directory) and link is not None.

    place: line and column of the path of its source.
    """

    path: str
    content: str | None
    source: str | None
    link: str | None
    mode: str
    user: Id
    group: Id
    place: reading.Place = field(default=(1, 1), compare=False, repr=False)


@dataclass(frozen=True)
class User:
    """password: in clear, a hash, "" (none), "!" or "*" (locked); None: nothing is said of it."""

    name: str
    password: str | None = field(repr=False)
    ssh_keys: tuple[str, ...]
    description: str | None
    uid: int | None
    groups: tuple[str, ...]
    home: str | None
    shell: str | None
    gid: int | None = None


@dataclass(frozen=True)
class Group:
    """gid: None if any will do, and the group may be there already."""

    name: str
    gid: int | None


@dataclass(frozen=True)
class Hook:
    """interpreter: with its arguments. log: a path in the image that gets what is printed.

    may_fail: whether the build goes on if it fails.
    """

    name: str
    script: str
    interpreter: str
    log: str | None = None
    may_fail: bool = False


@dataclass(frozen=True)
class Ready:
    """When a guest is ready: the unit, or service, is active, the URL answers; failed after
    within_s."""

    unit: str | None
    service: str | None
    http: str | None
    within_s: int


@dataclass(frozen=True)
class Service:
    """A program that starts at each boot. notify: how it says that it is ready, "systemd" or the
    number of a descriptor, for s6. log: a directory."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None
    log: str | None
    notify: str | int | None


@dataclass(frozen=True)
class Mirror:
    """suites, components: None for the distribution's own."""

    url: str
    suites: tuple[str, ...] | None = None
    components: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Definition:
    """What an image is made of. snapshot: such as 20261101T000000Z.

    excluded: packages that must not come along, by name or by a pattern such as *-doc.
    parent: the definition whose tree this one adds to. packages, groups, users, files, hooks,
    settings and services are what is added; mirrors and keyring are the first generation's alone;
    all else holds for the image.
    """

    name: str
    distribution: str
    suite: str
    snapshot: str | None
    base: str
    packages: tuple[str, ...]
    files: tuple[File, ...]
    users: tuple[User, ...]
    hooks: tuple[Hook, ...]
    ready: Ready | None
    lifecycle: bool
    init: str
    outputs: tuple[str, ...]
    compression: str
    properties: Mapping[str, str]
    hostname: str | None
    locale: str | None
    timezone: str | None
    enabled: tuple[str, ...]
    disabled: tuple[str, ...]
    mirrors: tuple[Mirror, ...]
    keyring: str | None
    allowed: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    services: tuple[Service, ...] = ()
    parent: Parent | None = None


@dataclass(frozen=True)
class Parent:
    """The definition that another one is made from. name: as `from` has it. path: of its file."""

    name: str
    path: str
    definition: Definition


def generations(definition: Definition, path: str) -> list[tuple[str, Definition]]:
    """A definition and all that it is made from, with the paths of their files: the first
    generation, which is made from a distribution, comes first."""
    parent = definition.parent
    before = generations(parent.definition, parent.path) if parent else []
    return [*before, (path, definition)]
