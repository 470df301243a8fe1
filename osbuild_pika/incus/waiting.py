"""Has a guest come to the wanted state? What it says counts only if it says it of this boot.

The decision is a function of what was seen; the loop looks, and waits in between. Guests are
looked at through Incus's file API (20 ms each), at first five times a second, later once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from osbuild_pika import lifecycle
from osbuild_pika.incus.client import Client
from osbuild_pika.incus.instances import boot_id, has_init, read_file, state
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.text import one_line

DIRECTORY = "/run/pika-cloud"
MAX_FILE = 1024 * 1024  # bytes of a guest's file that are read
TAIL = 64 * 1024  # bytes at the end of its events that are read at each look
MAX_TOLD = 200  # events of a guest that are told while it is waited for
POLL_S = 0.2
LONGEST_POLL_S = 1.0
SETTLE_S = 0.3  # how long an instance has to run to be booted
STOPPED_S = 2.0  # how long it has to be stopped to be gone: one that starts again is, for a moment
SPARED_S = 10.0  # a file that a guest did not let read is not asked for again so long

_RUNNING = ("requested", "provisioning", "booted", "starting", "ready")  # in their order
_SEEN_BY_HOST = ("stopped", "destroyed")


@dataclass(frozen=True)
class Word:
    """What a guest said of this boot: a lifecycle state and its message. seq: 0 of a status."""

    state: str
    message: str
    seq: int = 0

    def __str__(self) -> str:
        return one_line(f"{self.state}: {self.message}", 300)


@dataclass(frozen=True)
class Seen:
    """One look. instance: Incus's word for it, "" if it is gone. is_up: for SETTLE_S, at least.

    words: of this boot, the oldest first. note: why something was not taken for the guest's word.
    """

    instance: str
    boot_id: str | None = None
    is_up: bool = False
    words: tuple[Word, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Reached:
    """The guest is in the wanted state, or further."""

    state: str
    message: str


@dataclass(frozen=True)
class Failed:
    """The guest says that it failed."""

    message: str


@dataclass(frozen=True)
class TimedOut:
    """The deadline came first. last: what the guest said last, or why nothing counts."""

    last: str


@dataclass(frozen=True)
class Gone:
    """The instance stopped or was deleted. how: that word. last: what the guest said last."""

    how: str
    last: str


Outcome = Reached | Failed | TimedOut | Gone


@dataclass(frozen=True)
class Waited:
    """How a wait ended. seconds: that it took. boot_id: of the last boot that was seen."""

    outcome: Outcome
    seconds: float
    boot_id: str | None


def decide(wanted: str, seen: Seen) -> Outcome | None:
    """What one look says about a wait; None: go on.

    wanted: a lifecycle state. A guest's word counts for what a guest can know: whether it was
    stopped or destroyed is seen by the host, and so is that it booted if it says nothing.
    """
    last = seen.words[-1] if seen.words else None
    if last is not None and wanted not in _SEEN_BY_HOST:
        if _is_at(last.state, wanted):
            return Reached(last.state, last.message)
        if last.state == "failed":
            return Failed(last.message)
        if any(word.state == wanted for word in seen.words):
            return Reached(wanted, last.message)
    said = str(last) if last else seen.note
    if seen.instance == "":
        return Reached(wanted, "") if wanted == "destroyed" else Gone("deleted", said)
    if seen.instance in ("Stopped", "Error"):
        return Reached(wanted, "") if wanted == "stopped" else Gone("stopped", said)
    is_observed = wanted in ("requested", "provisioning") or (wanted == "booted" and seen.is_up)
    return Reached(wanted, "") if is_observed else None


def _is_at(said: str, wanted: str) -> bool:
    """Whether a state is the wanted one, or one that lies behind it."""
    if said == wanted:
        return True
    if wanted not in _RUNNING:
        return False
    return said == "completed" or (
        said in _RUNNING and _RUNNING.index(said) >= _RUNNING.index(wanted)
    )


def last_word(seen: Seen) -> str:
    """What is told of a guest that did not come to its state in time."""
    words = f"it said last: {seen.words[-1]}" if seen.words else "it said nothing of this boot"
    return "; ".join(filter(None, (words, seen.note)))


def words_of(boot: str, status: bytes | None, events: bytes | None) -> tuple[tuple[Word, ...], str]:
    """The words of this boot in a guest's files, and a note of what was passed over.

    events: may begin in the middle of a line. The status comes last, as it is written last.
    """
    words = [_word(event, "kind") for event in events_of(boot, events)]
    if status is None:
        return tuple(words), "" if events else "it wrote no status.json"
    try:
        document = lifecycle.decode("status", status)
    except LifecycleError:
        return tuple(words), "its status.json is not one"
    if document.get("boot_id") != boot:
        return tuple(words), "its status.json is not of this boot"
    return (*words, _word(document, "state")), ""


def events_of(boot: str, events: bytes | None) -> Iterator[dict[str, Any]]:
    """The events of this boot; what is no event, or of another boot, is passed over."""
    for line in (events or b"").split(b"\n"):
        try:
            event = lifecycle.decode("event", line)
        except LifecycleError:
            continue
        if event.get("boot_id") == boot:
            yield event


def _word(document: dict[str, Any], name: str) -> Word:
    return Word(document[name], one_line(document["message"], 300), document.get("seq", 0))


def records(
    boot: str, status: bytes | None, events: bytes | None, result: bytes | None
) -> dict[str, bytes]:
    """What is worth keeping of a guest's files: what is a lifecycle document, of this boot.

    A result does not name its boot: it counts if the boot has ended by the guest's own words.
    """
    lines = [json.dumps(event, separators=(",", ":")) for event in events_of(boot, events)]
    words, note = words_of(boot, status, events)
    found = {"events.jsonl": "".join(f"{line}\n" for line in lines).encode()} if lines else {}
    if status is not None and not note:
        found["status.json"] = status
    if result is not None and any(word.state in lifecycle.RESULT_STATUSES for word in words):
        with suppress(LifecycleError):
            lifecycle.decode("result", result)
            found["result.json"] = result
    return found


class Watch:
    """Looks at an instance. boot_id: of the last boot that was seen.

    meet: is told of each boot before it is the last one.
    """

    def __init__(
        self, client: Client, name: str, meet: Callable[[str], None] = lambda _: None
    ) -> None:
        self.boot_id: str | None = None
        self._meet = meet
        self._client = client
        self._name = name
        self._since = 0.0
        self._stopped_at = time.monotonic()
        self._up_in: str | None = None  # the boot that was found to be up
        self._spared: dict[str, float] = {}

    def look(self) -> Seen:
        """What there is to see now. Raises HostError if Incus does not say."""
        doing = state(self._client, self._name)
        if doing == "":
            return Seen("")
        now = time.monotonic()
        if doing != "Stopped":
            self._stopped_at = now
        elif now - self._stopped_at < STOPPED_S:
            doing = "Stopping"
        boot = boot_id(self._client, self._name) if doing == "Running" else None
        if boot is not None and boot != self.boot_id:
            self._meet(boot)
            self.boot_id, self._since = boot, now
        if boot is not None and self._up_in != boot and now - self._since >= SETTLE_S:
            self._up_in = boot if has_init(self._client, self._name) else None
        seen = Seen(doing, self.boot_id, boot is not None and self._up_in == boot)
        if self.boot_id is None:
            return replace(seen, note="it does not tell which boot it is in")
        status, slow = self.read("status.json", MAX_FILE)
        events, also_slow = self.read("events.jsonl", TAIL, tail=True)
        words, note = words_of(self.boot_id, status, events)
        return replace(seen, words=words, note=slow or also_slow or note)

    def read(self, file: str, limit: int, tail: bool = False) -> tuple[bytes | None, str]:
        """One of the guest's files, and a note if it did not let it read."""
        note = f"its {file} cannot be read"
        if time.monotonic() < self._spared.get(file, 0.0):
            return None, note
        try:
            path = f"{DIRECTORY}/{file}"
            return read_file(self._client, self._name, path, limit, tail), ""
        except TimeoutError:
            self._spared[file] = time.monotonic() + SPARED_S
            return None, note


