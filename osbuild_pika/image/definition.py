"""image.yaml -> Definition, or all that is wrong with it.

The keys stand in docs/reference/image-definition.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osbuild_pika.errors import InputError
from osbuild_pika.image import checking, reading, rules
from osbuild_pika.image.reading import DefinitionError

HOOKS = ("post-packages", "post-files", "last")  # in the order in which they run
Id = str | int  # of a user or a group: its name or number
Places = Mapping[reading.Path, reading.Place]
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


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
    """When a guest is ready: the unit is active, the URL answers; failed after within_s."""

    unit: str | None
    http: str | None
    within_s: int


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


def load(path: str) -> Definition:
    """Read a definition. Raises InputError if there is no file, DefinitionError."""
    try:
        data = reading.read_file(path, reading.MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{ascii(path)[1:-1]}: {error.strerror}") from None
    return parse(data, Path(path).name)


def parse(data: bytes, name: str) -> Definition:
    """The definition that a file of this name holds. Raises DefinitionError with all faults."""
    document = reading.parse(data, name)
    if document.value is None:
        document.value = {}
    return of_document(document, name)


def of_document(document: reading.Document, name: str) -> Definition:
    """The definition that a document is. name: of its file. Raises DefinitionError, also with the
    faults that stand in the document already."""
    if checking.check(document, "image"):
        rules.check(document)
    if document.faults:
        raise DefinitionError(name, document.faults)
    return _made(document.value, document.places)


def _made(given: Mapping[str, Any], places: Places) -> Definition:
    """The value of a document without a fault."""
    target, _, snapshot = given["from"].partition("@")
    distribution, _, suite = target.partition("/")
    is_whole = given.get("base", "minbase") == "minbase"
    services = given.get("services", {})
    return Definition(
        name=given["name"],
        distribution=distribution,
        suite=suite,
        snapshot=snapshot or None,
        base=given.get("base", "minbase"),
        packages=tuple(given.get("packages", ())),
        excluded=tuple(given.get("exclude", ())),
        files=tuple(
            _file(each, places.get(("files", index, "source"), (1, 1)))
            for index, each in enumerate(given.get("files", ()))
        ),
        users=tuple(map(_user, given.get("users", ()))),
        groups=tuple(map(_group, given.get("groups", ()))),
        hooks=_hooks(given.get("hooks", {})),
        ready=_ready(given["ready"]) if "ready" in given else None,
        lifecycle=given.get("lifecycle", is_whole),
        init=given.get("init", "systemd" if is_whole else "none"),
        outputs=tuple(given.get("outputs", ("incus-unified",))),
        compression=given.get("compression", "zstd"),
        properties=dict(given.get("properties", {})),
        hostname=given.get("hostname"),
        locale=given.get("locale", "C.UTF-8" if is_whole else None),
        timezone=given.get("timezone"),
        enabled=tuple(services.get("enabled", ())),
        disabled=tuple(services.get("disabled", ())),
        mirrors=_mirrors(given.get("mirror", ())),
        keyring=given.get("keyring"),
        allowed=tuple(given.get("lint", {}).get("allow", ())),
    )


def _file(given: Mapping[str, Any], place: reading.Place) -> File:
    return File(
        path=given["path"],
        content=given.get("content"),
        source=given.get("source"),
        link=given.get("link"),
        mode=given.get("mode", "0644").zfill(4),
        user=_id(given.get("user", "root")),
        group=_id(given.get("group", "root")),
        place=place,
    )


def _id(given: Any) -> Id:
    return given if isinstance(given, str) else int(given)  # 1.0 is a whole number, too


def _user(given: Mapping[str, Any]) -> User:
    return User(
        name=given["name"],
        password=given.get("password"),
        ssh_keys=tuple(given.get("ssh_keys", ())),
        description=given.get("description"),
        uid=int(given["uid"]) if "uid" in given else None,
        groups=tuple(given.get("groups", ())),
        home=given.get("home"),
        shell=given.get("shell"),
        gid=int(given["gid"]) if "gid" in given else None,
    )


def _group(given: Mapping[str, Any]) -> Group:
    return Group(given["name"], int(given["gid"]) if "gid" in given else None)


def _hooks(given: Mapping[str, Any]) -> tuple[Hook, ...]:
    """In the order in which they run."""
    found = []
    for name in HOOKS:
        entry = given.get(name, ())
        entries = entry if isinstance(entry, list) else [entry] if entry else []
        found += [_hook(name, each) for each in entries]
    return tuple(found)


def _hook(name: str, given: Any) -> Hook:
    whole: Mapping[str, Any] = {"script": given} if isinstance(given, str) else given
    script = whole["script"]
    interpreter = whole.get("interpreter") or _interpreter(script)
    return Hook(name, script, interpreter, whole.get("log"), whole.get("may_fail", False))


def _interpreter(script: str) -> str:
    """What a script's first line asks for, with its arguments; else the shell."""
    first = script.partition("\n")[0]
    words = first.removeprefix("#!").split()
    return " ".join(words) if first.startswith("#!") and words else "/bin/sh"


def _ready(given: Mapping[str, Any]) -> Ready:
    return Ready(given.get("unit"), given.get("http"), seconds(given.get("within", "60s")))


def seconds(given: Any) -> int:
    """A time such as 90, "90", "90s", "10m" or "1h", in seconds."""
    text = str(int(given)) if not isinstance(given, str) else given
    unit = _UNITS_S.get(text[-1])
    return int(text[:-1]) * unit if unit else int(text)


def _mirrors(given: Any) -> tuple[Mirror, ...]:
    entries = [given] if isinstance(given, str) else given
    return tuple(Mirror(each) if isinstance(each, str) else _mirror(each) for each in entries)


def _mirror(given: Mapping[str, Any]) -> Mirror:
    suites, components = given.get("suites"), given.get("components")
    return Mirror(
        given["url"],
        None if suites is None else tuple(suites),
        None if components is None else tuple(components),
    )
