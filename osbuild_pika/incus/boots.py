"""What is kept of a boot, in the run that made the image: <run>/boots/<boot id>/.

    boot.json       the host's: which instance of which image, how it was waited for, how that ended
    status.json events.jsonl result.json    the guest's word: size-capped, of this boot only

A guest is not trusted: what it says never touches the build's own records, and its boot's id is
one before it becomes a path.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from osbuild_pika import runs
from osbuild_pika.errors import PikaError
from osbuild_pika.text import one_line

SCHEMA_VERSION = 1
MAX_FACTS = 64 * 1024  # bytes of a boot.json that are ever read
MAX_BOOTS = 1000  # of one run that are ever listed
MAX_BUILD = 16 * 1024 * 1024
WAITING = "waiting"  # the outcome of a boot that nobody wrote the end of

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def parse_boot_id(data: bytes) -> str | None:
    """A boot's id if that is one: only then it may become a path."""
    text = data.decode("ascii", "replace").strip()
    return text if _UUID.fullmatch(text) else None


class BootError(PikaError):
    """What is known of a boot cannot be kept."""


@dataclass(frozen=True)
class Boot:
    """One boot as the host saw it. Times: RFC 3339. message: may be the guest's, made safe.

    outcome: waiting, reached, failed, timed out, gone, interrupted. seconds: from the start on.
    """

    boot_id: str
    instance: str
    project: str
    fingerprint: str
    wanted: str
    outcome: str
    state: str
    message: str
    started_at: str
    finished_at: str | None
    seconds: float | None


def keep(run: str, boot: Boot, files: Mapping[str, bytes]) -> str:
    """Write what is known of a boot into a run; returns its directory.

    files: the guest's, by name. Each is replaced in one step, the host's facts come last. Raises
    BootError, also if these are the records of another start that had the same id.
    """
    if parse_boot_id(boot.boot_id.encode()) is None:
        raise BootError(f"{one_line(boot.boot_id, 60)}: is no id of a boot")
    directory = os.path.join(run, "boots", boot.boot_id)
    try:
        os.makedirs(directory, exist_ok=True)
        if os.path.realpath(directory) != os.path.join(
            os.path.realpath(run), "boots", boot.boot_id
        ):
            raise BootError(f"{one_line(directory)}: is a link")
        before = _read(directory)
        if before is not None and not _is_same(before, boot):
            raise BootError(
                f"{boot.instance}: claims the boot id of {before.instance}: not recorded"
            )
        for name, data in files.items():
            _write(directory, name, data)
        facts = {"schema_version": SCHEMA_VERSION, **asdict(boot)}
        _write(directory, "boot.json", (json.dumps(facts, indent=2) + "\n").encode())
    except OSError as error:
        raise BootError(f"{one_line(directory)}: {error.strerror}") from None
    return directory


def _is_same(one: Boot, other: Boot) -> bool:
    return (one.instance, one.project, one.started_at) == (
        other.instance,
        other.project,
        other.started_at,
    )


def _write(directory: str, name: str, data: bytes) -> None:
    temporary = os.path.join(directory, f".{name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(directory, name))


def boots_of(run: str) -> list[Boot]:
    """The boots that a run knows of, the oldest first; what cannot be read is passed over."""
    root = os.path.join(run, "boots")
    try:
        names = sorted(filter(lambda name: parse_boot_id(name.encode()), os.listdir(root)))
    except OSError:
        return []
    found = [_read(os.path.join(root, name)) for name in names[:MAX_BOOTS]]
    # An instance that started again has boots of one start: the one that goes on is the newest.
    return sorted(filter(None, found), key=lambda boot: (boot.started_at, boot.finished_at or "~"))


def _read(directory: str) -> Boot | None:
    try:
        facts = json.loads(_bytes(os.path.join(directory, "boot.json"), MAX_FACTS))
        boot = Boot(**{name: facts[name] for name in Boot.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (
        value for name, value in asdict(boot).items() if name not in ("finished_at", "seconds")
    )
    return boot if all(isinstance(value, str) for value in texts) else None


def _bytes(path: str, limit: int) -> bytes:
    """A regular file's first bytes. Raises OSError."""
    with open(os.open(path, _FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path}: is no file")
        return file.read(limit)


def find_run(root: str, fingerprint: str, paths: tuple[str, ...] = ()) -> str | None:
    """The newest run that made an image: its export has the fingerprint, or one of these paths,
    or a stage of it told of the fingerprint. None if no run here did."""
    for run in newest(root, ""):
        if _has_made(run, fingerprint, paths):
            return run
    return None


def newest(root: str, name: str) -> list[str]:
    """The runs of a name (all for ""), the newest first."""

    def begun(run: str) -> tuple[int, str]:
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(run, "run.json")).st_mtime_ns, run
        return 0, run

    ids = [each for each in runs.all_ids(root) if not name or runs.is_run_of(each, name)]
    return sorted((os.path.join(root, each) for each in ids), key=begun, reverse=True)


def _has_made(run: str, fingerprint: str, paths: tuple[str, ...]) -> bool:
    try:
        exports: Any = json.loads(_bytes(os.path.join(run, "build.json"), MAX_BUILD))["exports"]
        for export in exports:
            if export.get("fingerprint") == fingerprint:
                return True
            if any(_lies_in(path, str(export["path"])) for path in paths):
                return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    with contextlib.suppress(OSError):
        log = _bytes(os.path.join(run, "events.jsonl"), MAX_BUILD)
        return f'"{fingerprint}"'.encode() in log
    return False


def _lies_in(path: str, export: str) -> bool:
    real = os.path.realpath(path)
    return real == export or os.path.dirname(real) == os.path.realpath(export)
