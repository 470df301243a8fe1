"""A root of its own with Debian's OpenRC, in which a program runs: test/data/openrc/boot.sh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import debs
import pytest

ROOT = Path(__file__).parents[1]
BOOT = ROOT / "test/data/openrc/boot.sh"
PACKAGES = ("openrc", "insserv", "libeinfo1", "librc1")
PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")


def packages(cache: Path, place: Path) -> Path:
    """A directory with links to OpenRC's packages, of this Debian's mirror. Skips without."""
    if subprocess.run((*PRIVATE, "true"), check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to make namespaces: run as root")
    place.mkdir()
    for package in debs.fetch(cache, *PACKAGES):
        if package.name in PACKAGES:
            (place / package.path.name).symlink_to(package.path)
    assert len(list(place.iterdir())) == len(PACKAGES)
    return place


def run(place: Path, found: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program there. place: an empty directory."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT}/test",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = (*PRIVATE, str(BOOT), str(place), str(found), sys.executable, "-c", program)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
