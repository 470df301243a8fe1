"""The example images, built by the command line as a user builds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
COMMAND = [sys.executable, "-P", "-c", "from osbuild_pika.cli import main; main()"]
TIMEOUT_S = 900
PROGRAMS = ("mmdebstrap", "apt-ftparchive", "bwrap", "mksquashfs")


def why_not() -> str | None:
    """Why no Debian image can be built here; None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} is not installed"
    targets = ["apt-get", "indextargets", "--format", "$(RELEASE)", "Created-By: Packages"]
    done = subprocess.run(targets, capture_output=True, text=True, check=False)
    if "bookworm" not in done.stdout.split():
        return "apt has no source of Debian's bookworm on this machine"
    return None


@dataclass(frozen=True)
class Workshop:
    """A store, runs and definitions. before: words that a command line is started by."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    @property
    def store(self) -> dict[str, str]:
        """The environment of another one that shall use this one's store."""
        return {"OSBUILD_PIKA_STORE": str(self.path / "store")}

    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **self.store,
            "OSBUILD_PIKA_RUNS": str(self.path / "runs"),
            **self.environment,
        }

    def call(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command line of osbuild-pika."""
        return subprocess.run(
            [*self.before, *COMMAND, *map(str, words)],
            env=self.variables(),
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def define(self, example: str, more: str = "") -> Path:
        """A copy of an example, with more at its end, in a directory of its own."""
        directory = self.path / example
        directory.mkdir(parents=True)
        path = directory / "image.yaml"
        path.write_text((EXAMPLES / f"{example}.yaml").read_text() + more)
        return path

    def build(self, definition: Path, *words: str) -> Path:
        """Build; returns the directory of what was exported."""
        output = definition.parent / "output"
        done = self.call("build", definition, "--output", output, "--progress", "plain", *words)
        assert done.returncode == 0, done.stderr[-4000:]
        return output

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """What a run made, by name."""
        done = self.call("result", run, "--json")
        assert done.returncode == 0, done.stderr
        return {each["name"]: each for each in json.loads(done.stdout)["artifacts"]}


def need() -> None:
    """Skip a test where no Debian image can be built."""
    problem = why_not()
    if problem:
        pytest.skip(problem)
