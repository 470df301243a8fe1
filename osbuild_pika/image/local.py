"""What a definition takes from its directory, and its passwords: read and hashed here only."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.image.reading import DefinitionError, Fault, read_file, shown
from osbuild_pika.image.rules import is_hash
from osbuild_pika.image.values import Definition

MAX_BYTES = 32 * 1024 * 1024  # of all files together: they stand in the manifest
MAX_KEYRING = 4 * 1024 * 1024  # bytes
_ROUNDS = 200_000


@dataclass(frozen=True)
class Local:
    """contents: of each `source`. hashes: crypt's, of each user's password."""

    contents: Mapping[str, bytes] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    keyring: bytes | None = None


def gather(definition: Definition, path: str) -> Local:
    """Read and hash all that a definition needs. path: the definition's.

    Raises DefinitionError with all files that cannot be taken, InputError, HostError.
    """
    contents = read_sources(definition, path)
    hashes = {
        user.name: hashed(user.password, f"{definition.name} {user.name}")
        for user in definition.users
        if user.password is not None
    }
    return Local(contents, hashes, read_keyring(definition, path))


def read_sources(definition: Definition, path: str) -> dict[str, bytes]:
    """The content of each file's `source`. Raises DefinitionError."""
    found: dict[str, bytes] = {}
    faults = []
    room = MAX_BYTES
    for file in definition.files:
        if file.source is None or file.source in found:
            continue
        try:
            found[file.source] = _read(Path(path).parent, file.source, room)
            room -= len(found[file.source])
        except InputError as error:
            faults.append(Fault(*file.place, str(error)))
    if faults:
        raise DefinitionError(Path(path).name, faults)
    return found


def read_keyring(definition: Definition, path: str) -> bytes | None:
    """The bytes of the definition's own keyring. Raises InputError."""
    if definition.keyring is None:
        return None
    name = f"keyring {shown(definition.keyring)}"
    try:
        found = read_file(Path(path).parent / definition.keyring, MAX_KEYRING + 1)
    except FileNotFoundError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if len(found) > MAX_KEYRING:
        raise InputError(f"{name}: has more than {MAX_KEYRING} bytes")
    return found


def _read(directory: Path, source: str, room: int) -> bytes:
    """A regular file below a directory, whatever links there are on the way. Raises InputError."""
    try:
        top, real = os.path.realpath(directory), os.path.realpath(directory / source, strict=True)
        if os.path.commonpath([top, real]) != top:
            raise InputError(f"{shown(source)} leads out of the definition's directory")
        fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InputError(f"{shown(source)} is not a regular file: name each file")
            data = file.read(room + 1)
    except OSError as error:
        raise InputError(f"{shown(source)}: {error.strerror}") from None
    if len(data) > room:
        raise InputError(f"{shown(source)}: all files together have more than {MAX_BYTES} bytes")
    return data


def hashed(password: str, where: str) -> str:
    """crypt's SHA-512 hash of a password; a hash, none and locked ones stay as they are.

    The salt is derived, so that the same definition gives the same image. It comes out of a slow
    function: from a quick one guesses could be tried on the salt instead of the hash. where: sets
    equal passwords apart. Raises HostError.
    """
    if is_hash(password):
        return password
    if shutil.which("openssl") is None:
        raise HostError("a password in clear needs the program openssl: install it, or give a hash")
    data = password.encode()
    salt = hashlib.pbkdf2_hmac("sha512", data, f"osbuild-pika {where}".encode(), _ROUNDS, 12)
    done = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", base64.b64encode(salt, b"./").decode(), "-stdin"],
        input=data + b"\n",
        capture_output=True,
        check=False,
    )
    found = done.stdout.decode("ascii", "replace").strip()
    if done.returncode or not found.startswith("$6$"):
        raise HostError(f"openssl cannot hash a password: it ended with {done.returncode}")
    return found
