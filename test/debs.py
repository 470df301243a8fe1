"""Debian packages for tests: tiny ones, made here, and real ones from the host's own mirror."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

ARCH = "amd64"
# Of what a Debian host has: the release it is, and its essential, required packages and apt.
MINBASE = (
    "?narrow(?codename(^{suite}$),?architecture({arch}),?essential)",
    "?narrow(?codename(^{suite}$),?architecture({arch}),?priority(required))",
    "apt",
    "usr-is-merged",
)
PROGRAMS = ("mmdebstrap", "apt-ftparchive", "dpkg-deb", "bwrap")
_CONF = """
Dir::State "{at}"; Dir::State::lists "{at}/lists"; Dir::State::status "{at}/status";
Dir::Cache "{at}/cache"; Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null";
Dir::Etc::preferencesparts "/dev/null"; APT::Architecture "{arch}";
APT::Architectures {{"{arch}";}};
APT::Install-Recommends "false"; Acquire::Languages "none"; Acquire::ForceHash "SHA256";
APT::Sandbox::User "root"; Acquire::Retries "1"; Acquire::http::Timeout "10";
"""


@dataclass(frozen=True)
class Deb:
    """A package's file. auto: nobody asked for it."""

    name: str
    version: str
    arch: str
    path: Path
    auto: bool = False

    @functools.cached_property
    def checksum(self) -> str:
        return "sha256:" + hashlib.sha256(self.path.read_bytes()).hexdigest()

    def option(self) -> dict[str, Any]:
        """It as in the options of the stage org.osbuild-pika.deb."""
        known = {"name": self.name, "version": self.version, "arch": self.arch}
        return {**known, "checksum": self.checksum, "auto": self.auto}


def needs_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def make(place: Path, name: str, control: str = "", **files: str) -> Deb:
    """Make a tiny package. control: more lines of its control file. files: content by path, with
    __ for / ; maintainer scripts by preinst, postinst."""
    root = place / f"{name}.tree"
    (root / "DEBIAN").mkdir(parents=True)
    fields = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\n"
    (root / "DEBIAN/control").write_text(f"{fields}{control}Description: a test\n")
    for key, content in files.items():
        is_script = key in ("preinst", "postinst")
        path = root / ("DEBIAN/" + key if is_script else key.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if is_script else 0o644)
    target = place / f"{name}_1.0-1_all.deb"
    words = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(target)]
    subprocess.run(words, check=True, capture_output=True)
    return Deb(name, "1.0-1", "all", target)


def fetch(cache: Path, *wanted: str) -> list[Deb]:
    """Minbase of the host's release and these packages with what they need, from its mirror.

    Skips the test if that cannot be had. What was downloaded stays in `cache`, which tests beside
    this one may fill as well.
    """
    with open(cache / "lock", "w") as one_at_a_time:  # apt does not wait for another
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        return _fetch(cache, wanted)


def _fetch(cache: Path, wanted: Sequence[str]) -> list[Deb]:
    suite = _suite()
    for folder in ("lists/partial", "cache/archives/partial", "none/partial"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    (cache / "status").touch()
    (cache / "apt.conf").write_text(_CONF.format(at=cache, arch=ARCH))
    names = [name.format(suite=suite, arch=ARCH) for name in MINBASE] + list(wanted)
    if not any((cache / "lists").glob("*Packages*")):
        _apt(cache, "update", "-qq")
    none = f"-oDir::Cache::archives={cache}/none"  # what is there already would not be named
    lines = _apt(cache, "install", "-qq", "--print-uris", none, *names).splitlines()
    _apt(cache, "install", "-qq", "--yes", "--download-only", *names)
    asked = {name.split("/")[0] for name in wanted}
    return [_deb(cache, line, asked) for line in lines if line.startswith("'")]


def _suite() -> str:
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
    if found is None or shutil.which("apt-get") is None:
        pytest.skip("needs a Debian host, for its mirror")
    return found.group(1)


def _apt(cache: Path, *words: str) -> str:
    environment = {**os.environ, "APT_CONFIG": str(cache / "apt.conf"), "LC_ALL": "C"}
    done = subprocess.run(
        ["apt-get", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("the host's package mirror cannot be read")
    return done.stdout


def _deb(cache: Path, line: str, asked: set[str]) -> Deb:
    """One of apt's lines: 'URL' NAME SIZE HASH."""
    file = line.split()[1]
    name, version, rest = file.split("_")
    path = cache / "cache/archives" / file
    return Deb(name, unquote(version), rest.split(".")[0], path, auto=name not in asked)


def stage(mode: str, packages: Sequence[Deb]) -> dict[str, Any]:
    """The stage that installs packages."""
    options = [each.option() for each in packages]
    references = [each.checksum for each in packages]
    origin = {"type": "org.osbuild.files", "origin": "org.osbuild.source"}
    return {
        "type": "org.osbuild-pika.deb",
        "options": {"mode": mode, "architecture": ARCH, "packages": options},
        "inputs": {"packages": {**origin, "references": references}},
    }


def minbase_of(packages: Sequence[Deb], minimum: Sequence[Deb]) -> tuple[list[Deb], list[Deb]]:
    """Packages in two: those of the minimum, and the rest."""
    names = {each.name for each in minimum}
    first = [each for each in packages if each.name in names]
    return first, [each for each in packages if each.name not in names]


@contextlib.contextmanager
def served(packages: Sequence[Deb]) -> Iterator[dict[str, Any]]:
    """A manifest's sources for packages, from a server on loopback."""
    known = {each.checksum[7:]: each.path for each in packages}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = known[self.path[1:]].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            items = {each.checksum: {"url": f"{base}/{each.checksum[7:]}"} for each in packages}
            yield {"org.osbuild.curl": {"items": items}}
        finally:
            server.shutdown()
            thread.join()
