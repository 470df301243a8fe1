"""What every service manager is, what it refuses, and which one this machine has.

A profile is what users name: "default", "web". Its service is what the service manager knows,
with our prefix: "pika-web".
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from osbuild_pika.errors import ExitCode, HostError, InputError, PikaError
from osbuild_pika.inside.services import shell
from osbuild_pika.text import one_line

ServiceManagerKind = Literal["systemd", "launchd", "windows", "s6", "openrc", "none"]

PREFIX = "pika-"
UNIT_PREFIX = "pika-service-"  # where guests have services of ours that are pika-cloud-*
DEFAULT_PROFILE = "default"
MAX_PROFILE = 200  # characters: prefix and ".NAME.dead" must fit NAME_MAX, 255
MAX_NOTIFY_FD = 1023  # what a descriptor can be without raising limits
_PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LAST_WORDS = 300  # characters of a program's stderr that a message repeats

# How a service is. is_wanted: it is started again when it ends. exit_code, signal: how its last
# process ended, None while it runs or if it did not end so. since_s: how long it is up, or down.
State = namedtuple("State", "is_up is_wanted is_ready pid exit_code signal since_s")


@runtime_checkable
class ServiceManager(Protocol):
    """Starts, stops and watches services by the names of their profiles.

    All raise ServiceError: NotRegisteredError for an unknown profile, CommandError if the service
    manager refused; and ValueError for what is no profile's name.
    """

    @property
    def kind(self) -> ServiceManagerKind:
        """Which init system this is."""

    def start(self, profile: str) -> None:
        """Have it run. It runs when this returns; a service that tells so is ready."""

    def stop(self, profile: str) -> None:
        """Have it not run. Its process is gone when this returns."""

    def restart(self, profile: str) -> None:
        """Stop it if it runs, and start it."""

    def is_running(self, profile: str) -> bool:
        """Whether its process runs now."""

    def supports_runtime_registration(self) -> bool:
        """Whether register and unregister work; else they raise NotImplementedError."""


@runtime_checkable
class Registrar(ServiceManager, Protocol):
    """A service manager that takes new services while it runs."""

    def register(
        self,
        profile: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        start_now: bool = True,
        notify: int | None = None,
    ) -> None:
        """Make a profile known: nothing of it is left if this raises.

        command: program and arguments, in no shell. env: added to the service's environment.
        notify: the descriptor on which the program writes a line once it is ready.
        Raises AlreadyRegisteredError, other ValueErrors for what cannot be, ServiceError.
        """

    def unregister(self, profile: str) -> None:
        """End and forget a profile; without effect if there is none of the name."""

    def state(self, profile: str) -> State:
        """All that is known of a service."""

    def list(self) -> tuple[str, ...]:
        """The registered profiles, sorted; none where registration does not work."""


class ServiceError(PikaError):
    """A service manager could not do what was asked. service: the profile, unprefixed."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service


class S6Error(ServiceError):
    """s6's supervision tree is not as it must be."""


class NotRegisteredError(ServiceError):
    """There is no service of that profile."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, profile: str) -> None:
        how = f"register it: osbuild-pika service register {profile} -- COMMAND"
        super().__init__(profile, f"no such service is registered; {how}")
        self.profile = profile


class AlreadyRegisteredError(ServiceError, ValueError):
    """There is a service of that profile."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, profile: str) -> None:
        how = f"first: osbuild-pika service unregister {profile}"
        super().__init__(profile, f"a service of that name is registered already; {how}")
        self.profile = profile


class CommandError(ServiceError):
    """A program of the service manager failed, took too long, or is missing.

    action: what was to be done. returncode: as of subprocess; None if it was ended because it
    took too long, 127 if it is missing. stderr: what it said.
    """

    def __init__(self, service: str, action: str, returncode: int | None, stderr: str) -> None:
        how = "took too long" if returncode is None else f"failed with status {returncode}"
        said = one_line(stderr.strip(), _LAST_WORDS)
        super().__init__(service, f"{action} {how}" + (f": {said}" if said else ""))
        self.action = action
        self.returncode = returncode
        self.stderr = stderr
        self.exit_code = _EXIT_CODES.get(returncode, ExitCode.FAILED)


_EXIT_CODES = {None: ExitCode.TIMED_OUT, 127: ExitCode.HOST_NOT_FIT}


class BadServiceError(InputError, ValueError):
    """A profile's name, command or environment that no service can have."""


class NoServiceManagerError(HostError, RuntimeError):
    """This machine has no service manager that we can talk to."""


