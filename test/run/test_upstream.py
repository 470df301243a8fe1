"""An unmodified upstream osbuild (v191) with the merged directory of its modules and ours.

OSBUILD_SOURCE names a checkout of upstream. It runs in a mount namespace of its own, where what
it leaks when it is killed ends with it, on a store of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from osbuild_pika.upstream import make_libdir

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
# Upstream binds /etc/containers, which not every host has: an overlay adds an empty one.
SETUP = """
overlay=$1; shift
mount -t overlay etc -o "lowerdir=/etc,upperdir=$overlay/upper,workdir=$overlay/work" /etc
exec "$@"
"""


class Upstream(NamedTuple):
    """Upstream, ready to build. rundir: its path is short, for sockets have their place there."""

    checkout: Path
    libdir: Path
    place: Path
    rundir: Path

    @property
    def store(self) -> Path:
        return self.place / "store"

    @property
    def tree(self) -> Path:
        """Where the pipeline `tree` is exported to."""
        return self.place / "output/tree"

    def start(self, manifest: dict[str, Any]) -> subprocess.Popen[str]:
        """Start a build of the pipeline `tree`; the process is osbuild itself."""
        for name in ("upper/containers", "work"):
            (self.place / "etc" / name).mkdir(parents=True, exist_ok=True)
        (self.place / "manifest.json").write_text(json.dumps(manifest))
        namespace = ["unshare", "--mount", "--propagation", "private"]
        setup = ["sh", "-euc", SETUP, "sh", str(self.place / "etc")]
        osbuild = [sys.executable, "-m", "osbuild", "--libdir", str(self.libdir)]
        places = ["--store", str(self.store), "--rundir", str(self.rundir)]
        output = ["--output-directory", str(self.tree.parent), "--export", "tree"]
        return subprocess.Popen(
            [*namespace, *setup, *osbuild, *places, *output, str(self.place / "manifest.json")],
            cwd=self.checkout,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, manifest: dict[str, Any]) -> tuple[int, str]:
        """Build and return the exit status and what was printed."""
        with self.start(manifest) as process:
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, printed


def manifest_of(*stages: dict[str, Any]) -> dict[str, Any]:
    return {"version": "2", "pipelines": [{"name": "tree", "stages": list(stages)}]}


@pytest.fixture(scope="module")
def checkout() -> Path:
    if not os.environ.get("OSBUILD_SOURCE"):
        pytest.skip("OSBUILD_SOURCE names no checkout of upstream osbuild")
    if os.geteuid() or shutil.which("bwrap") is None:
        pytest.skip("needs root and bubblewrap")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    return Path(os.environ["OSBUILD_SOURCE"]).absolute()


@pytest.fixture(scope="module")
def libdir(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("libdir")
    # It has our package, whatever the tests are run by.
    interpreter = place / "python3"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return make_libdir(place / "libdir", checkout, str(interpreter)).directory


@pytest.fixture
def osbuild(checkout: Path, libdir: Path, tmp_path: Path) -> Iterator[Upstream]:
    with tempfile.TemporaryDirectory(prefix="up") as rundir:
        yield Upstream(checkout, libdir, tmp_path, Path(rundir))


def test_upstreams_stages_build_from_the_merged_directory(osbuild: Upstream) -> None:
    mkdir = {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/data"}]}}
    options = {"filename": "data/disk.img", "size": "1M"}
    truncate = {"type": "org.osbuild.truncate", "options": options}
    status, printed = osbuild.build(manifest_of(mkdir, truncate))
    assert status == 0, printed
    assert (osbuild.tree / "data/disk.img").stat().st_size == 2**20
