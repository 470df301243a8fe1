"""The host as a build root: what it is, in a digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
