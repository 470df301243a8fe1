"""(Definition, Lock, Local) -> manifest, pure: the same values give the same bytes.

Nothing of this machine and no time is in it. The base is a stage of its own, which does not change
with the packages, and what changes most often comes last: so most of a tree is in the store. What
is made from another definition begins with that one's stages, and finds their trees there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from osbuild_pika.errors import InputError
from osbuild_pika.image import outputs
from osbuild_pika.image.local import Local
from osbuild_pika.image.lock import Lock, Package
from osbuild_pika.image.values import Definition, File, User

Json = dict[str, Any]


class Level(NamedTuple):
    """A definition with what else is known of it; the lock must answer it (lock.check)."""

    definition: Definition
    lock: Lock
    local: Local


def make(levels: Sequence[Level]) -> Json:
    """The manifest of the last of some definitions, each of which is made from the one before.

    Raises InputError.
    """
    (first, *_), definition, lock = levels, levels[-1].definition, levels[-1].lock
    keyring = first.local.keyring
    if keyring is not None and checksum(keyring) != f"sha256:{first.lock.keyring_sha256}":
        raise InputError("the keyring is not the lock's any more: osbuild-pika lock --update")
    stages = [
        *(stage for level in levels for stage in _content(level)),
        _guest(definition),
        *(stage for level in levels for stage in _hooks(level.definition, "last")),
        {"type": "org.osbuild-pika.clean", "options": {}},
        {
            "type": "org.osbuild-pika.lint",
            "options": {"type": "container", "allow": _allowed(levels)},
        },
    ]
    # A tree that generations share has one time.
    pipelines = [
        (outputs.ROOTFS, first.lock.source_date_epoch, stages),
        (outputs.METADATA, lock.source_date_epoch, [outputs.metadata(definition, lock)]),
        *((e, lock.source_date_epoch, [outputs.output(definition, e)]) for e in definition.outputs),
    ]
    return {
        "version": "2",
        "metadata": {
            "generators": [{"name": "osbuild-pika"}],
            "exports": [{"name": each} for each in definition.outputs],
        },
        "sources": _sources(levels),
        "pipelines": [
            {"name": name, "source-epoch": epoch, "stages": each} for name, epoch, each in pipelines
        ],
    }


def _content(level: Level) -> Iterator[Json]:
    """The stages of what a definition adds to a tree."""
    definition, lock, local = level
    yield from _packages(definition, lock, local)
    yield from _hooks(definition, "post-packages")
    yield from _groups(definition)
    yield from _users(definition, local)  # before the files that are theirs
    yield from _files(definition, local)
    yield from _settings(definition)
    yield from _services(definition)
    yield from _hooks(definition, "post-files")


def _allowed(levels: Sequence[Level]) -> list[str]:
    """What the linter is not to mind: what is told, and what of root is asked for anyway."""
    users = [user for level in levels for user in level.definition.users]
    root = [each for each in users if each.name == "root"]
    asked = {
        "root-password": any(each.password is not None for each in root),
        "root-keys": any(each.ssh_keys for each in root),
    }
    told = levels[-1].definition.allowed
    return sorted({*told, *(name for name, is_asked in asked.items() if is_asked)})


def checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _sources(levels: Sequence[Level]) -> Json:
    contents = {checksum(data): data for level in levels for data in _contents(level)}
    locked = {package.sha256: package for level in levels for package in level.lock.packages}
    packages = [locked[name] for name in sorted(locked)]
    found: Json = {
        "org.osbuild.curl": {
            "items": {f"sha256:{each.sha256}": {"url": each.url} for each in packages}
        }
    }
    if contents:
        items = {
            name: {"encoding": "base64", "data": base64.b64encode(data).decode()}
            for name, data in sorted(contents.items())
        }
        found["org.osbuild.inline"] = {"items": items}
    return found if packages else {k: v for k, v in found.items() if k != "org.osbuild.curl"}


def _inputs(kind: str, checksums: Iterable[str]) -> Json:
    """The stage's input of files by checksum, each once."""
    references = list(dict.fromkeys(checksums))
    files = {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references}
    return {kind: files}


# --- packages ------------------------------------------------------------------------------------


def _packages(definition: Definition, lock: Lock, local: Local) -> Iterator[Json]:
    if definition.base == "none":
        if lock.packages:
            yield _deb("extract", lock, lock.packages)
        return
    if definition.parent is None:
        yield _deb("bootstrap", lock, [each for each in lock.packages if each.base])
    rest = [each for each in lock.packages if not each.base]
    if rest:
        yield _deb("install", lock, rest)
    if definition.parent is not None:
        return
    if local.keyring is not None:
        name = checksum(local.keyring)
        key = {"path": lock.sources[0].signed_by, "checksum": name, "mode": "0644"}
        options = {"files": [{**key, "user": "root", "group": "root"}]}
        inputs = _inputs("files", [name])
        yield {"type": "org.osbuild-pika.files", "options": options, "inputs": inputs}
    sources = [_stanza(each) for each in lock.sources]
    yield {"type": "org.osbuild-pika.deb.config", "options": {"sources": sources}}


