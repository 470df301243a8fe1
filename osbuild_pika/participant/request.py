"""One request's directory: whose it is, how it is, and what is published of it.

    DIR/files/PREFIX/IMAGE_ID/
        status.json events.jsonl result.json   its lifecycle: `osbuild-pika watch` shows it
        IMAGE_ID.log                           what the build said
        report.json                            of the conversion
        IMAGE_ID.lock.json                     the packages
        OUTPUT/FILE                            the image, whole or not there
        artifacts.json index.html              what there is, once it is done
        .request.json                          whose request it is
        .run                                   the run of the build that is on its way
    DIR/files/PREFIX/.IMAGE_ID.lock            held while somebody works at it

Names that begin with a dot are not served.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import html
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from osbuild_pika import runs
from osbuild_pika.engine import disk
from osbuild_pika.errors import ExitCode, InputError, PikaError
from osbuild_pika.follow import read_result
from osbuild_pika.lifecycle import Journal
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Outcome, Request

HOLD_S = 15.0  # for one that is ending
POLL_S = 0.1
STATES = {"IN QUEUE": "requested", "BUILDING": "provisioning"}
MAX_RECORD = 64 * 1024
BLOCK = 1024 * 1024
EVENT = "image.status"
LOST = "the process of the request ended without a word"


class BusyError(PikaError):
    """Somebody else is at it."""

    exit_code = ExitCode.BUSY


class Place:
    """A request's directory, made if it is not there. Use it as `held` gives it."""

    def __init__(self, site: Site, request: Request) -> None:
        self.site, self.request = site, request
        self.directory = os.path.join(site.files, request.prefix, request.image_id)
        self.output = os.path.join(self.directory, request.output)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @property
    def log(self) -> str:
        return self.path(f"{self.request.image_id}.log")

    @property
    def definition(self) -> str:
        """Where the definition would lie: its lock has its place by it."""
        return self.path(f"{self.request.image_id}.ks")

    def url(self, *names: str) -> str:
        return self.site.url(self.request.prefix, self.request.image_id, *names)

    # --- whose it is -----------------------------------------------------------------------------

    def claim(self) -> None:
        """Take the directory for this request, for ever. Raises InputError if it is another's."""
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        mark = self.path(".request.json")
        try:
            with open(mark, "rb") as file:
                found = json.loads(file.read(MAX_RECORD))
        except FileNotFoundError:
            found = None
        except ValueError:
            found = {}
        if found is None:
            record = {"digest": self.request.digest, "name": self.request.name}
            replace(mark, json.dumps(record).encode() + b"\n")
        elif not isinstance(found, dict) or found.get("digest") != self.request.digest:
            name = f"{self.request.prefix}/{self.request.image_id}"
            raise InputError(f"image_id {name} is of another request: give this one its own")

    def clear(self) -> None:
        """Drop what a request that failed has left, but for its lock and whose it is."""
        kept = (".request.json", f"{self.request.image_id}.lock.json")
        for name in os.listdir(self.directory):
            if name not in kept:
                self.remove(name)

    def remove(self, name: str) -> None:
        path = self.path(name)
        if os.path.isdir(path) and not os.path.islink(path):
            disk.remove_tree(path)
        else:
            os.unlink(path)

    def remove_image(self) -> None:
        """No half image, and none of a build that failed; nor what a killed export left."""
        for name in (self.request.output, *self._hidden(), "artifacts.json", "index.html"):
            if os.path.lexists(self.path(name)):
                self.remove(name)

    def _hidden(self) -> list[str]:
        beginning = f".{self.request.output}."
        return [name for name in os.listdir(self.directory) if name.startswith(beginning)]

    def begun(self, run: str) -> None:
        """Note the run of the build that was begun: its directory."""
        with open(self.path(".run"), "w", encoding="utf-8") as file:
            file.write(run)

    def end_build(self) -> None:
        """End the build of a process that was killed, if it has outlived it. Raises BusyError."""
        try:
            with open(self.path(".run"), encoding="utf-8") as file:
                run = file.read()
        except FileNotFoundError:
            return
        runs.terminate(run)
        until = time.monotonic() + HOLD_S
        while runs.lives(runs.read_facts(run).get("engine")):
            if time.monotonic() > until:
                raise BusyError(f"{run}: an earlier build of this request does not end")
            time.sleep(POLL_S)
        runs.seal(run)

    # --- how it is -------------------------------------------------------------------------------

    def note(self, status: str, message: str) -> None:
        """Record a status that is not the end."""
        details = {"event": EVENT, "image_status": status}
        with Journal(self.directory) as journal:
            journal.append(STATES[status], message, details)
            journal.write_status(STATES[status], message, details)

    def end(self, outcome: Outcome, artifacts: Sequence[dict[str, Any]] = ()) -> None:
        """Record the end; durable on return."""
        status, message = ("DONE", "built") if outcome.is_built else ("ERROR", outcome.error)
        details = {"event": EVENT, "image_status": status, "artifacts": list(artifacts)}
        word = "completed" if outcome.is_built else "failed"
        with Journal(self.directory) as journal:
            journal.finish(word, int(outcome.code), message, details)

    def ended(self) -> dict[str, Any] | None:
        """The result that is recorded, whole; None before the end."""
        if os.path.exists(self.path("events.jsonl")):
            with Journal(self.directory) as journal:
                journal.recover()
        return read_result(self.directory)

    def intact(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """The artifacts of a result, if all of them are there as they were; else none."""
        details = result.get("details")
        listed = details.get("artifacts") if isinstance(details, dict) else None
        found = [each for each in listed or () if isinstance(each, dict)]
        return found if all(self._is_intact(each) for each in found) else []

    def _is_intact(self, artifact: dict[str, Any]) -> bool:
        digest = hashlib.sha256()
        try:
            path = self.path(artifact["file"])
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        except (OSError, KeyError, TypeError):
            return False
        return digest.hexdigest() == artifact.get("sha256")

    # --- what is published -----------------------------------------------------------------------

    def publish(self, artifacts: Sequence[dict[str, Any]]) -> None:
        """Write what tells of the image. artifacts: with their `file` from the directory."""
        listed = [{**each, "url": self.url(*each["file"].split("/"))} for each in artifacts]
        replace(self.path("artifacts.json"), json.dumps(listed, indent=2).encode() + b"\n")
        self.list_files(listed)

    def list_files(self, listed: Sequence[dict[str, Any]] = ()) -> None:
        """Write the page of all files. listed: the artifacts."""
        log = os.path.basename(self.log)
        others = (
            "artifacts.json",
            "report.json",
            log,
            "status.json",
            "events.jsonl",
            "result.json",
        )
        rows = [
            (each["file"], f"{each['size_bytes']} bytes, sha256 {each['sha256']}")
            for each in listed
        ]
        rows += [(name, "") for name in (*others, f"{self.request.image_id}.lock.json")]
        name = html.escape(self.request.name)
        lines = "\n".join(
            f'<li><a href="{html.escape(file)}">{html.escape(file)}</a> {html.escape(more)}</li>'
            for file, more in rows
            if file == "result.json" or os.path.exists(self.path(file))  # it comes right after
        )
        page = (
            f"<!doctype html>\n<meta charset=utf-8>\n<title>{name}</title>\n<ul>\n{lines}\n</ul>\n"
        )
        replace(self.path("index.html"), page.encode())


@contextlib.contextmanager
def held(site: Site, request: Request) -> Iterator[Place]:
    """A request's directory, while nobody else works at it. Raises BusyError, OSError."""
    parent = os.path.join(site.files, request.prefix)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(os.path.join(parent, f".{request.image_id}.lock"), flags, 0o600)
    try:
        if not _lock(fd):
            raise BusyError(f"{request.prefix}/{request.image_id} is being built: try again later")
        yield Place(site, request)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    until = time.monotonic() + HOLD_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(POLL_S)
        else:
            return True


def replace(path: str, content: bytes) -> None:
    """Put a file in its place in one step, durable on return. Raises OSError."""
    directory, name = os.path.split(path)
    new = os.path.join(directory, f".{name}.tmp")
    with open(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    disk.sync_directory(directory)


def end_lost(site: Site, request: Request, outcome: Outcome) -> None:
    """Record the end of a request whose process died. Raises PikaError, OSError.

    Nothing is made for one that had not begun: it has taken no image_id.
    """
    if not os.path.exists(Place(site, request).path(".request.json")):
        return
    with held(site, request) as place:
        place.claim()
        place.end_build()
        place.remove_image()
        if place.ended() is None:
            place.end(outcome)
