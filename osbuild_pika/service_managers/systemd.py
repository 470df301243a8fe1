"""systemd, of the system or of a user: services are units; registering writes unit files, if asked.

Formats: systemd.syntax(7), systemd.service(5), systemctl(1) of systemd 252.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import namedtuple
from collections.abc import Mapping, Sequence

from osbuild_pika.inside.services import systemd as units
from osbuild_pika.service_managers import base, programs, unitfiles
from osbuild_pika.service_managers.base import (
    AlreadyRegisteredError,
    BadServiceError,
    CommandError,
    NotRegisteredError,
    State,
    validate_profile_name,
)

_SUFFIX = ".service"
_EXAMPLE = "/etc/systemd/system; or say --transient"
_PROPERTIES = (
    *("LoadState", "ActiveState", "MainPID", "ExecMainCode", "ExecMainStatus"),
    "StateChangeTimestampMonotonic",
)
_EXITED = 1  # CLD_EXITED: ExecMainStatus is an exit code, else it is a signal

# is_user: the manager of the calling user, not the system's. directory: where registering writes
# unit files, one that the manager reads; None: registering is refused, unless is_transient. user:
# who services run as, None: the caller; a user's manager has no choice. timeout_s: of each wait.
Settings = namedtuple(
    "Settings",
    "is_user directory prefix user profile_flag timeout_s kill_after_s is_transient",
    defaults=(False,),
)


def default_settings() -> Settings:
    """Settings of this user: root steers the system's manager."""
    return Settings(os.geteuid() != 0, None, base.UNIT_PREFIX, None, None, 60, 10)


class SystemdServiceManager(programs.Steered):
    """A Registrar where the settings say so. run: what starts systemctl and systemd-run."""

    kind: base.ServiceManagerKind = "systemd"

    default_settings = staticmethod(default_settings)

    def supports_runtime_registration(self) -> bool:
        return self.settings.directory is not None or bool(self.settings.is_transient)

    def start(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "start", "start", self._unit(profile))

    def stop(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "stop", "stop", self._unit(profile))

    def restart(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "restart", "restart", self._unit(profile))

    def state(self, profile: str) -> State:
        """What systemd knows of a service. Raises NotRegisteredError, CommandError."""
        return parse_state(self._known(profile), time.monotonic())

    def list(self) -> tuple[str, ...]:
        """The profiles with a unit file in the directory, or a transient unit, sorted."""
        if self.settings.is_transient:
            return self._transient()
        return unitfiles.profiles(self.settings.directory, self.settings.prefix, _SUFFIX)

    def register(
        self,
        profile: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        start_now: bool = True,
        notify: int | None = None,
    ) -> None:
        """Write its unit and, if it is to start, enable and start it. Rolled back if that fails.

        A transient unit is started, there is no other way to have one.
        """
        validate_profile_name(profile)
        if notify is not None:
            raise BadServiceError("systemd has no descriptor for readiness: leave notify out")
        unit = unit_of(profile, command, base.validate_environment(env), self.settings)
        if not self.settings.is_transient:
            self._add(profile, unit, start_now)
        elif start_now:
            self._start_transient(profile, unit)
        else:
            what = "a transient service runs from its registration on"
            raise BadServiceError(f"{profile}: {what}: start it, or write a unit file")

    def unregister(self, profile: str) -> None:
        """Stop it, disable it, and remove its unit; without effect if there is none."""
        validate_profile_name(profile)
        if self.settings.is_transient:
            with contextlib.suppress(NotRegisteredError):
                self.stop(profile)
            self._call("reset-failed", self._unit(profile))
            return
        path = self._path(profile)
        if os.path.lexists(path):
            self._systemctl(profile, "stop", "stop", self._unit(profile))
            self._withdraw(profile, path)

    def _add(self, profile: str, unit: units.Unit, start_now: bool) -> None:
        path, name = self._path(profile), self._unit(profile)
        unitfiles.write(profile, path, units.unit_text(unit).encode())
        try:
            self._systemctl(profile, "register", "daemon-reload")
            if start_now:
                self._systemctl(profile, "register", "enable", *self._runtime(), name)
                self._systemctl(profile, "start", "start", name)
        except BaseException:
            self._withdraw(profile, path)
            raise

    def _start_transient(self, profile: str, unit: units.Unit) -> None:
        with contextlib.suppress(NotRegisteredError):
            self._known(profile)
            raise AlreadyRegisteredError(profile)
        name = self._unit(profile)
        words = transient_words(unit)
        command = ("systemd-run", self._which(), "--no-ask-password", "--quiet", f"--unit={name}")
        done = self._run((*command, *words), self.settings.timeout_s)
        if done.returncode != 0 and "already loaded" in done.stderr:  # since we looked
            raise AlreadyRegisteredError(profile)
        if done.returncode != 0:
            self._call("stop", name)  # it would be tried again and again
            self._call("reset-failed", name)
            raise CommandError(profile, "start", done.returncode, done.stderr)

    def _transient(self) -> tuple[str, ...]:
        """The profiles with a transient unit. Raises CommandError."""
        start = self.settings.prefix
        words = ("--property=Id,Transient", "show", f"{start}*{_SUFFIX}")
        blocks = self._systemctl("all", "list", *words).split("\n\n")
        names = [_facts(block)["Id"] for block in blocks if "Transient=yes" in block.split("\n")]
        found = (name.removesuffix(_SUFFIX).removeprefix(start) for name in names)
        return tuple(sorted(filter(base.is_profile_name, found)))

    def _withdraw(self, profile: str, path: str) -> None:
        unit = self._unit(profile)
        for words in (("stop", unit), ("disable", *self._runtime(), unit)):
            self._call(*words)  # what was not begun cannot be undone
        os.unlink(path)
        self._systemctl(profile, "unregister", "daemon-reload")
        self._call("reset-failed", unit)

    def _runtime(self) -> tuple[str, ...]:
        """What lies in /run is enabled until the next boot only."""
        return ("--runtime",) if f"{self.settings.directory}/".startswith("/run/") else ()

    def _path(self, profile: str) -> str:
        directory = unitfiles.directory_of(self.kind, self.settings.directory, _EXAMPLE)
        return os.path.join(directory, self._unit(profile))

    def _known(self, profile: str) -> dict[str, str]:
        """The unit's properties. Raises NotRegisteredError."""
        unit = self._unit(validate_profile_name(profile))
        words = ("show", f"--property={','.join(_PROPERTIES)}", unit)
        shown = self._systemctl(profile, "status", *words)
        found = _facts(shown)
        if found.get("LoadState") == "not-found":
            raise NotRegisteredError(profile)
        return found

    def _unit(self, profile: str) -> str:
        return f"{self.settings.prefix}{profile}{_SUFFIX}"

    def _systemctl(self, profile: str, action: str, *words: str) -> str:
        """What it prints. Raises CommandError."""
        done = self._call(*words)
        programs.check(profile, action, done)
        return str(done.stdout)

    def _call(self, *words: str) -> programs.Done:
        command = ("systemctl", self._which(), "--no-ask-password", *words)
        return self._run(command, self.settings.timeout_s)

    def _which(self) -> str:
        return "--user" if self.settings.is_user else "--system"


