"""An ordinary user who builds, with code and modules of its own to read."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import builds
from builds import Place

USER = "games"
# Whoever runs the tests may have a Python that USER cannot read: so it is all loaded before.
PROGRAM = """
import os
import shutil
import socket
import sys
import tempfile
import termios
from pathlib import Path
import staging
from osbuild_pika.engine import entry, known, reporting, session
from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard
stage = b'{"type": "org.osbuild.noop"}'
load(b'{"version": "2", "pipelines": [{"name": "a", "stages": [%s]}]}' % stage, standard([]))
user, directory, *sys.argv = sys.argv[1:]
staging.become_user(user, Path(directory))
os.umask(int(os.environ.get("BUILDS_UMASK", "022"), 8))
sys.exit(entry.main())
"""
FOLDERS = (
    "osbuild_pika",
    "devices",
    "inputs",
    "schemas",
    "sources",
    "stages",
)  # of ours: what a build needs


class UsersPlace(Place):
    """A place of USER's, whose builds are its own."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        super().__init__(path)
        for folder in FOLDERS:
            shutil.copytree(builds.ROOT / folder, path / "ours" / folder)
        self.python_path = f"{path}/ours:{builds.ROOT}/test"

    def command(self, fd: int) -> list[str]:
        return [sys.executable, "-c", PROGRAM, USER, str(self.path), "engine", str(fd)]
