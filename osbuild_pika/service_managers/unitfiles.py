"""Files that an init system reads, one for each service, in a directory that its owner named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from osbuild_pika.service_managers import base
from osbuild_pika.service_managers.base import (
    AlreadyRegisteredError,
    BadServiceError,
    RegistrationNotSupportedError,
    ServiceError,
    ServiceManagerKind,
)


def directory_of(kind: ServiceManagerKind, directory: str | None, example: str) -> str:
    """The directory, if there is one. Raises RegistrationNotSupportedError: example says how."""
    if directory is None:
        how = f"name a directory of unit files to allow it, such as --unit-directory {example}"
        raise RegistrationNotSupportedError(kind, how)
    return directory


def write(profile: str, path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a new one. No other user reads it: the environment can be secret.

    Raises AlreadyRegisteredError, ServiceError.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise AlreadyRegisteredError(profile) from None
    except OSError as error:
        raise ServiceError(profile, f"{path}: {error.strerror}") from None
    try:
        with open(fd, "wb") as file:
            file.write(content)
    except OSError as error:
        os.unlink(path)
        raise ServiceError(profile, f"{path}: {error.strerror}") from None


def profiles(directory: str | None, prefix: str, suffix: str = "") -> tuple[str, ...]:
    """Those with a file in the directory, sorted; none if it is not there."""
    if directory is None or not os.path.isdir(directory):
        return ()
    names = [name for name in os.listdir(directory) if name.endswith(suffix)]
    named = (name.removesuffix(suffix) for name in names if name.startswith(prefix))
    found = (name.removeprefix(prefix) for name in named)
    return tuple(sorted(filter(base.is_profile_name, found)))


def command_of(command: Sequence[str], flag: str | None, profile: str) -> tuple[str, ...]:
    """A command with its program's absolute path, and the flag that names the profile.

    Raises ValueError for what cannot be, such as a program that is not there.
    """
    words = base.profile_arguments(base.validate_command(command), flag, profile)
    program = shutil.which(words[0])
    if program is None:
        raise BadServiceError(f"{ascii(words[0])[:200]}: there is no such program to run")
    return (os.path.abspath(program), *words[1:])
