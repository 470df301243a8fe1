"""What the tests of image definitions share: definitions and locks that nothing was asked for."""

from __future__ import annotations

import hashlib

from osbuild_pika.image import definition, lock
from osbuild_pika.image.lock import Lock, Package, Release, Source
from osbuild_pika.image.values import Definition

HEAD = "name: web\nfrom: debian/bookworm\n"
MIRROR = "http://127.0.0.1:9/debian/"
SIGNED_BY = "/usr/share/keyrings/debian-archive-keyring.gpg"
EPOCH = 1_795_140_670


def define(text: str = "") -> Definition:
    return definition.parse(f"{HEAD}{text}".encode(), "image.yaml")


def package(name: str, base: bool, version: str = "1:1.0-1") -> Package:
    digest = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    quoted = version.replace(":", "%3a")
    url = f"{MIRROR}pool/{name}_{quoted}_amd64.deb"
    return Package(name, version, "amd64", url, digest, 100, not base, False, base)


def made_lock(asked: Definition, *packages: Package) -> Lock:
    """A lock that answers a definition. packages: by default one of the base and one more."""
    chosen = packages or (package("base-files", True), package("nginx-light", False))
    return Lock(
        request=lock.request(asked),
        distribution="debian",
        suite="bookworm",
        architecture="amd64",
        source_date_epoch=EPOCH,
        keyring_sha256=hashlib.sha256(b"key").hexdigest() if asked.keyring else None,
        sources=(Source(MIRROR, ("bookworm",), ("main",), SIGNED_BY, False),),
        releases=(Release("Debian", "bookworm", "2026-11-20T02:11:10Z", "1" * 64, ("AB" * 20,)),),
        packages=chosen,
    )
