"""What came out of a run, as one value: what `osbuild-pika result --json` prints.

`collect` reads the run's files and looks at each artifact as it is now; the contract is
schemas/artifacts.schema.json. build.json is the engine's; what lies in an exported tree is from
the sandbox, so no link is followed there and only regular files are opened.
"""

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from osbuild_pika import runs
from osbuild_pika.errors import PikaError
from osbuild_pika.follow import read_result, read_status
from osbuild_pika.text import one_line

SCHEMA_VERSION = 1
MAX_BUILD = 16 * 1024 * 1024  # bytes of a build.json that are ever read
MAX_FILES = 64  # of an exported directory that are artifacts of their own
BLOCK = 1024 * 1024

_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MEDIA = {
    ".tar": "application/x-tar",
    ".gz": "application/gzip",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
    ".squashfs": "application/vnd.squashfs",
    ".sqsh": "application/vnd.squashfs",
    ".qcow2": "application/x-qemu-disk",
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class Artifact:
    """What a pipeline left. kind: file, directory, missing, other (a link, a device).

    Only a file has a size and a sha256. fingerprint: of the Incus image that it is, or a part of.
    """

    pipeline: str
    id: str | None
    name: str
    path: str
    kind: str
    size_bytes: int | None
    sha256: str | None
    media_type: str
    fingerprint: str | None = None


@dataclass(frozen=True)
class StageResult:
    """How a stage ended. log: the file of its output, from the run's directory."""

    pipeline: str
    type: str
    id: str
    key: str | None
    is_cached: bool
    success: bool
    duration_s: float
    log: str | None


@dataclass(frozen=True)
class SourceResult:
    """How a source ended. items: how many were wanted."""

    type: str
    success: bool
    items: int


@dataclass(frozen=True)
class Overview:
    """A run at a glance. Times are RFC 3339; what is not known, or not yet, is None.

    state: the lifecycle's. success: None until it has ended. message: foreign text.
    """

    run_id: str
    directory: str
    state: str
    success: bool | None
    exit_code: int | None
    message: str
    started_at: str | None
    finished_at: str | None
    duration_s: float | None

    def as_document(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Artifacts:
    """All of a run's results. manifest: its name, None if no engine of ours made the run."""

    overview: Overview
    manifest: str | None
    artifacts: tuple[Artifact, ...]
    stages: tuple[StageResult, ...]
    sources: tuple[SourceResult, ...]

    def as_document(self) -> dict[str, Any]:
        """The JSON object of schemas/artifacts.schema.json."""
        return {
            **self.overview.as_document(),
            "manifest": self.manifest,
            "artifacts": [_without_none(each, "fingerprint") for each in self.artifacts],
            "stages": [dataclasses.asdict(each) for each in self.stages],
            "sources": [dataclasses.asdict(each) for each in self.sources],
        }


def _without_none(value: Artifact, *names: str) -> dict[str, Any]:
    found = dataclasses.asdict(value)
    return {name: each for name, each in found.items() if each is not None or name not in names}


class ResultError(PikaError):
    """A run's files cannot be read for its results."""


def overview(directory: str) -> Overview:
    """Look at a run. Raises LifecycleError if a document of it cannot be read."""
    result, status = read_result(directory), read_status(directory)
    started = runs.read_facts(directory).get("created_at")
    started = started if isinstance(started, str) else None
    finished = result["finished_at"] if result else None
    last = result or status or {}
    return Overview(
        run_id=os.path.basename(os.path.abspath(directory)),
        directory=os.path.abspath(directory),
        state=last.get("status") or last.get("state") or "requested",
        success=result["status"] == "completed" if result else None,
        exit_code=result.get("exit_code") if result else None,
        message=last.get("message", ""),
        started_at=started,
        finished_at=finished,
        duration_s=seconds_between(started, finished),
    )


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one RFC 3339 time to another, not below 0; None if one of them is none."""
    try:
        first, last = (datetime.fromisoformat(each or "") for each in (start, end))
        return round(max(0.0, (last - first).total_seconds()), 3)
    except (TypeError, ValueError):
        return None


def collect(run_directory: str) -> Artifacts:
    """Everything that came out of a run, also of one that failed or has not ended.

    Reads every artifact for its sha256. Raises LifecycleError, ResultError.
    """
    facts = _read_build(run_directory)
    try:
        artifacts = [each for export in facts.get("exports", []) for each in _look(export)]
        return Artifacts(
            overview(run_directory),
            facts.get("manifest"),
            tuple(artifacts),
            collect_stages(run_directory),
            tuple(_taken(SourceResult, each) for each in facts.get("sources", [])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _misformed(run_directory, error) from None
    except OSError as error:
        raise ResultError(f"{one_line(str(error.filename))}: {error.strerror}") from None


def past_durations(root: str, count: int = 20) -> dict[str, float]:
    """Seconds that stages took in the last runs, by their id and by their type.

    What cannot be read is passed over: it is for estimates only.
    """
    found: dict[str, float] = {}
    for run_id in _newest(root, count):
        try:
            stages = collect_stages(os.path.join(root, run_id))
        except ResultError:
            continue
        for stage in stages:
            if stage.success and not stage.is_cached:
                found.setdefault(stage.id, stage.duration_s)
                found.setdefault(stage.type, stage.duration_s)
    return found


def _newest(root: str, count: int) -> list[str]:
    def age(run_id: str) -> int:
        try:
            return os.stat(os.path.join(root, run_id, "build.json")).st_mtime_ns
        except OSError:
            return 0

    return sorted(runs.all_ids(root), key=age, reverse=True)[:count]


def collect_stages(directory: str) -> tuple[StageResult, ...]:
    """The stages in a run's build.json; none without one. Raises ResultError."""
    try:
        stages = _read_build(directory).get("stages", [])
        return tuple(_taken(StageResult, each) for each in stages)
    except (KeyError, TypeError, AttributeError) as error:
        raise _misformed(directory, error) from None


def _misformed(directory: str, error: Exception) -> ResultError:
    return ResultError(f"{_shown(directory)}: has not the engine's form: {error}")


def _shown(directory: str) -> str:
    return one_line(os.path.join(directory, "build.json"))


def _read_build(directory: str) -> dict[str, Any]:
    """The engine's build.json; {} if there is none. Raises ResultError."""
    try:
        fd = os.open(os.path.join(directory, "build.json"), _FILE)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ResultError(f"{_shown(directory)}: is not a regular file")
            found = json.loads(file.read(MAX_BUILD))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResultError(f"{_shown(directory)}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ResultError(f"{_shown(directory)}: is no JSON") from None
    if not isinstance(found, dict):
        raise ResultError(f"{_shown(directory)}: is no object")
    return found


def _taken(kind: Any, given: dict[str, Any]) -> Any:
    """A frozen value of the fields that it has; the engine may write more."""
    return kind(**{field.name: given[field.name] for field in dataclasses.fields(kind)})


def _look(export: dict[str, Any]) -> Iterator[Artifact]:
    """The artifacts of one export, as they lie there now."""
    pipeline, key, path = export["pipeline"], export["id"], os.path.abspath(export["path"])
    fingerprint = export.get("fingerprint")
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        yield _plain(pipeline, key, path, "missing")
        return
    if stat.S_ISDIR(mode):
        names = _regular_names(path)
        if names is None:
            yield _plain(pipeline, key, path, "directory")
            return
    elif stat.S_ISREG(mode):
        path, name = os.path.split(path)
        names = [name]
    else:
        yield _plain(pipeline, key, path, "other")
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in names:
            where = os.path.join(path, name)
            artifact = _plain(pipeline, key, where, "file")
            yield _measured(artifact, fd, fingerprint)
    finally:
        os.close(fd)


def _plain(pipeline: str, key: str | None, path: str, kind: str) -> Artifact:
    name = os.path.basename(path)
    media = "inode/directory" if kind == "directory" else media_type(name)
    return Artifact(pipeline, key, name, path, kind, None, None, media)


def media_type(name: str) -> str:
    """What a file's name says about its content."""
    return _MEDIA.get(os.path.splitext(name)[1].lower(), "application/octet-stream")


def _regular_names(path: str) -> list[str] | None:
    """The names in a directory that holds 1 to MAX_FILES regular files only; else None.

    Names that cannot be shown, or are no UTF-8, make it a tree as well.
    """
    names: list[str] = []
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                is_plain = entry.is_file(follow_symlinks=False) and entry.name.isprintable()
                if not is_plain or len(names) == MAX_FILES:
                    return None
                names.append(entry.name)
    finally:
        os.close(fd)
    return sorted(names) or None


def _measured(artifact: Artifact, directory_fd: int, fingerprint: str | None) -> Artifact:
    """A file with its size and sha256; "other" if it is no regular file any more."""
    try:
        fd = os.open(artifact.name, _FILE, dir_fd=directory_fd)
    except FileNotFoundError:
        return dataclasses.replace(artifact, kind="missing")
    except OSError:  # a link, since we looked
        return dataclasses.replace(artifact, kind="other")
    digest, size = hashlib.sha256(), 0
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return dataclasses.replace(artifact, kind="other")
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return dataclasses.replace(
        artifact, size_bytes=size, sha256=digest.hexdigest(), fingerprint=fingerprint
    )