def _facts(shown: str) -> dict[str, str]:
    """What `systemctl show` prints of one unit."""
    return dict(line.split("=", 1) for line in shown.split("\n") if "=" in line)


def parse_state(found: Mapping[str, str], now_s: float) -> State:
    """A service's properties as `systemctl show` prints them. now_s: of the monotonic clock."""
    active = found.get("ActiveState", "")
    is_up = int(found.get("MainPID", "0")) > 0
    code, ended = int(found.get("ExecMainCode", "0")), int(found.get("ExecMainStatus", "0"))
    changed_s = int(found.get("StateChangeTimestampMonotonic", "0")) / 1_000_000
    has_ended = not is_up and code > 0
    return State(
        is_up,
        active in ("active", "activating", "reloading"),
        is_up and active == "active",
        int(found["MainPID"]) if is_up else None,
        ended if has_ended and code == _EXITED else None,
        ended if has_ended and code != _EXITED else None,
        max(0, int(now_s - changed_s)) if changed_s else 0,
    )


def unit_of(
    profile: str, command: Sequence[str], env: Mapping[str, str], settings: Settings
) -> units.Unit:
    """The unit of a service. Raises ValueError for what cannot be."""
    if settings.is_user and settings.user is not None:
        raise BadServiceError(f"{settings.user}: only root can run a service as another user")
    return units.Unit(
        description=f"osbuild-pika service {profile}",
        command=unitfiles.command_of(command, settings.profile_flag, profile),
        env=env,
        user=None if settings.is_user else base.validate_user(settings.user),
        log=None,
        is_notify=False,
        target=units.USER_TARGET if settings.is_user else units.SYSTEM_TARGET,
        kill_after_s=settings.kill_after_s,
    )


def transient_words(unit: units.Unit) -> tuple[str, ...]:
    """What systemd-run is told of a unit. It reads no quotes, and puts variables into arguments."""
    program, *arguments = unit.command
    return (
        f"--description={unit.description}",
        "--property=StartLimitIntervalSec=0",
        *(f"--property={key}={value}" for key, value in units.properties(unit._replace(env={}))),
        *(f"--setenv={key}={unit.env[key]}" for key in unit.env),
        "--",
        program,
        *(word.replace("$", "$$") for word in arguments),
    )
