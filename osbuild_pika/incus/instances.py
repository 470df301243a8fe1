"""Instances: created, started, stopped, deleted; their state, and the files of a guest.

A guest is not trusted: its files are asked for their kind and size before they are read, since
reading a pipe would never end, and never more is read than the caller allows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from osbuild_pika.errors import ExitCode, HostError, InputError, PikaError
from osbuild_pika.incus.boots import parse_boot_id
from osbuild_pika.incus.client import Client, IncusError, Progress
from osbuild_pika.text import one_line

FILE_S = 5.0  # for each answer about a guest's file
MAX_LOG = 256 * 1024  # bytes of an instance's log that are looked at
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # the instance's own, another one at each start

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_CAUSE = re.compile(r" ERROR +\S+ - \S+ - (.*)")


class GuestError(PikaError):
    """A guest could not be started, or was not what was waited for."""

    exit_code = ExitCode.GUEST_FAILED


@dataclass(frozen=True)
class Order:
    """An instance to be made. name: checked. fingerprint: of an image that Incus has."""

    name: str
    fingerprint: str
    profiles: Sequence[str] = ("default",)
    config: Mapping[str, str] = field(default_factory=dict)


def check_name(name: str) -> str:
    """Return an instance's name. Raises InputError."""
    if _NAME.fullmatch(name) is None:
        what = f"{ascii(name)[:80]} is no name of an instance"
        raise InputError(
            f"{what}: a letter, then letters, digits and -, at most 63, no - at the end"
        )
    return name


def state(client: Client, name: str) -> str:
    """Incus's word for what an instance does: "Running", "Stopped", ...; "" if it is gone."""
    found = client.find(_path(name))
    return "" if found is None else str(found["status"])


def has_init(client: Client, name: str) -> bool:
    """Whether an instance has processes: one that is about to be stopped has none left."""
    found = client.find(f"{_path(name)}/state")
    return found is not None and found["pid"] > 0 and found["processes"] != 0


def create(client: Client, order: Order, progress: Progress | None = None) -> None:
    """Make an instance. Raises IncusError with Incus's own words."""
    image = client.get(f"/1.0/images/{order.fingerprint}")
    body = {
        "name": order.name,
        "type": image.get("type", "container"),
        "source": {"type": "image", "fingerprint": order.fingerprint},
        "profiles": list(order.profiles),
        "config": dict(order.config),
    }
    try:
        client.call("POST", "/1.0/instances", body, order.name, progress)
    except IncusError as error:
        words = error.words
        if "root d" in words.lower():  # No root device could be found
            words += "; the profile needs one: incus admin init --minimal makes a default"
        raise IncusError(f"{order.name}: Incus does not make it", words, error.code) from None


def start(client: Client, name: str) -> None:
    """Start an instance. Raises GuestError with the cause, as far as Incus's log has it."""
    try:
        client.call("PUT", f"{_path(name)}/state", {"action": "start"}, name)
    except IncusError as error:
        cause = _cause(client, name) or error.words
        text = f"{name}: it could not be started: {cause}; see incus info --show-log {name}"
        raise GuestError(one_line(text)) from None


def _cause(client: Client, name: str) -> str:
    """The first error of the log of the last start; "" if none is known."""
    try:
        path = f"{_path(name)}/logs/lxc.log"
        with client.stream("GET", path, {}, FILE_S, Range=f"bytes=-{MAX_LOG}") as answer:
            log = _read(answer, MAX_LOG).decode("utf-8", "replace")
    except httpx.HTTPError:
        return ""
    found = _CAUSE.search(log)
    return one_line(found[1], 300) if found else ""


def stop(client: Client, name: str, timeout_s: int = 30) -> None:
    """Stop an instance in order, and after `timeout_s` by force."""
    body = {"action": "stop", "timeout": timeout_s}
    try:
        client.call("PUT", f"{_path(name)}/state", body, name)
    except IncusError:
        if state(client, name) == "Running":
            client.call("PUT", f"{_path(name)}/state", {**body, "force": True}, name)


def delete(client: Client, name: str) -> bool:
    """Delete an instance, at once, also one that runs. Returns whether there was one."""
    doing = state(client, name)
    if not doing:
        return False
    if doing != "Stopped":
        body = {"action": "stop", "force": True, "timeout": -1}
        try:
            client.call("PUT", f"{_path(name)}/state", body, name)
        except IncusError:  # it stopped by itself
            if state(client, name) not in ("Stopped", "Error"):
                raise
    client.call("DELETE", _path(name), what=name)
    return True


def read_file(client: Client, name: str, path: str, limit: int, tail: bool = False) -> bytes | None:
    """The bytes of a guest's regular file; None if there is none, or no guest.

    A file of more than `limit` bytes is None, too, or with `tail` its last `limit` bytes. A link
    is not followed at the end of the path. Raises HostError if Incus cannot say, TimeoutError if
    the guest does not let it read.
    """
    query, where = {"path": path}, f"{_path(name)}/files"
    span = {"Range": f"bytes=-{limit}"} if tail else {}
    try:
        with client.stream("HEAD", where, query, FILE_S) as head:
            size = int(head.headers.get("Content-Length", "0"))
            kind = head.headers.get("X-Incus-Type")
            if head.status_code != 200 or kind != "file" or (size > limit and not tail):
                return None
            if size == 0:  # or a pipe, which must not be opened
                return b""
        with client.stream("GET", where, query, FILE_S, **span) as answer:
            if answer.headers.get("X-Incus-Type") != "file":
                return None
            data = _read(answer, limit + 1)
    except httpx.TimeoutException:
        raise TimeoutError(f"{name}: {path} cannot be read") from None
    except httpx.HTTPError as error:
        raise HostError(f"{name}: Incus broke off: {one_line(str(error))}") from None
    except ValueError:
        return None
    return data if len(data) <= limit else None


def _read(answer: httpx.Response, limit: int) -> bytes:
    """The answer's body up to a limit, not longer than FILE_S."""
    data, until = b"", time.monotonic() + FILE_S
    for piece in answer.iter_raw():
        data += piece
        if len(data) >= limit or time.monotonic() > until:
            break
    return data[:limit] if answer.status_code in (200, 206) else b""


def boot_id(client: Client, name: str) -> str | None:
    """The id of the boot that an instance is in; None if it is in none, or does not say."""
    try:
        data = read_file(client, name, BOOT_ID, 64)
    except TimeoutError:
        return None
    return parse_boot_id(data or b"")


def _path(name: str) -> str:
    return f"/1.0/instances/{quote(name, safe='')}"
