"""What a definition's schema cannot say: what goes together, and what stands there twice."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from osbuild_pika.image.reading import Document, Path, shown
from osbuild_pika.inside.services import openrc, shell

_NOT_KEPT = ("/dev", "/proc", "/run", "/sys", "/tmp")  # noqa: S108 - paths in an image
_HASHES = ("$1$", "$5$", "$6$", "$2a$", "$2b$", "$y$", "$7$", "$gy$")
_FIRST_ONLY, _DECIDED = ("mirror", "keyring"), ("base", "init", "lifecycle")
SNAPSHOT = "{snapshot}"


def is_hash(password: str) -> bool:
    """Whether a password is crypt's hash of one, or is locked or none: nothing to be hashed."""
    return not password or password.startswith(("!", "*", *_HASHES))


def check(document: Document, inherited: Mapping[str, Any]) -> None:
    """Note all that is wrong with a document which has the right form. inherited: the keys that
    its parent decides; empty if it has none."""
    given = document.value
    for key in (*_FIRST_ONLY, *_DECIDED) if inherited else ():
        if key in given:
            why = f"is for {shown(given['from'])} to say, which this is made from: leave it out"
            document.fault((key,), why, is_key=True)
    _files(document, given.get("files", ()))
    _twice(document, "users", (each["name"] for each in given.get("users", ())))
    _twice(document, "groups", (each["name"] for each in given.get("groups", ())))
    for index, name in enumerate(given.get("exclude", ())):
        if name in given.get("packages", ()):
            document.fault(("exclude", index), f"{shown(name)} stands in packages, too")
    _init(document, {**given, **inherited})
    _mirrors(document, given)
    _hooks(document, given.get("hooks", {}))
    if "ready" in given:
        _ready(document, given["ready"])


def _files(document: Document, files: Iterable[Mapping[str, Any]]) -> None:
    for index, each in enumerate(files):
        path: Path = ("files", index)
        kinds = [kind for kind in ("content", "source", "link") if kind in each]
        if len(kinds) != 1:
            had = f"has {' and '.join(kinds)}" if kinds else "has nothing"
            document.fault(path, f"{had}; write one of content, source, link")
        if "link" in each and "mode" in each:
            document.fault((*path, "mode"), "a symbolic link has no mode of its own", is_key=True)
        _kept(document, (*path, "path"), each["path"])
    _twice(document, "files", (each["path"] for each in files), "path")


def _kept(document: Document, at: Path, path: str) -> None:
    top = "/" + path.split("/")[1]
    if top in _NOT_KEPT:
        document.fault(at, f"{shown(path)}: {top} is empty in an image")


def _ready(document: Document, ready: Mapping[str, Any]) -> None:
    if not {"unit", "service", "http"} & ready.keys():
        why = "needs `service` (or `unit`), `http` or both: what makes the guest ready"
        document.fault(("ready",), why)
    if {"unit", "service"} <= ready.keys():
        document.fault(("ready", "unit"), "stands beside `service`: leave one out", is_key=True)
    if not str(ready.get("within", "60s")).strip("0.smh"):
        document.fault(("ready", "within"), "no guest is ready after no time")


def _hooks(document: Document, hooks: Mapping[str, Any]) -> None:
    for name, given in hooks.items():
        listed = isinstance(given, list)
        for index, each in enumerate(given if listed else [given]):
            script, path = each, ("hooks", name, index) if listed else ("hooks", name)
            if not isinstance(each, str):
                if "interpreter" in each:
                    continue
                script = each["script"]
            words = script.partition("\n")[0].removeprefix("#!").split()
            if script.startswith("#!") and words and not words[0].startswith("/"):
                why = f"{shown(words[0])} is no path of a program in the image, such as /bin/bash"
                document.fault(path, why)


def _twice(document: Document, key: str, names: Iterable[str], name_key: str = "name") -> None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            first = f"{key}[{seen[name]}]"
            document.fault((key, index, name_key), f"{shown(name)} stands in {first} already")
        seen.setdefault(name, index)