def _deb(mode: str, lock: Lock, packages: Sequence[Package]) -> Json:
    entries = [
        {
            "name": each.name,
            "version": each.version,
            "arch": each.arch,
            "checksum": f"sha256:{each.sha256}",
            "auto": each.auto,
        }
        for each in packages
    ]
    return {
        "type": "org.osbuild-pika.deb",
        "options": {"mode": mode, "architecture": lock.architecture, "packages": entries},
        "inputs": _inputs("packages", (f"sha256:{each.sha256}" for each in packages)),
    }


def _stanza(source: Any) -> Json:
    stanza = {
        "types": "deb",
        "uris": source.uri,
        "suites": list(source.suites),
        "components": list(source.components),
        "signed-by": source.signed_by,
    }
    return {**stanza, "check-valid-until": "no"} if source.is_snapshot else stanza


# --- what else is in the tree --------------------------------------------------------------------


def _hooks(definition: Definition, name: str) -> Iterator[Json]:
    for number, hook in enumerate((each for each in definition.hooks if each.name == name), 1):
        called = name if number == 1 else f"{name}.{number}"
        options: Json = {"name": called, "script": hook.script, "interpreter": hook.interpreter}
        if hook.log is not None:
            options["log"] = hook.log
        if hook.may_fail:
            options["may_fail"] = True
        yield {"type": "org.osbuild-pika.hook", "options": options}


def _contents(level: Level) -> Iterator[bytes]:
    """What is a source of its own: in a stage's options it might be anything."""
    definition, _, local = level
    for file in definition.files:
        if file.source is not None:
            yield local.contents[file.source]
    if local.keyring is not None and definition.base != "none":
        yield local.keyring


def _files(definition: Definition, local: Local) -> Iterator[Json]:
    entries = [_file(each, local) for each in definition.files]
    if not entries:
        return
    stage: Json = {"type": "org.osbuild-pika.files", "options": {"files": entries}}
    checksums = [each["checksum"] for each in entries if "checksum" in each]
    yield {**stage, "inputs": _inputs("files", checksums)} if checksums else stage


def _file(file: File, local: Local) -> Json:
    owner = {"user": str(file.user), "group": str(file.group)}
    if file.link is not None:
        return {"path": file.path, "link": file.link, **owner}
    if file.source is not None:
        content = {"checksum": checksum(local.contents[file.source])}
    else:
        content = {"content": file.content or ""}
    return {"path": file.path, **content, "mode": file.mode, **owner}


def _settings(definition: Definition) -> Iterator[Json]:
    if definition.hostname:
        yield {"type": "org.osbuild.hostname", "options": {"hostname": definition.hostname}}
    if definition.locale:
        yield {"type": "org.osbuild.locale", "options": {"language": definition.locale}}
    if definition.timezone:
        yield {"type": "org.osbuild.timezone", "options": {"zone": definition.timezone}}
    units = {"enabled_services": definition.enabled, "disabled_services": definition.disabled}
    options = {name: list(each) for name, each in units.items() if each}
    if options:
        yield {"type": "org.osbuild.systemd", "options": options}


def _services(definition: Definition) -> Iterator[Json]:
    for each in definition.services:
        given = {**asdict(each), "command": list(each.command), "env": dict(each.env)}
        options = {k: v for k, v in given.items() if v not in (None, {})}
        yield {
            "type": "org.osbuild-pika.service",
            "options": {**options, "init": definition.init},
        }


def _groups(definition: Definition) -> Iterator[Json]:
    """A group that is given an id is new; groupadd takes another id if it may be there already."""
    plain: Json = {each.name: {} for each in definition.groups if each.gid is None}
    if plain:
        yield {"type": "org.osbuild.groups", "options": {"groups": plain, "force": True}}
    numbered = {each.name: {"gid": each.gid} for each in definition.groups if each.gid is not None}
    if numbered:
        yield {"type": "org.osbuild.groups", "options": {"groups": numbered}}


def _users(definition: Definition, local: Local) -> Iterator[Json]:
    if definition.users:
        users = {each.name: _user(each, local) for each in definition.users}
        yield {"type": "org.osbuild.users", "options": {"users": users}}


def _user(user: User, local: Local) -> Json:
    given = {
        "uid": user.uid,
        "gid": user.gid,
        "groups": list(user.groups) or None,
        "description": user.description,
        "home": user.home,
        "shell": user.shell,
        "password": local.hashes.get(user.name),
        "keys": list(user.ssh_keys) or None,
    }
    return {name: each for name, each in given.items() if each is not None}


def _guest(definition: Definition) -> Json:
    options: Json = {"init": definition.init, "lifecycle": definition.lifecycle}
    if definition.init != "none":
        options["network"] = "dhcp"
    if definition.ready:
        options["ready"] = {k: v for k, v in asdict(definition.ready).items() if v is not None}
    return {"type": "org.osbuild-pika.guest", "options": options}
