"""What ids do not cover, in digests: the code of modules, and the host as a build root."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from osbuild_pika.engine import buildroot
from osbuild_pika.engine.manifest import Manifest
from osbuild_pika.engine.modules import Module
from osbuild_pika.engine.plan import Digests, uses

# Each changes whenever a package does.
_DATABASES = (
    "var/lib/dpkg/status",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/pacman/local/ALPM_DB_VERSION",
)


def digest(root: Path = Path("/")) -> str:
    """64 hex digits that stand for the host's programs: of its package database, else of
    os-release, which says less."""
    for name in (*_DATABASES, "etc/os-release", "usr/lib/os-release"):
        path = root / name
        if path.is_file():
            return hashlib.sha256(name.encode() + path.read_bytes()).hexdigest()
    return hashlib.sha256(b"unknown").hexdigest()


def digests(manifest: Manifest, find: Callable[[str, str], Module]) -> Digests:
    """Digests of all that builds a manifest. find: finds a module of a kind."""
    used = {use for each in manifest.pipelines for stage in each.stages for use in uses(stage)}
    inside = _inside()
    modules = {}
    for use in sorted(used):
        module = find(*use)
        is_ours = module.directory == buildroot.modules_directory()
        modules[use] = module.digest() + (inside if is_ours else "")
    return Digests(digest(), modules)


def _inside() -> str:
    """Of what our modules can import: a change of it may change what each of them does."""
    known = hashlib.sha256()
    for name in buildroot.INSIDE:
        path = buildroot.PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            known.update(hashlib.sha256(file.read_bytes()).digest())
    return known.hexdigest()
