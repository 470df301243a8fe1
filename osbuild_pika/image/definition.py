"""image.yaml -> Definition, or all that is wrong with it.

The keys stand in docs/reference/image-definition.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from osbuild_pika.errors import InputError
from osbuild_pika.image import checking, reading, rules
from osbuild_pika.image.reading import DefinitionError
from osbuild_pika.image.values import (
    Definition,
    File,
    Group,
    Hook,
    Id,
    Mirror,
    Parent,
    Ready,
    Service,
    User,
)

HOOKS = ("post-packages", "post-files", "last")  # in the order in which they run
Places = Mapping[reading.Path, reading.Place]
MAX_GENERATIONS = 8  # of definitions, each made from the next
_UNITS_S = {"s": 1, "m": 60, "h": 3600}

Finder = Callable[[str], Parent]  # what `from` names -> the parent; raises InputError


def load(path: str, children: tuple[str, ...] = ()) -> Definition:
    """Read a definition, and the one that it is made from. children: the paths of those that are
    made from it. Raises InputError if there is no file, DefinitionError."""
    try:
        data = reading.read_file(path, reading.MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{ascii(path)[1:-1]}: {error.strerror}") from None

    def find(name: str) -> Parent:
        place = os.path.join(os.path.dirname(path), name)
        whole = (*children, os.path.realpath(path))
        if os.path.realpath(place) in whole:
            raise InputError(f"{reading.shown(name)} is made from this one: a circle")
        if len(whole) == MAX_GENERATIONS:
            raise InputError(f"more than {MAX_GENERATIONS} definitions, each made from the next")
        return Parent(name, place, load(place, whole))

    return parse(data, Path(path).name, find)


def parse(data: bytes, name: str, find: Finder | None = None) -> Definition:
    """The definition that a file of this name holds. Raises DefinitionError with all faults."""
    document = reading.parse(data, name)
    if document.value is None:
        document.value = {}
    return of_document(document, name, find)


def of_document(document: reading.Document, name: str, find: Finder | None = None) -> Definition:
    """The definition that a document is. name: of its file. find: None if there is no place
    where another definition could lie.

    Raises DefinitionError, also with the faults that stand in the document already.
    """
    parent = None
    if checking.check(document, "image"):
        parent = _parent(document, find)
        rules.check(document, _inherited(parent.definition) if parent else {})
    if document.faults:
        raise DefinitionError(name, document.faults)
    given = {**_inherited(parent.definition), **document.value} if parent else document.value
    return _made(given, document.places, parent)


def _parent(document: reading.Document, find: Finder | None) -> Parent | None:
    """The definition that `from` names; what is wrong with that is noted."""
    name = document.value["from"]
    if not name.endswith((".yaml", ".yml")):
        return None
    if find is None:
        document.fault(("from",), f"{reading.shown(name)}: only a file is made from another file")
        return None
    try:
        return find(name)
    except DefinitionError:
        raise  # it has the places in its own file
    except InputError as error:
        document.fault(("from",), str(error))
        return None


def _inherited(parent: Definition) -> dict[str, Any]:
    """What an image has as its parent has it, as keys of a definition."""
    return {"base": parent.base, "init": parent.init, "lifecycle": parent.lifecycle, "locale": None}


def _made(given: Mapping[str, Any], places: Places, parent: Parent | None) -> Definition:
    """The value of a document without a fault."""
    above = parent.definition if parent else None
    target, _, snapshot = given["from"].partition("@")
    distribution, _, suite = target.partition("/")
    is_whole = given.get("base", "minbase") == "minbase"
    services = given.get("services", {})
    return Definition(
        name=given["name"],
        distribution=above.distribution if above else distribution,
        suite=above.suite if above else suite,
        snapshot=above.snapshot if above else snapshot or None,
        base=given.get("base", "minbase"),
        packages=tuple(given.get("packages", ())),
        excluded=(*(above.excluded if above else ()), *given.get("exclude", ())),
        files=tuple(
            _file(each, places.get(("files", index, "source"), (1, 1)))
            for index, each in enumerate(given.get("files", ()))
        ),
        users=tuple(map(_user, given.get("users", ()))),
        groups=tuple(map(_group, given.get("groups", ()))),
        hooks=_hooks(given.get("hooks", {})),
        ready=_ready(given["ready"]) if "ready" in given else above.ready if above else None,
        lifecycle=given.get("lifecycle", is_whole),
        init=given.get("init", "systemd" if is_whole else "none"),
        outputs=tuple(given.get("outputs", ("incus-unified",))),
        compression=given.get("compression", "zstd"),
        properties={**(above.properties if above else {}), **given.get("properties", {})},
        hostname=given.get("hostname"),
        locale=given.get("locale", "C.UTF-8" if is_whole else None),
        timezone=given.get("timezone"),
        enabled=tuple(services.get("enabled", ())),
        disabled=tuple(services.get("disabled", ())),
        services=tuple(_service(*each) for each in sorted(services.get("run", {}).items())),
        mirrors=_mirrors(given.get("mirror", ())),
        keyring=given.get("keyring"),
        allowed=(*(above.allowed if above else ()), *given.get("lint", {}).get("allow", ())),
        parent=parent,
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
    unit, service, http = (given.get(name) for name in ("unit", "service", "http"))
    return Ready(unit, service, http, seconds(given.get("within", "60s")))


def _service(name: str, given: Mapping[str, Any]) -> Service:
    return Service(
        name=name,
        command=tuple(given["command"]),
        env=dict(sorted(given.get("env", {}).items())),
        user=given.get("user"),
        log=given.get("log"),
        notify=given.get("notify"),
    )


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
