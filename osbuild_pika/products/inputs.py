"""What the tasks of an image depend on, in digests.

Reading a definition against its schema and making its manifest takes a second; that nothing has
changed takes none of it. So what was found is kept beside the stamps, with the digest of all that
it was made of: it counts only while each file is the same, byte for byte, and so is our code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika import pipeline
from osbuild_pika.datadir import data_folder
from osbuild_pika.engine import buildroot, hostroot
from osbuild_pika.errors import InputError

MAX_BYTES = 4 * 1024 * 1024  # of what is kept
ABSENT = "-"
_found: dict[Path, dict[str, Any]] = {}  # in this process: nothing is kept before a task ran
_CODE = ("stages", "inputs", "devices", "mounts", "sources")


class Inputs(NamedTuple):
    """Of an image. parent: the path of the definition that it is made from, None if of none.

    source: digest of the definitions and locks. manifest: of the manifest's ids and of the keys of
    its stages; "" while the image is not locked. allowed: what the linter is not to mind.
    """

    name: str
    parent: str | None
    source: str
    manifest: str
    outputs: tuple[str, ...]
    allowed: tuple[str, ...]
    lifecycle: bool
    has_init: bool


def of(path: str, kept: Path) -> Inputs:
    """What a definition's tasks depend on now. path: absolute. kept: where that is remembered, if
    its directory is there. Raises InputError, HostError."""
    before = _found.get(kept) or _read(kept)
    if before and before["key"] == _key(before["files"]):
        return _inputs(before["inputs"])
    names = _files(path)
    key = _key(names)
    found = _find(path)
    if key == _key(names):  # else somebody writes one of them
        document = {"key": key, "files": names, "inputs": found._asdict()}
        _found[kept] = document
        _keep(kept, document)
    return found


def _keep(kept: Path, document: dict[str, Any]) -> None:
    """Remember, if that can be: several may at once, and who only looks may have no right to."""
    with contextlib.suppress(OSError):
        fd, new = tempfile.mkstemp(prefix=".inputs-", dir=kept.parent)
        try:
            with open(fd, "w") as file:
                json.dump(document, file)
            os.replace(new, kept)
        except BaseException:
            os.unlink(new)
            raise


def _read(kept: Path) -> dict[str, Any] | None:
    """What is remembered, None if that is nothing or damaged."""
    try:
        with open(kept, "rb") as file:
            document: Any = json.loads(file.read(MAX_BYTES))
        found = _inputs(document["inputs"])
        texts = [document["key"], *document["files"], found.name, found.parent or ""]
        is_whole = all(isinstance(each, str) and "\0" not in each for each in texts)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return document if is_whole else None


def _inputs(fields: Mapping[str, Any]) -> Inputs:
    lists = {name: tuple(fields[name]) for name in ("outputs", "allowed")}
    return Inputs(**{**fields, **lists})


def _key(names: Iterable[str]) -> str:
    known = hashlib.sha256(_code().encode())
    for name in names:
        known.update(f"{name}\0{_digest(name)}\0".encode(errors="surrogateescape"))
    return known.hexdigest()


def _digest(path: str) -> str:
    """Of a regular file; a pipe is not waited for."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ABSENT  # it may have no end
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ABSENT


@cache
def _code() -> str:
    """What stands for all that makes a manifest and its keys: our files, and the host's."""
    package = sorted(buildroot.PACKAGE.rglob("*.py"))
    folders = [buildroot.modules_directory() / name for name in _CODE]
    modules = [each for folder in folders for each in sorted(folder.glob("*"))]
    known = hashlib.sha256(hostroot.digest().encode())
    for file in (*package, *modules, *sorted(data_folder("schemas").glob("*.json"))):
        if file.is_file():
            known.update(f"{file}\0{_digest(str(file))}\0".encode())
    return known.hexdigest()


def _files(path: str) -> list[str]:
    """All files that the manifest of a definition is made of, whether they are there or not."""
    from osbuild_pika.image import definition, values

    found: list[str] = []
    for place, each in values.generations(definition.load(path), path):
        folder = os.path.dirname(place)
        named: list[str | None] = [each.keyring, *(file.source for file in each.files)]
        found += [place, pipeline.lock_path(place)]
        found += [os.path.join(folder, name) for name in named if name]
    return list(dict.fromkeys(found))


def _find(path: str) -> Inputs:
    from osbuild_pika.image import definition, values

    found = definition.load(path)
    try:
        is_locked = pipeline.lock_of(path, found) is not None
    except InputError:
        is_locked = False  # of another definition, or damaged: it is made anew
    text = pipeline.image_manifest(path, found) if is_locked else ""
    source = hashlib.sha256()
    for place, _ in values.generations(found, path):
        source.update(f"{_digest(place)} {_digest(pipeline.lock_path(place))} ".encode())
    return Inputs(
        name=found.name,
        parent=found.parent.path if found.parent else None,
        source=source.hexdigest(),
        manifest=_keys(text) if text else "",
        outputs=found.outputs,
        allowed=_allowed(text) if text else (),
        lifecycle=found.lifecycle,
        has_init=found.init != "none",
    )


def _keys(text: str) -> str:
    """A manifest's pipelines and the keys of their stages, as a digest."""
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.modules import standard
    from osbuild_pika.engine.plan import plan
    from osbuild_pika.engine.session import default_exports

    modules = standard(())
    manifest = load(text.encode(), modules)
    digests = hostroot.digests(manifest, modules.get)
    planned = plan(manifest, default_exports(manifest), digests, lambda _: False)
    ids = [str(each.pipeline.id) for each in planned.pipelines]
    keys = [str(step.key) for step in planned.steps]
    return hashlib.sha256(" ".join([*ids, *keys, *planned.exports]).encode()).hexdigest()


def _allowed(text: str) -> tuple[str, ...]:
    (rootfs, *_) = json.loads(text)["pipelines"]
    return tuple(rootfs["stages"][-1]["options"]["allow"])
