"""Small signed package repositories, made in the test and served on the loopback interface."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("apt-get", "apt-ftparchive", "dpkg-deb", "gpg", "gpgv")
SUITE = "tiny"


def needs_apt() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def architecture() -> str:
    done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, check=True)
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Key:
    """A key of its own. home: of gpg. public: a keyring for apt."""

    home: Path
    public: Path

    def sign(self, text: Path, signed: Path) -> None:
        signed.unlink(missing_ok=True)
        words = ["--batch", "--clearsign", "--output", str(signed), str(text)]
        subprocess.run(["gpg", *words], env=self.environment, capture_output=True, check=True)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "GNUPGHOME": str(self.home)}


@contextmanager
def key() -> Iterator[Key]:
    """A new key; its agent ends with it."""
    # Not below pytest's directory: the path of the agent's socket must be short.
    with tempfile.TemporaryDirectory(prefix="key-") as name:
        home = Path(name)
        made = Key(home, home / "public.gpg")
        generate = ["--batch", "--passphrase", "", "--quick-gen-key", "test", "ed25519", "sign"]
        try:
            for words in (generate, ["--output", str(made.public), "--export", "test"]):
                subprocess.run(
                    ["gpg", *words], env=made.environment, capture_output=True, check=True
                )
            yield made
        finally:
            kill = ["gpgconf", "--kill", "all"]
            subprocess.run(kill, env=made.environment, capture_output=True, check=False)


class Repository:
    """A repository with the suite `tiny` in a directory, of packages that hold nothing."""

    def __init__(self, path: Path, signer: Key) -> None:
        self.path = path
        self.key = signer
        self.architecture = architecture()
        self.index = path / f"dists/{SUITE}/main/binary-{self.architecture}/Packages"
        self.index.parent.mkdir(parents=True)
        (path / "pool").mkdir()

    def add(self, name: str, version: str = "1.0", **fields: str) -> None:
        """Put a package into the pool. fields: such as depends="a, b"."""
        with tempfile.TemporaryDirectory() as made:
            control = Path(made, "DEBIAN/control")
            control.parent.mkdir(mode=0o755)
            known = {"package": name, "version": version, "architecture": self.architecture}
            known |= {"maintainer": "Test <test@localhost>", "description": "test", **fields}
            text = "".join(f"{key.title()}: {value}\n" for key, value in known.items())
            control.write_text(text)
            words = ["dpkg-deb", "--build", "-Znone", made, str(self.path / "pool")]
            subprocess.run(words, capture_output=True, check=True)

    def add_tiny(self) -> None:
        """The packages of a small system: two of the base, and what a definition adds."""
        self.add("tiny-base", essential="yes", priority="required", **{"pre-depends": "tiny-lib"})
        self.add("tiny-lib", "1:2.0-1")
        for name in ("apt", "python3", "systemd", "systemd-sysv", "dbus"):
            self.add(name)
        self.add("hello", depends="hello-lib")
        self.add("hello-lib")
        self.add("greeter", provides="greetings", conflicts="hello")

    def publish(self, valid: timedelta = timedelta(days=7), is_signed: bool = True) -> None:
        """Write the indexes of what is in the pool, and sign them."""
        text = self._ftparchive("packages", "pool")
        self.index.write_text(text)
        until = datetime.now(UTC) + valid
        fields = {"Suite": SUITE, "Codename": SUITE, "Components": "main", "Origin": "Test"}
        fields |= {"Architectures": self.architecture, "Label": "Test"}
        options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
        release = self.path / f"dists/{SUITE}/Release"
        release.unlink(missing_ok=True)
        signed = release.with_name("InRelease")
        signed.unlink(missing_ok=True)
        text = self._ftparchive(*options, "release", f"dists/{SUITE}")
        release.write_text(f"Valid-Until: {until.strftime('%a, %d %b %Y %H:%M:%S UTC')}\n{text}")
        if is_signed:
            self.key.sign(release, signed)
            release.unlink()

    def _ftparchive(self, *words: str) -> str:
        done = subprocess.run(
            ["apt-ftparchive", *words], cwd=self.path, capture_output=True, text=True, check=True
        )
        return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(path: Path) -> Iterator[str]:
    """Serve a directory on the loopback interface; its URL."""
    handler = partial(_Quiet, directory=str(path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def tiny(path: Path, key: Key) -> Iterator[tuple[Repository, str]]:
    """A small repository in a new directory, and its URL for the time of a block."""
    path.mkdir()
    repository = Repository(path, key)
    repository.add_tiny()
    repository.publish()
    with served(path) as url:
        yield repository, url
