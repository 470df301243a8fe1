"""From what a user calls an image to a guest in the wanted state, with its records kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from osbuild_pika import runs
from osbuild_pika.errors import InputError
from osbuild_pika.incus import boots, images, instances, local, waiting
from osbuild_pika.incus.client import Client
from osbuild_pika.incus.local import ImageFiles
from osbuild_pika.results import Artifact, collect, overview
from osbuild_pika.text import one_line

IMAGE_PIPELINES = ("incus-unified", "incus-split")  # what image definitions call them

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """An image that was found. files: None if Incus must have it. run: the one that made it."""

    fingerprint: str
    files: ImageFiles | None
    run: str | None


@dataclass(frozen=True)
class Launch:
    """What is asked for. wanted: a lifecycle state, or None not to wait. timeout_s: from the
    start of the instance on. is_replacing: an instance of that name is deleted first."""

    name: str
    wanted: str | None = "ready"
    timeout_s: float = 120.0
    profiles: Sequence[str] = ("default",)
    config: Mapping[str, str] = field(default_factory=dict)
    is_replacing: bool = False
    alias: str | None = None


@dataclass(frozen=True)
class Launched:
    """What came of it. outcome: None if it was not waited for. seconds: from the start on."""

    outcome: waiting.Outcome | None
    seconds: float
    boot_id: str | None
    is_imported: bool


def find_image(text: str, rootfs: str | None = None) -> Image:
    """What IMAGE means: a file or a directory of them, a run or the name of runs, else the
    fingerprint of an image in Incus. Raises InputError."""
    if rootfs is not None:
        return _of_files((text, rootfs))
    is_run = _is_run(text)
    if not is_run and (os.path.isfile(text) or _is_path(text)):
        return _of_files((text, None) if not os.path.isdir(text) else local.files_in(text))
    for run in [text] if is_run else boots.newest(runs.root(), text):
        if is_run or overview(run).success:
            return replace(_of_files(_files_of(run)), run=os.path.abspath(run))
    if os.path.isdir(text):
        return _of_files(local.files_in(text))
    if images.is_fingerprint(text):
        return Image(text, None, None)
    shown = ascii(text)[1:-1][:200]
    hint = "a run or definition that was built, a file, or 12 digits of a fingerprint in Incus"
    raise InputError(f"{shown}: there is no such image; IMAGE is {hint}; see `osbuild-pika runs`")


def _is_run(text: str) -> bool:
    """Whether this is the directory of a run: it is taken before a directory of files."""
    return os.path.isfile(os.path.join(text, "run.json"))


def _is_path(text: str) -> bool:
    return not runs.is_id(text)


def _of_files(paths: tuple[str, str | None]) -> Image:
    files = local.measure(*paths)
    whole = tuple(path for path in paths if path is not None)
    return Image(files.fingerprint, files, boots.find_run(runs.root(), files.fingerprint, whole))


def _files_of(run: str) -> tuple[str, str | None]:
    """The image among what a run made. Raises InputError."""
    made = [each for each in collect(run).artifacts if each.kind in ("file", "missing")]
    pipelines = list(dict.fromkeys(each.pipeline for each in made))
    named = [name for name in IMAGE_PIPELINES if name in pipelines] or pipelines
    where = f"run {os.path.basename(os.path.abspath(run))}"
    if not named:
        raise InputError(
            f"{one_line(where)}: made no files; build it with an Incus image as output"
        )
    if len(named) > 1 and named[0] not in IMAGE_PIPELINES:
        raise InputError(f"{one_line(where)}: made {one_line(', '.join(named))}: name a file of it")
    chosen: list[Artifact] = [each for each in made if each.pipeline == named[0]]
    for each in chosen:
        if each.kind == "missing":
            raise InputError(f"{one_line(each.path)}: is gone; build it again, or name a file")
    return local.choose([each.path for each in chosen], where)


def resolve(client: Client, image: Image) -> Image:
    """The image with its whole fingerprint, and the run that made it, if one here did."""
    if image.files is not None:
        return image
    found = images.find(client, image.fingerprint)
    if found is None:
        where = one_line(client.path)
        raise InputError(
            f"{image.fingerprint}: no such image in Incus ({where}), and no run or file"
        )
    fingerprint = str(found["fingerprint"])
    return Image(fingerprint, None, boots.find_run(runs.root(), fingerprint))


class Launching:
    """Makes an instance of an image, starts it, waits for it, keeps its records.

    tell: is given one line for each thing that happens. has_begun: there may be an instance of
    ours, for who is interrupted.
    """

    def __init__(self, client: Client, wish: Launch, image: Image, tell: Tell) -> None:
        self.has_begun = False
        self._started_at: str | None = None
        self._client = client
        self._wish = wish
        self._image = image
        self._tell = tell
        self._begun = 0.0
        self._watch = waiting.Watch(client, wish.name, self._meet)

    def run(self) -> Launched:
        """Raises InputError, HostError, GuestError; nothing for a guest that is not ready."""
        wish = self._wish
        self._check_name()
        is_imported = False
        if self._image.files is not None:
            is_imported = images.import_files(self._client, self._image.files, self._tell)
        if wish.alias is not None:
            before = images.point(self._client, wish.alias, self._image.fingerprint)
            if before not in (None, self._image.fingerprint):
                self._tell(f"alias {wish.alias} pointed to {before[:12] if before else ''} before")
        if wish.is_replacing and instances.delete(self._client, wish.name):
            self._tell(f"deleted the {wish.name} that was there")
        order = instances.Order(wish.name, self._image.fingerprint, wish.profiles, wish.config)
        self._tell(f"creating {wish.name} of {self._image.fingerprint[:12]}")
        self.has_begun = True
        instances.create(self._client, order, self._tell)
        self._tell(f"starting {wish.name}")
        self._started_at = _now()
        self._begun = time.monotonic()
        instances.start(self._client, wish.name)
        return self._wait(is_imported)

    def _check_name(self) -> None:
        """Refuse a name that is taken before anything is done; it is made free last."""
        name = instances.check_name(self._wish.name)
        if not self._wish.is_replacing and instances.state(self._client, name):
            raise InputError(f"{name}: there is such an instance; --replace deletes it first")

    def _wait(self, is_imported: bool) -> Launched:
        wish = self._wish
        if wish.wanted is None:
            return Launched(None, self._seconds(), None, is_imported)
        left_s = max(0.0, wish.timeout_s - self._seconds())
        waited = waiting.wait(
            self._watch, wish.wanted, left_s, lambda word: self._tell(f"{wish.name} says {word}")
        )
        self._record(waited.boot_id, *told(waited.outcome))
        return Launched(waited.outcome, self._seconds(), waited.boot_id, is_imported)

    def interrupted(self) -> bool:
        """Keep that nobody waits any more. Returns whether there is an instance of ours."""
        if not self.has_begun:
            return False
        self._record(self._watch.boot_id, "interrupted", "", "the launch was interrupted")
        return bool(instances.state(self._client, self._wish.name))

    def _meet(self, boot_id: str) -> None:
        """Keep that a boot has begun, and that the one before it is over."""
        self._record(self._watch.boot_id, "gone", "stopped", "it started again")
        self._record(boot_id, boots.WAITING, "", "")

    def _record(self, boot_id: str | None, outcome: str, state: str, message: str) -> None:
        """Keep what is known of a boot in the run that made the image, if there is one."""
        run = self._image.run
        if run is None or boot_id is None or self._started_at is None:
            return
        is_over = outcome != boots.WAITING
        boot = boots.Boot(
            boot_id=boot_id,
            instance=self._wish.name,
            project=self._client.project,
            fingerprint=self._image.fingerprint,
            wanted=str(self._wish.wanted),
            outcome=outcome,
            state=state,
            message=one_line(message),
            started_at=self._started_at,
            finished_at=_now() if is_over else None,
            seconds=round(self._seconds(), 3) if is_over else None,
        )
        try:
            boots.keep(run, boot, self._records(boot_id) if is_over else {})
        except boots.BootError as error:
            self._tell(f"the boot is not recorded: {error}")

    def _records(self, boot_id: str) -> dict[str, bytes]:
        """The guest's files of this boot, as far as they are documents of the lifecycle."""
        limit = waiting.MAX_FILE
        status, _ = self._watch.read("status.json", limit)
        events, _ = self._watch.read("events.jsonl", limit, tail=True)
        result, _ = self._watch.read("result.json", limit)
        return waiting.records(boot_id, status, events, result)

    def _seconds(self) -> float:
        return time.monotonic() - self._begun


def told(outcome: waiting.Outcome) -> tuple[str, str, str]:
    """An outcome as (word, state, message)."""
    match outcome:
        case waiting.Reached(state, message):
            return "reached", state, message
        case waiting.Failed(message):
            return "failed", "failed", message
        case waiting.TimedOut(last):
            return "timed out", "", last
        case waiting.Gone(how, last):
            return "gone", how, last


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