def wait(
    watch: Watch, wanted: str, timeout_s: float, tell: Callable[[Word], None] = lambda _: None
) -> Waited:
    """Wait until an instance is in the wanted state, has failed or is gone, or time is over.

    tell: is given each new event of the guest. Raises HostError.
    """
    begin = time.monotonic()
    telling = _Telling(tell)
    pause_s = POLL_S
    while True:
        seen = watch.look()
        telling.take(seen)
        took = time.monotonic() - begin
        outcome = decide(wanted, seen)
        if outcome is None and took >= timeout_s:
            outcome = TimedOut(last_word(seen))
        if outcome is not None:
            return Waited(outcome, took, watch.boot_id)
        time.sleep(min(pause_s, max(0.0, timeout_s - took)))
        pause_s = min(LONGEST_POLL_S, pause_s * 1.1)


class _Telling:
    """Gives each event away once, and not more than somebody would read."""

    def __init__(self, tell: Callable[[Word], None]) -> None:
        self._tell = tell
        self._boot: str | None = None
        self._seq = 0
        self._count = 0

    def take(self, seen: Seen) -> None:
        if seen.boot_id != self._boot:
            self._boot, self._seq = seen.boot_id, 0
        for word in seen.words:
            if word.seq > self._seq and self._count < MAX_TOLD:
                self._count += 1
                self._tell(word)
            self._seq = max(self._seq, word.seq)
