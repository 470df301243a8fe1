"""Units of a tree's systemd: enabled, disabled and masked by its own systemctl."""

from __future__ import annotations

import os

from osbuild_pika.inside import files, intree
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")

_VERBS = {"enable": "enabled_services", "disable": "disabled_services", "mask": "masked_services"}


def configure(tree: Path, options: Mapping[str, Any]) -> int:
    """Do what the options of org.osbuild.systemd ask for, in upstream's order. Returns how many
    changes that were. Raises StageError."""
    count = 0
    for verb, listed in _VERBS.items():
        names = options.get(listed, [])
        for name in names:
            control(tree, verb, name)
        count += len(names)
    for name in options.get("masked_generators", []):
        if "/" in name or name in ("", ".", ".."):
            raise StageError(f"{ascii(name)[:80]} is no name of a generator")
        files.link(tree, f"/etc/systemd/system-generators/{name}", "/dev/null")
        count += 1
    target = options.get("default_target")
    if target:
        control(tree, "set-default", target)
    return count + bool(target)


def control(tree: Path, verb: str, unit: str) -> None:
    """Run the tree's systemctl. Raises StageError."""
    intree.run_checked(tree, ["systemctl", "--quiet", verb, "--", unit], f"{verb} {unit}")


def has(tree: Path, unit: str) -> bool:
    """Whether the tree has a unit."""
    return any(os.path.lexists(resolve(tree, f"{folder}/{unit}")) for folder in FOLDERS)
