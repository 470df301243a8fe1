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
# What our inputs, devices and mounts import beside that.
_OF_SERVICES = ("devices.py", "inputs.py", "mounts.py", "loopback.py", "libc.py", "host.py")


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
    libraries: dict[Path, str] = {}  # a change of one may change what each of its modules does
    modules = {}
    for use in sorted(used):
        module = find(*use)
        if module.directory not in libraries:
            libraries[module.directory] = _library(module.directory)
        modules[use] = module.digest() + libraries[module.directory]
    return Digests(digest(), modules)


def _library(directory: Path) -> str:
    """Of what the modules of a directory can import from there; of ours, from the package."""
    if directory == buildroot.modules_directory():
        paths = [buildroot.PACKAGE / name for name in (*buildroot.INSIDE, *_OF_SERVICES)]
    else:
        packages = sorted(file.parent for file in directory.glob("*/__init__.py"))
        paths = [*sorted(directory.glob("*.py")), *packages]
    known = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            known.update(hashlib.sha256(file.read_bytes()).digest())
    return known.hexdigest()