def _init(document: Document, given: Mapping[str, Any]) -> None:
    """What needs an init, a Python or maintainer scripts has them."""
    is_bare = given.get("base") == "none"
    if is_bare and given.get("lifecycle"):
        why = "needs python3 as it is configured by its maintainer scripts: base: minbase"
        document.fault(("lifecycle",), why, is_key=True)
    init = given.get("init", "none" if is_bare else "systemd")
    if is_bare and init != "none":
        document.fault(("init",), f"{init} needs base: minbase", is_key=True)
    _services(document, given.get("services", {}), init)
    if init == "none" and "ready" in given:
        why = "is told by a service of the init: leave it out, or write init: systemd"
        document.fault(("ready",), why, is_key=True)
    elif init != "systemd" and "unit" in given.get("ready", {}):
        why = f"is systemd's, and init is {init}: write `service: NAME`"
        document.fault(("ready", "unit"), why, is_key=True)
    elif "ready" in given and not given.get("lifecycle", not is_bare):
        why = "is told by the lifecycle helper: leave it out, or write lifecycle: true"
        document.fault(("ready",), why, is_key=True)


def _services(document: Document, services: Mapping[str, Any], init: str) -> None:
    """Lists of units are systemd's; how a service says that it is ready differs."""
    if init == "none" and services:
        document.fault(("services",), "need an init: systemd, s6 or openrc", is_key=True)
        return
    for key in ("enabled", "disabled"):
        if init != "systemd" and key in services:
            why = f"lists units of systemd, and init is {init}: see `run`, or use a hook"
            document.fault(("services", key), why, is_key=True)
    for name, each in services.get("run", {}).items():
        _service(document, ("services", "run", name), each, init)
        notify, kind = each.get("notify"), {"systemd": str, "s6": int}.get(init)
        if notify is not None and (kind is None or not isinstance(notify, kind)):
            takes = {"systemd": "takes `systemd`", "s6": "takes the number of a descriptor"}
            why = f"with init {init} it {takes.get(init, 'cannot be used: leave it out')}"
            document.fault(("services", "run", name, "notify"), why)


def _service(document: Document, at: Path, service: Mapping[str, Any], init: str) -> None:
    if not service["command"][0]:
        document.fault((*at, "command", 0), "is empty: it is a program of the image")
    if "log" in service:
        _kept(document, (*at, "log"), service["log"])
    for key in service.get("env", {}):
        if init == "openrc" and openrc.is_own(key):
            document.fault((*at, "env", key), f"{key} is OpenRC's own", is_key=True)
        elif init in ("s6", "openrc") and shell.is_own(key):
            document.fault((*at, "env", key), f"{key} is the shell's own", is_key=True)


def _mirrors(document: Document, given: Mapping[str, Any]) -> None:
    mirror = given.get("mirror", ())
    entries = [(("mirror",), mirror)] if isinstance(mirror, str) else []
    if isinstance(mirror, list):
        for index, each in enumerate(mirror):
            at: Path = ("mirror", index)
            entries.append((at, each) if isinstance(each, str) else ((*at, "url"), each["url"]))  # type: ignore[arg-type]
    is_snapshot = "@" in given["from"]
    for path, url in entries:
        for problem in url_problems(url, is_snapshot):
            document.fault(path, f"{shown(url)}: {problem}")


def url_problems(url: str, is_snapshot: bool) -> list[str]:
    """What is wrong with a mirror's URL. is_snapshot: whether a snapshot is asked for."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return [str(error)]
    problems = []
    if parts.scheme not in ("http", "https") or not host:
        problems.append("only http and https are taken")
    if "@" in parts.netloc:
        problems.append("a mirror's URL has no password in it")
    if parts.query or parts.fragment:
        problems.append("a mirror's URL has no ? and no #")
    if is_snapshot and SNAPSHOT not in url:
        problems.append(f"for a snapshot it needs {SNAPSHOT} where the snapshot's time goes")
    if not is_snapshot and SNAPSHOT in url:
        problems.append(f"has {SNAPSHOT}, but `from` asks for none: write SUITE@20261101T000000Z")
    return problems
