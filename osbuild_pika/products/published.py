"""A directory of images for others: <name>/<output>/<files>, and <name>/image.json.

Each file is replaced in one step; image.json comes last and has the digest of each, so who reads
while an image is replaced sees that it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.engine import disk
from osbuild_pika.errors import ExitCode, InputError, PikaError
from osbuild_pika.tasks import files

FACTS = "image.json"
OUTPUTS = ("incus-unified", "incus-split", "rootfs-tar", "squashfs")


class Output(NamedTuple):
    """One output of an image. files: paths, in the order in which Incus wants them.

    size_bytes, fingerprint: of all together; the fingerprint is Incus's.
    """

    name: str
    files: tuple[str, ...]
    size_bytes: int
    fingerprint: str

    @property
    def is_for_incus(self) -> bool:
        return self.name.startswith("incus-")


def exported(manifest: Any, directory: str) -> Iterator[Output]:
    """The outputs of a definition's manifest that lie below a directory now. Raises InputError."""
    for pipeline in manifest["pipelines"]:
        found = measured(pipeline, directory)
        if found is not None:
            yield found


def measured(pipeline: Any, directory: str, fingerprint: str | None = None) -> Output | None:
    """The output that a pipeline of a manifest is, as it lies below a directory now, if it is one.

    A tree is the sandbox's work: links in it are not followed. fingerprint: None if nobody knows
    it: then the files are read. Raises InputError.
    """
    from osbuild_pika.incus import local

    options = pipeline["stages"][-1]["options"]
    names = [options[key] for key in ("filename", "metadata", "rootfs") if key in options]
    folder = os.path.join(directory, pipeline["name"])
    if not names or not os.path.isdir(folder):
        return None
    paths = [os.path.join(folder, name) for name in names]
    if fingerprint is not None:
        size = sum(map(local.size_of, paths))
        return Output(pipeline["name"], tuple(paths), size, fingerprint)
    found = local.measure(*paths, flags=os.O_NOFOLLOW)
    return Output(pipeline["name"], tuple(paths), found.size_bytes, found.fingerprint)


class PublishError(PikaError):
    """Nothing more could be published."""

    exit_code = ExitCode.PUBLISH_FAILED


class NotBuiltError(PublishError):
    """What is to be published is not what was built: its bytes are others."""


def are_there(outputs: Sequence[Output]) -> bool:
    """Whether all files are there, and as large as they were."""
    try:
        return bool(outputs) and all(
            sum(os.lstat(path).st_size for path in each.files) == each.size_bytes
            for each in outputs
        )
    except OSError:
        return False


def are_told(directory: str, name: str, outputs: Sequence[Output]) -> bool:
    """Whether image.json says of these outputs that they are there."""
    try:
        told: Any = json.loads(Path(directory, name, FACTS).read_bytes())
        found = {each["output"]: each["fingerprint"] for each in told["outputs"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return found == {each.name: each.fingerprint for each in outputs}


def place(directory: str, name: str, outputs: Sequence[Output]) -> list[Output]:
    """Where the outputs of an image are published."""
    return [
        each._replace(
            files=tuple(
                os.path.join(directory, name, each.name, os.path.basename(path))
                for path in each.files
            )
        )
        for each in outputs
    ]


def publish(directory: str, name: str, outputs: Sequence[Output]) -> None:
    """Put the outputs of an image into a directory; what was there of others goes. Raises
    PublishError."""
    documents, target_files = [], []
    try:
        for each in outputs:
            _check(each)
        for given, target in zip(outputs, place(directory, name, outputs), strict=True):
            os.makedirs(os.path.join(directory, name, given.name), exist_ok=True)
            target_files.append(target.files)
            pairs = zip(given.files, target.files, strict=True)
            documents.append(
                {
                    "output": given.name,
                    "fingerprint": given.fingerprint,
                    "size_bytes": given.size_bytes,
                    "files": [_copy(source, to) for source, to in pairs],
                }
            )
        facts = {"schema_version": 1, "name": name, "outputs": documents}
        text = json.dumps(facts, indent=2) + "\n"
        files.replace(Path(directory, name, FACTS), text.encode())
        _sweep(Path(directory, name), {path for each in target_files for path in each})
    except OSError as error:
        raise PublishError(f"{error.filename or directory}: {error.strerror}") from None


def _check(built: Output) -> None:
    from osbuild_pika.incus import local

    try:
        is_same = local.measure(*built.files, flags=os.O_NOFOLLOW).fingerprint == built.fingerprint
    except InputError as error:
        raise NotBuiltError(str(error)) from None
    if not is_same:
        raise NotBuiltError(f"{built.files[0]}: is not what was built; the next run builds it")


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove files of outputs that are no more."""
    for name in OUTPUTS:
        paths = list((folder / name).iterdir()) if (folder / name).is_dir() else []
        for path in paths:
            if str(path) not in kept and path.is_file():
                path.unlink()
        if paths and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def _copy(source: str, target: str) -> dict[str, Any]:
    """Replace a file by another one's content; returns what image.json says of it."""
    temporary = f"{target}.tmp"
    try:
        Path(temporary).unlink(missing_ok=True)  # of who was killed; a link is not followed
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(source, "rb") as given, open(fd, "wb") as made:
            shutil.copyfileobj(given, made)
            made.flush()
            os.fsync(made.fileno())
        with open(temporary, "rb") as made:
            digest = hashlib.file_digest(made, "sha256").hexdigest()
        os.replace(temporary, target)
        disk.sync_directory(os.path.dirname(target))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    size = os.path.getsize(target)
    folder = os.path.basename(os.path.dirname(target))
    return {
        "path": f"{folder}/{os.path.basename(target)}",
        "size_bytes": size,
        "sha256": digest,
    }
