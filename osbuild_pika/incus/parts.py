"""Writes what Incus exports: one file as it comes, or the two of a multipart answer."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from email.message import Message
from typing import IO

from osbuild_pika.errors import HostError

MAX_HEAD = 16 * 1024  # bytes of a part's headers
_SAFE = re.compile(r"[^A-Za-z0-9._-]")


class Parts:
    """Files below a directory, written as their bytes come.

    paths: of those that were begun. feed: is given the bytes of the files, one after the other.
    """

    def __init__(self, directory: str, name: str, feed: Callable[[bytes], None]) -> None:
        self.paths: list[str] = []
        self._directory = directory
        self._name = name  # of a file that has none
        self._feed = feed
        self._file: IO[bytes] | None = None
        self._mark = b""  # what parts the files; b"" if there is but one
        self._rest = b""
        self._is_over = False

    def begin(self, headers: Mapping[str, str]) -> None:
        """The answer's headers: they tell whether it has parts."""
        boundary = _parameter(headers.get("Content-Type", ""), "boundary")
        if boundary:
            self._mark = b"\r\n--" + boundary.encode("ascii", "replace")
            self._rest = b"\r\n"  # before the first mark, too
        else:
            self._open(headers.get("Content-Disposition", ""))

    def take(self, piece: bytes) -> None:
        """The next bytes of the answer."""
        if not self._mark:
            self._write(piece)
            return
        self._rest += piece
        while not self._is_over and self._step():
            pass

    def end(self) -> None:
        """There is no more. Raises HostError if something is missing."""
        self._close()
        if self._mark and not self._is_over:
            raise HostError("Incus broke off in the middle of an image")

    def drop(self) -> None:
        """Delete what was written."""
        self._close()
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.paths.clear()

    def _step(self) -> bool:
        """Deal with what is there up to the next mark. Returns whether there was one."""
        before, mark, after = self._rest.partition(self._mark)
        if not mark:
            kept = len(self._mark) - 1  # a mark may have begun
            self._write(before[:-kept] if len(before) > kept else b"")
            self._rest = before[-kept:]
            return False
        head, blank, body = after.partition(b"\r\n\r\n")
        is_last = after.startswith(b"--")
        if not blank and not is_last:  # the part's headers are not whole yet
            if len(after) > MAX_HEAD:
                raise HostError("Incus's answer has no form that is known")
            self._write(before)
            self._rest = mark + after
            return False
        self._write(before)
        self._close()
        self._is_over = is_last
        self._rest = body
        if not is_last:
            self._open(_header(head, "content-disposition"))
        return not is_last

    def _open(self, disposition: str) -> None:
        given = _parameter(disposition, "filename") or self._name
        name = _SAFE.sub("_", os.path.basename(given)).lstrip(".") or self._name
        path = os.path.join(self._directory, name)
        self._file = open(path, "xb")  # noqa: SIM115
        self.paths.append(path)

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._feed(data)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _header(head: bytes, name: str) -> str:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _parameter(value: str, name: str) -> str:
    """A parameter of a header's value, such as filename; "" if it has none."""
    message = Message()
    message["Content-Type"] = value
    found = message.get_param(name)
    return found if isinstance(found, str) else ""