class RegistrationNotSupportedError(PikaError, NotImplementedError):
    """This service manager takes no services from us at run time."""

    exit_code = ExitCode.HOST_NOT_FIT

    def __init__(self, kind: ServiceManagerKind, instead: str) -> None:
        super().__init__(f"{kind}: services cannot be registered at run time; {instead}")
        self.kind = kind


def is_profile_name(name: str) -> bool:
    """Whether a profile can be called so: what else lies beside our services is not ours."""
    return len(name) <= MAX_PROFILE and _PROFILE.fullmatch(name) is not None


def validate_profile_name(name: str) -> str:
    """Return a profile's name. Raises ValueError: it becomes part of paths and of unit names."""
    if not is_profile_name(name):
        rule = f"a-z, 0-9, and then also _ and -; at most {MAX_PROFILE} characters"
        raise BadServiceError(one_line(f"{ascii(name)[:60]} is no name of a profile: {rule}"))
    return name


def validate_environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy, sorted by key. Raises ValueError."""
    for key, value in (env or {}).items():
        if not _KEY.fullmatch(key):
            what = f"{ascii(key)[:60]} is no name of an environment variable"
            raise BadServiceError(f"{what}: letters, digits and _, no digit first")
        _validate_text(f"{key}: a value of the environment", value)
    return dict(sorted((env or {}).items()))


def validate_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return a copy. Raises ValueError."""
    if isinstance(command, str) or not command or not command[0]:
        raise BadServiceError("a service needs a command: its program and the arguments, as a list")
    for word in command:
        _validate_text("a service's command", word)
    return tuple(command)


def _validate_text(what: str, text: str) -> None:
    """Services are written as files of text. Raises ValueError."""
    if why := shell.why_not(text):
        raise BadServiceError(f"{what} {why}")


def validate_user(user: str | None) -> str | None:
    """Return a user's name, as a line of a file may hold it. Raises ValueError."""
    if user is not None and not (user and user.isprintable()):
        raise BadServiceError(f"{ascii(user)[:60]} is no name of a user")
    return user


def refuse_shells_own(env: Mapping[str, str]) -> None:
    """For services that a shell script starts. Raises ValueError."""
    for key in filter(shell.is_own, env):
        raise BadServiceError(f"{key} is the shell's own: it cannot be in a service's environment")


def validate_notify(notify: int | None) -> int | None:
    """Return a descriptor for the word that a service is ready. Raises ValueError."""
    if notify is not None and not 3 <= notify <= MAX_NOTIFY_FD:
        what = f"a service tells that it is ready on a descriptor from 3 to {MAX_NOTIFY_FD}"
        raise BadServiceError(f"{what}, not on {notify}")
    return notify


def profile_arguments(command: Sequence[str], flag: str | None, profile: str) -> tuple[str, ...]:
    """A command with the flag that names its profile; the default profile goes without."""
    is_named = flag is not None and profile != DEFAULT_PROFILE
    return (*command, flag, profile) if is_named and flag else tuple(command)


def detect_service_manager(root: str = "/", platform: str = sys.platform) -> ServiceManagerKind:
    """Which service manager runs this machine. Needs no rights; starts nothing."""
    if _is_s6(root):
        return "s6"
    if platform == "win32":
        return "windows"
    if platform == "darwin":
        return "launchd"
    if os.path.isdir(os.path.join(root, "run/systemd/system")):
        return "systemd"
    if os.path.isdir(os.path.join(root, "run/openrc")):
        return "openrc"
    return "none"


def _is_s6(root: str) -> bool:
    """s6 as the first process. /proc/1/exe would say it to root alone, comm says it to all."""
    try:
        with open(os.path.join(root, "proc/1/comm"), "rb") as file:
            name = file.read(64).strip()
    except OSError:
        return False
    return name == b"s6-svscan" and os.path.isdir(os.path.join(root, "run/s6/basedir"))


# Module of that name -> its class. Each is imported when it is asked for: s6's needs Unix.
_BACKENDS: Mapping[ServiceManagerKind, str] = {
    "s6": "S6ServiceManager",
    "systemd": "SystemdServiceManager",
    "openrc": "OpenRCServiceManager",
    "launchd": "LaunchdServiceManager",
    "windows": "WindowsServiceManager",
}


def get_service_manager(kind: ServiceManagerKind | None = None, **changed: Any) -> Registrar:
    """The service manager of this machine, or the one asked for.

    changed: settings of its own that are not to be the default ones.
    Raises RuntimeError if there is none.
    """
    found = detect_service_manager() if kind is None else kind
    if found not in _BACKENDS:
        raise NoServiceManagerError("no supported service manager detected")
    module = importlib.import_module(f"osbuild_pika.service_managers.{found}")
    settings = module.default_settings()._replace(**changed)
    manager: Registrar = getattr(module, _BACKENDS[found])(settings)
    return manager
