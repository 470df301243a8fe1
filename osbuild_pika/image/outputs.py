"""(Definition, Lock) -> the stages that make an image's files of its tree, pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from osbuild_pika.errors import InputError
from osbuild_pika.image.debian import ARCHITECTURES
from osbuild_pika.image.lock import Lock
from osbuild_pika.image.values import Definition

Json = dict[str, Any]
ROOTFS, METADATA = "rootfs", "metadata"  # pipelines
_LEVELS: dict[str, Json] = {
    "zstd": {"method": "zstd", "level": 9},
    "zstd-3": {"method": "zstd", "level": 3},
    "xz": {"method": "xz"},
}
_SUFFIXES = {"zstd": "zst", "xz": "xz"}


def metadata(definition: Definition, lock: Lock) -> Json:
    """What Incus is told of an image; it has a time only in the form of the packages' indexes."""
    names = {debian: name for name, debian in ARCHITECTURES.items()}
    if lock.architecture not in names:
        raise InputError(f"the lock is for {lock.architecture}, which Incus is not told of")
    at = datetime.fromtimestamp(lock.source_date_epoch, UTC)
    system = lock.distribution.capitalize()
    properties = {
        "architecture": lock.architecture,
        "description": f"{system} {lock.suite} {lock.architecture} ({definition.name})",
        "name": definition.name,
        "os": system,
        "release": lock.suite,
        "serial": at.strftime("%Y%m%d_%H%M"),
        "variant": "default",
        **definition.properties,
    }
    options = {
        "architecture": names[lock.architecture],
        "creation_date": lock.source_date_epoch,
        "properties": dict(sorted(properties.items())),
    }
    return {"type": "org.osbuild-pika.incus.metadata", "options": options}


def _tree(pipeline: str) -> Json:
    references = [f"name:{pipeline}"]
    return {
        "type": "org.osbuild.tree",
        "origin": "org.osbuild.pipeline",
        "references": references,
    }


def output(definition: Definition, output: str) -> Json:
    name, level = definition.name, _LEVELS[definition.compression]
    suffix = _SUFFIXES[level["method"]]
    if output == "rootfs-tar":
        options = {
            "filename": f"{name}-rootfs.tar.{suffix}",
            "format": "posix",
            "root-node": "omit",
            "numeric-owner": True,
        }
        return {"type": "org.osbuild.tar", "options": options, "inputs": {"tree": _tree(ROOTFS)}}
    if output == "squashfs":
        squashed: Json = {
            "filename": f"{name}.squashfs",
            "compression": {"method": level["method"]},
        }
        return {
            "type": "org.osbuild.squashfs",
            "options": squashed,
            "inputs": {"tree": _tree(ROOTFS)},
        }
    names: Json = {"format": "unified", "filename": f"{name}.tar.{suffix}"}
    if output == "incus-split":
        files = {"metadata": f"{name}-metadata.tar.{suffix}", "rootfs": f"{name}.squashfs"}
        names = {"format": "split", **files}
    return {
        "type": "org.osbuild-pika.incus.pack",
        "options": {**names, "compression": level},
        "inputs": {"metadata": _tree(METADATA), "rootfs": _tree(ROOTFS)},
    }
