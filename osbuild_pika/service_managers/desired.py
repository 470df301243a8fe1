"""What is to be registered, and what of it is to run: kept over crashes and boots.

    <directory>/<profile>.json    one each: {"command", "env", "notify", "profile_flag", "user",
                                  "wanted": "running" | "stopped"}, mode 0600: env may be secret

Each file is replaced as a whole, durably. Whoever cannot write here steers services, but only
until the next boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import namedtuple
from collections.abc import Iterator
from typing import Any, Literal

from osbuild_pika.errors import HostError
from osbuild_pika.service_managers.base import (
    ServiceError,
    is_profile_name,
    validate_command,
    validate_environment,
    validate_notify,
    validate_profile_name,
)

Wanted = Literal["running", "stopped"]
MAX_BYTES = 1 << 20
_SUFFIX = ".json"

# One service as it was registered. user: a name of the host.
Service = namedtuple("Service", "command env notify profile_flag user wanted")


class Desired:
    """The directory with one file a profile. It is made, mode 0700, by the first that is kept."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Whoever registers or unregisters does it alone; others wait. Raises HostError."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            what = "cannot keep services there: be their owner, or name another with --state"
            raise HostError(f"{self.directory}: {error.strerror}; {what}") from None
        try:
            if os.fstat(fd).st_uid != os.geteuid():  # its owner says what runs as whom
                what = "it is another user's; be that user, or name another with --state"
                raise HostError(f"{self.directory}: {what}")
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def is_ours(self) -> bool:
        """Whether what we do is kept: an operator of another's services has no right to."""
        try:
            return os.stat(self.directory).st_uid == os.geteuid()
        except OSError:
            return False

    def profiles(self) -> tuple[str, ...]:
        """All that are kept, sorted. Raises HostError."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise HostError(f"{self.directory}: {error.strerror}") from None
        found = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return tuple(sorted(filter(is_profile_name, found)))

    def read(self, profile: str) -> Service | None:
        """What was kept of a profile. Raises ServiceError for what cannot be a service."""
        try:
            with open(self._path(profile), "rb") as file:
                return parse(profile, file.read(MAX_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ServiceError(profile, f"{self._path(profile)}: {error.strerror}") from None

    def write(self, profile: str, service: Service) -> None:
        """Durable when it returns; a crash leaves the old or the new. Raises OSError."""
        path, new = self._path(profile), os.path.join(self.directory, f".{profile}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # of a writer that was killed
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            json.dump(service._asdict(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        self._settle()

    def forget(self, profile: str) -> None:
        """Durable when it returns. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(profile))
            self._settle()

    def want(self, profile: str, wanted: Wanted) -> None:
        """Keep whether it is to run, if we may."""
        if not self.is_ours():
            return
        with self.held():
            service = self.read(profile)
            if service is not None and service.wanted != wanted:
                self.write(profile, service._replace(wanted=wanted))

    def _path(self, profile: str) -> str:
        return os.path.join(self.directory, profile + _SUFFIX)

    def _settle(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def parse(profile: str, content: bytes) -> Service:
    """A service of its file. Raises ServiceError."""
    try:
        found: Any = json.loads(content)
        service = Service(**found)
        validate_profile_name(profile)
        validate_command(service.command)
        validate_environment(service.env)
        validate_notify(service.notify)
        if service.wanted not in ("running", "stopped"):
            raise ValueError("wanted is neither running nor stopped")
    except (ValueError, TypeError, AttributeError) as error:
        what = f"what is kept of it is damaged ({error}); unregister and register it again"
        raise ServiceError(profile, what) from None
    return service
