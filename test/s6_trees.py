"""A real s6-svscan in a directory of its own, root's or an ordinary user's, and who talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
USER = "games"
FOREVER = ("sh", "-c", "exec sleep 1000")
# Whoever runs the tests may have a Python that USER cannot read: so it is all loaded before.
PROGRAM = """
import encodings.idna, json, os, pwd, sys
from osbuild_pika.service_managers import desired, s6
user, method, settings, given = json.loads(sys.argv[1])
entry = pwd.getpwnam(user)
os.initgroups(user, entry.pw_gid)
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
manager = s6.S6ServiceManager(s6.default_settings()._replace(**settings))
words, options = given
try:
    print(json.dumps({"answer": getattr(manager, method)(*words, **options)}))
except Exception as error:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    code = int(getattr(error, "exit_code", -1))
    print(json.dumps({"kinds": kinds, "message": str(error), "code": code}))
"""


class RefusedError(Exception):
    """What a call raised. kinds: the names of its class and of all that it is a kind of."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(found["message"])
        self.kinds: list[str] = found["kinds"]
        self.code: int = found["code"]


class Tree:
    """A scan directory that belongs to `owner`, and a client that acts as `user`."""

    def __init__(self, place: Path, owner: str, user: str, /, **settings: Any) -> None:
        self.place, self.owner, self.user = place, owner, user
        self.scan, self.state, self.logs = (place / name for name in ("scan", "state", "logs"))
        places = {"scan_directory": self.scan, "state": self.state, "logs": self.logs}
        self.settings = {**{key: str(path) for key, path in places.items()}, **settings}
        self.svscan: subprocess.Popen[bytes] | None = None

    def seen_by(self, user: str, /, **settings: Any) -> Tree:
        """The same tree through another client's eyes."""
        tree = Tree(self.place, self.owner, user, **{**self.settings, **settings})
        tree.svscan = self.svscan
        return tree

    def begin(self, method: str, *words: Any, **options: Any) -> subprocess.Popen[bytes]:
        """Start a call in a process of its own."""
        asked = json.dumps([self.user, method, self.settings, [words, options]])
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.environment()}
        command = [sys.executable, "-c", PROGRAM, asked]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd="/")

    def environment(self) -> dict[str, str]:
        return {"OSBUILD_PIKA_SCAN_DIRECTORY": str(self.scan)}

    def call(self, method: str, *words: Any, **options: Any) -> Any:
        """What the service manager answers. Raises RefusedError."""
        return answer(self.begin(method, *words, **options))

    def up(self, profile: str) -> dict[str, Any]:
        """The state of a service by name."""
        names = ("is_up", "is_wanted", "is_ready", "pid", "exit_code", "signal", "since_s")
        return dict(zip(names, self.call("state", profile), strict=True))

    def start_svscan(self, *options: str) -> None:
        """Start s6-svscan; it takes orders when this returns."""
        read, write = os.pipe()
        entry = pwd.getpwnam(self.owner)
        with (self.place / "out").open("ab") as out, (self.place / "err").open("ab") as err:
            self.svscan = subprocess.Popen(
                ["s6-svscan", "-d", str(write), *options, self.scan],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=[write],
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
            )
        os.close(write)
        with os.fdopen(read, "rb") as ready:
            assert ready.readline() == b"\n", (self.place / "err").read_text()

    def end_svscan(self) -> None:
        """End the whole tree in order."""
        if self.svscan is not None:
            self.svscan.terminate()
            self.svscan.wait(30)
            self.svscan = None

    def processes(self) -> list[str]:
        """The command lines of all that works somewhere in the scan directory, but s6-svscan."""
        return [
            (path / "cmdline").read_text().replace("\0", " ")
            for path in Path("/proc").glob("[0-9]*")
            if works_below(path, self.scan)
        ]

    def left(self) -> list[str]:
        """The names in the scan directory, but s6-svscan's own."""
        return sorted(path.name for path in self.scan.iterdir() if path.name != ".s6-svscan")

    def log(self, profile: str) -> str:
        """What a service printed, with times; empty as long as there is nothing."""
        path = self.logs / f"pika-{profile}/current"
        return path.read_text() if path.exists() else ""


def works_below(process: Path, scan: Path) -> bool:
    with contextlib.suppress(OSError):
        return Path(os.readlink(process / "cwd")).is_relative_to(scan) and (
            os.readlink(process / "cwd") != str(scan)
        )
    return False


def answer(process: subprocess.Popen[bytes]) -> Any:
    """The end of a call. Raises RefusedError."""
    out = process.communicate(timeout=90)[0]
    found = json.loads(out)
    if "kinds" in found:
        raise RefusedError(found)
    return found["answer"]


def eventually(is_so: Callable[[], object]) -> bool:
    """Whether it is so within a time that no machine needs."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def tree_of(owner: str, user: str) -> Iterator[Tree]:
    """A tree of `owner`, whose s6-svscan runs, for `user`. It ends with all that is in it."""
    place = Path(tempfile.mkdtemp(prefix="s6-"))  # where any user can go
    place.chmod(0o755)
    tree = Tree(place, owner, user)
    entry = pwd.getpwnam(user)
    for path in (tree.scan, tree.state, tree.logs):
        path.mkdir()
        os.chown(path, entry.pw_uid, entry.pw_gid)
    try:
        tree.start_svscan()
        yield tree
    finally:
        tree.end_svscan()
        left = tree.processes()
        shutil.rmtree(place)
    assert left == []
