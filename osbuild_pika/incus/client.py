"""Talks to Incus over its unix socket.

The API is https://linuxcontainers.org/incus/docs/main/rest-api/. Operations and guests are
looked at: events would come by a websocket, which is another dependency, and tell only that an
instance started or stopped, not what its guest wrote. Incus's own call that waits for an operation
answers with an error when its time is over, and tells nothing of how far it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.text import one_line

SOCKETS = ("/run/incus/unix.socket", "/var/lib/incus/unix.socket")
DAEMONS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd")
ANSWER_S = 60.0  # for a request
FIRST_LOOK_S = 0.01  # until an operation is first looked at, then ever longer
LONGEST_LOOK_S = 0.3
MAX_ANSWER = 16 * 1024 * 1024  # bytes of an answer that are read

Progress = Callable[[str], None]


class IncusError(HostError):
    """Incus refused, or what it was asked for failed. words: its own. code: HTTP's, or 0."""

    def __init__(self, what: str, words: str, code: int = 0) -> None:
        super().__init__(f"{what}: {one_line(words.strip())}")
        self.words = words.strip()
        self.code = code


def default_socket() -> str:
    """Where Incus listens: $INCUS_SOCKET, below $INCUS_DIR, else where packages put it."""
    given = os.environ.get("INCUS_SOCKET")
    if given:
        return given
    directory = os.environ.get("INCUS_DIR")
    if directory:
        return os.path.join(directory, "unix.socket")
    return next(filter(os.path.exists, SOCKETS), SOCKETS[-1])


class Client:
    """A connection to one Incus, and one of its projects. Everything raises HostError."""

    def __init__(self, path: str | None = None, project: str = "default") -> None:
        self.path = os.path.abspath(path or default_socket())
        self.project = project
        _try(self.path)
        transport = httpx.HTTPTransport(uds=self.path)
        self._http = httpx.Client(
            transport=transport, base_url="http://incus", timeout=ANSWER_S, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def server(self) -> dict[str, Any]:
        """What Incus says of itself. Raises HostError also if it does not trust us, InputError if
        it has not our project."""
        facts: dict[str, Any] = self.get("/1.0")
        if facts.get("auth") != "trusted":
            raise HostError(f"{one_line(self.path)}: Incus does not trust this user; {_GROUP}")
        if self.find(f"/1.0/projects/{quote(self.project, safe='')}") is None:
            raise InputError(f"{one_line(self.project)}: Incus has no such project")
        return facts

    def get(self, path: str, **query: str) -> Any:
        """The metadata of an answer. Raises IncusError (404: there is none)."""
        return self._answer(path, self.request("GET", path, query))

    def find(self, path: str, **query: str) -> Any:
        """As `get`, but None if there is none."""
        try:
            return self.get(path, **query)
        except IncusError as error:
            if error.code != 404:
                raise
            return None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        what: str = "",
        progress: Progress | None = None,
    ) -> Any:
        """Have something done, and wait until it is. Returns the metadata.

        what: names it in an error, for people.
        """
        return self.finish(what or path, self.request(method, path, json=body), progress)

    def finish(self, what: str, response: httpx.Response, progress: Progress | None = None) -> Any:
        """Wait for what an answer began. Returns the operation's metadata, or the answer's."""
        metadata = self._answer(what, response)
        operation = response.headers.get("Location", "")
        if response.status_code != 202 or not operation:
            return metadata
        pause_s = FIRST_LOOK_S
        while metadata["status_code"] < 200:
            time.sleep(pause_s)
            pause_s = min(LONGEST_LOOK_S, pause_s * 1.5)
            metadata = self.get(operation)
            if progress is not None:
                progress(stage_of(metadata.get("metadata")))
        if metadata["status_code"] != 200:
            raise IncusError(what, str(metadata.get("err") or metadata["status"]))
        return metadata.get("metadata")

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """One request, whatever its answer's code. Raises HostError if there is none."""
        try:
            return self._http.request(method, path, params=self._query(query), **more)
        except httpx.TimeoutException:
            raise HostError(f"{path}: Incus gave no answer in time") from None
        except httpx.HTTPError as error:
            raise HostError(f"{path}: Incus broke off: {one_line(str(error))}") from None

    def stream(
        self, method: str, path: str, query: Mapping[str, str], timeout_s: float, **headers: str
    ) -> contextlib.AbstractContextManager[httpx.Response]:
        """A request whose answer the caller reads, with httpx's errors.

        timeout_s: for each piece of the answer.
        """
        return self._http.stream(
            method, path, params=self._query(query), timeout=timeout_s, headers=headers
        )

    def _query(self, query: Mapping[str, str] | None) -> dict[str, str]:
        return {"project": self.project, **(query or {})}

    def _answer(self, what: str, response: httpx.Response) -> Any:
        try:
            found = response.json()
            metadata, error = found["metadata"], found["error"]
        except (ValueError, KeyError, TypeError):
            name = one_line(self.path)
            raise HostError(f"{name}: {what}: the answer is not Incus's") from None
        if response.status_code >= 400 or error:
            words = str(error or response.reason_phrase)
            if response.status_code == 403:
                raise HostError(f"{one_line(words)}; {_GROUP}")
            raise IncusError(what, words, response.status_code)
        return metadata


_GROUP = "be root, or in the group incus-admin (usermod -aG incus-admin USER, then log in again)"


def _try(path: str) -> None:
    """Raise HostError if nobody listens there, with what is to be done."""
    name = one_line(path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.settimeout(ANSWER_S)
            probe.connect(path)
        except PermissionError:
            raise HostError(f"{name}: Incus does not let this user in; {_GROUP}") from None
        except (FileNotFoundError, NotADirectoryError):
            raise HostError(f"{name}: no Incus is there; {_missing()}") from None
        except ConnectionRefusedError:
            raise HostError(
                f"{name}: Incus does not run; start it: systemctl start incus"
            ) from None
        except OSError as error:  # too long, no socket
            why = error.strerror or str(error)
            raise InputError(f"{name}: is no socket of Incus: {why}") from None


def _missing() -> str:
    elsewhere = "or name its socket by --socket or INCUS_SOCKET"
    if shutil.which("incusd") or any(map(os.path.exists, DAEMONS)):
        return f"start it (systemctl start incus), {elsewhere}"
    return f"install it (apt-get install incus; on Debian 12 from backports), {elsewhere}"


def stage_of(metadata: Any) -> str:
    """What an operation's metadata says of how far it is: "Unpacking image: 42%"; else ""."""
    if not isinstance(metadata, dict):
        return ""
    texts = [value for key, value in metadata.items() if key.endswith("_progress")]
    return one_line(texts[0].partition(" (")[0], 80) if texts and isinstance(texts[0], str) else ""
