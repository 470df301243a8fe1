"""Images in Incus: imported, found, listed, exported, deleted, and what aliases point to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote

import httpx

from osbuild_pika.errors import HostError
from osbuild_pika.incus.client import Client, IncusError, Progress
from osbuild_pika.incus.local import BLOCK, ImageFiles, is_disk
from osbuild_pika.incus.parts import Parts
from osbuild_pika.text import one_line

IMAGES = "/1.0/images"
ALIASES = "/1.0/images/aliases"
UPLOAD_S = 600.0  # for Incus to take in what it was sent
TRIES = 5  # others may make and delete the alias meanwhile

_PREFIX = re.compile(r"[0-9a-f]{12,64}", re.ASCII)


def is_fingerprint(text: str) -> bool:
    """Whether this can be a fingerprint, or 12 or more of its first digits."""
    return _PREFIX.fullmatch(text) is not None


def find(client: Client, fingerprint: str) -> dict[str, Any] | None:
    """An image by its fingerprint, or the first digits of it; None if it is not there."""
    found: dict[str, Any] | None = client.find(f"{IMAGES}/{quote(fingerprint, safe='')}")
    return found


def find_alias(client: Client, name: str) -> str | None:
    """The fingerprint that an alias points to; None if there is no such alias."""
    found = client.find(f"{ALIASES}/{quote(name, safe='')}")
    return None if found is None else str(found["target"])


def all_images(client: Client) -> list[dict[str, Any]]:
    """All images of the project, as Incus describes them."""
    found: list[dict[str, Any]] = client.get(IMAGES, recursion="1")
    return found


def delete(client: Client, fingerprint: str) -> None:
    """Delete an image with its aliases; instances made of it stay."""
    client.call("DELETE", f"{IMAGES}/{fingerprint}", what=f"image {fingerprint[:12]}")


def import_files(client: Client, files: ImageFiles, progress: Progress = lambda _: None) -> bool:
    """Give an image to Incus if it has it not. Returns whether it was imported.

    progress: is told how far it is, in words. Raises IncusError with Incus's own words if it
    refuses the image.
    """
    if find(client, files.fingerprint) is not None:
        return False
    with contextlib.ExitStack() as opened:
        sending = _Sending(files, progress)
        body = sending.unified(opened) if files.rootfs is None else sending.split(opened)
        try:
            response = client.request("POST", IMAGES, timeout=UPLOAD_S, **body)
            made = client.finish(files.name, response, progress) or {}
        except IncusError as error:
            if find(client, files.fingerprint) is not None:  # somebody was quicker
                return False
            raise IncusError(f"{files.name}: Incus refuses this image", error.words) from None
    if made.get("fingerprint") != files.fingerprint:
        got = one_line(str(made.get("fingerprint")), 80)
        raise HostError(f"{files.name}: was imported as {got}: it changed meanwhile; try again")
    return True


class _Sending:
    """The body of an import, which tells how far it is while it is read."""

    def __init__(self, files: ImageFiles, progress: Progress) -> None:
        self._files = files
        self._progress = progress
        self._sent = 0
        self._told = -1

    def unified(self, opened: contextlib.ExitStack) -> dict[str, Any]:
        file = opened.enter_context(open(self._files.metadata, "rb"))  # noqa: SIM115
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._files.size_bytes),
            "X-Incus-filename": quote(os.path.basename(self._files.metadata)),
        }
        return {"content": self._read(file), "headers": headers}

    def split(self, opened: contextlib.ExitStack) -> dict[str, Any]:
        rootfs = str(self._files.rootfs)
        field = "rootfs.img" if is_disk(rootfs) else "rootfs"
        parts = {}
        for name, path in (("metadata", self._files.metadata), (field, rootfs)):
            file = opened.enter_context(open(path, "rb"))  # noqa: SIM115
            parts[name] = (os.path.basename(path), _Counted(file, self._count))
        return {"files": parts}

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        while block := file.read(BLOCK):
            self._count(len(block))
            yield block

    def _count(self, size: int) -> None:
        self._sent += size
        percent = 100 * self._sent // max(1, self._files.size_bytes)
        if percent != self._told:
            self._told = percent
            self._progress(f"importing: {percent}%")


class _Counted:
    """A file for httpx, which asks for its length by fileno."""

    def __init__(self, file: IO[bytes], count: Any) -> None:
        self._file = file
        self._count = count
        self.fileno = file.fileno
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._count(len(block))
        return block


def point(client: Client, alias: str, fingerprint: str) -> str | None:
    """Let an alias point to an image, in one update: it is never missing in between.

    Returns the fingerprint that it pointed to before, which stays; None if it is new.
    """
    path = f"{ALIASES}/{quote(alias, safe='')}"
    for _ in range(TRIES):
        before = client.find(path)
        try:
            if before is None:
                client.call("POST", ALIASES, {"name": alias, "target": fingerprint})
                return None
            body = {"target": fingerprint, "description": before.get("description", "")}
            client.call("PUT", path, body)
            return str(before["target"])
        except IncusError as error:
            if error.code not in (404, 409):  # it is gone, or there, by now
                raise IncusError(f"alias {one_line(alias)}", error.words, error.code) from None
            lost = error
    raise IncusError(f"alias {one_line(alias)}", lost.words, lost.code)


def export(client: Client, fingerprint: str, directory: str) -> list[str]:
    """Write an image's files into a directory, byte for byte as they were imported.

    Returns their paths, the metadata first. What lies there already is not overwritten. Raises
    HostError if the bytes are not those of the fingerprint; OSError.
    """
    digest = hashlib.sha256()
    parts = Parts(directory, fingerprint, digest.update)
    try:
        with client.stream("GET", f"{IMAGES}/{fingerprint}/export", {}, UPLOAD_S) as answer:
            if answer.status_code != 200:
                answer.read()
                client.finish(f"image {fingerprint[:12]}", answer)
            parts.begin(answer.headers)
            for piece in answer.iter_raw(BLOCK):
                parts.take(piece)
            parts.end()
    except httpx.HTTPError as error:
        parts.drop()
        raise HostError(f"image {fingerprint[:12]}: {one_line(str(error))}") from None
    except BaseException:
        parts.drop()
        raise
    if digest.hexdigest() != fingerprint:
        parts.drop()
        raise HostError(f"image {fingerprint[:12]}: Incus gives out other bytes than it was given")
    return parts.paths
