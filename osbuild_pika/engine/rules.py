"""What is refused of what shall be built, though upstream lets it pass.

Mostly names that become paths, and patterns that upstream does not anchor. `--inspect` does not
come here: it follows upstream.
"""

import re
from collections.abc import Iterator

from osbuild_pika.engine.manifest import Json
from osbuild_pika.engine.schema import INPUT_NAME, Path
from osbuild_pika.errors import ManifestFault

MAX_EPOCH = 2**40  # seconds: 34,000 years
MAX_PARTITION = 2**16
_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]{5,128}")


def check(document: Json) -> list[ManifestFault]:
    """Check a document whose structure is sound."""
    return list(_check(document))


def _check(document: Json) -> Iterator[ManifestFault]:
    for kind, source in document.get("sources", {}).items():
        for name in source["items"]:
            if isinstance(name, str) and not is_checksum(name):
                message = f"{ascii(name)[:200]} is no checksum"
                yield ManifestFault(("sources", kind, "items"), message)
    for number, pipeline in enumerate(document.get("pipelines", [])):
        path: Path = ("pipelines", number)
        if not is_relative_path(pipeline["name"]):
            yield ManifestFault((*path, "name"), "a name is one or more words with / between them")
        if not 0 <= pipeline.get("source-epoch", 0) <= MAX_EPOCH:
            yield ManifestFault((*path, "source-epoch"), f"not between 0 and {MAX_EPOCH}")
        for index, stage in enumerate(pipeline.get("stages", [])):
            yield from _check_stage(stage, (*path, "stages", index))


def _check_stage(stage: dict[str, Json], path: Path) -> Iterator[ManifestFault]:
    for name in stage.get("inputs", {}):
        if not re.fullmatch(INPUT_NAME, name):
            message = f"{ascii(name)[:300]} is no name: a letter, then letters, digits, _ - ."
            yield ManifestFault((*path, "inputs"), message)
    for name in stage.get("devices", {}):
        if not is_file_name(name):
            yield ManifestFault((*path, "devices"), f"{ascii(name)[:300]} cannot be a file's name")
    for index, mount in enumerate(stage.get("mounts", [])):
        at = (*path, "mounts", index)
        if not is_file_name(mount["name"]):
            yield ManifestFault((*at, "name"), "it cannot be a file's name")
        target = mount.get("target", "")
        if ".." in target.split("/") or not _is_printable(target):
            yield ManifestFault((*at, "target"), "it leads up, or holds control characters")
        partition = mount.get("partition", 1)
        if not isinstance(partition, int) or not 0 <= partition <= MAX_PARTITION:
            yield ManifestFault((*at, "partition"), f"not an integer between 0 and {MAX_PARTITION}")


def is_checksum(name: str) -> bool:
    """Say whether an item of a source can be stored under this name.

    That is `sha256:` and 64 hex digits (or another algorithm), or digits alone, such as a commit.
    """
    algorithm, colon, digits = name.rpartition(":")
    if not _HEX.fullmatch(digits):
        return False
    return not colon or _HEX_DIGITS.get(algorithm) == len(digits)


def is_relative_path(name: Json) -> bool:
    """Say whether a name can be joined to a directory's without leaving it."""
    return isinstance(name, str) and all(is_file_name(part) for part in name.split("/"))


def is_file_name(name: str) -> bool:
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and _is_printable(name)
        and len(name.encode()) <= 255
    )


def _is_printable(text: str) -> bool:
    """No controls, no lone surrogates, nothing invisible; a space is fine."""
    return text.isprintable()
