"""systemd, of the system or of a user: services are units; registering writes unit files, if asked.

Formats: systemd.syntax(7), systemd.service(5), systemctl(1) of systemd 252.
"""

from __future__ import annotations

import os
import time
from collections import namedtuple
from collections.abc import Mapping, Sequence

from osbuild_pika.inside.services import systemd as units
from osbuild_pika.service_managers import base, programs, unitfiles
from osbuild_pika.service_managers.base import (
    BadServiceError,
    CommandError,
    NotRegisteredError,
    State,
    validate_profile_name,
)

_SUFFIX = ".service"
_EXAMPLE = "/etc/systemd/system"
_PROPERTIES = (
    *("LoadState", "ActiveState", "MainPID", "ExecMainCode", "ExecMainStatus"),
    "StateChangeTimestampMonotonic",
)
_EXITED = 1  # CLD_EXITED: ExecMainStatus is an exit code, else it is a signal

# is_user: the manager of the calling user, not the system's. directory: where registering writes
# unit files, one that the manager reads; None: registering is refused. user: who services run as,
# None: the caller; a user's manager has no choice. timeout_s: of each wait.
Settings = namedtuple(
    "Settings", "is_user directory prefix user profile_flag timeout_s kill_after_s"
)


def default_settings() -> Settings:
    """Settings of this user: root steers the system's manager."""
    return Settings(os.geteuid() != 0, None, base.UNIT_PREFIX, None, None, 60, 10)


class SystemdServiceManager:
    """A Registrar where settings.directory says so. run: what starts systemctl."""

    kind: base.ServiceManagerKind = "systemd"

    def __init__(
        self, settings: Settings | None = None, run: programs.Runner = programs.run
    ) -> None:
        self.settings = default_settings() if settings is None else settings
        self._run = run

    def supports_runtime_registration(self) -> bool:
        return self.settings.directory is not None

    def start(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "start", "start", self._unit(profile))

    def stop(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "stop", "stop", self._unit(profile))

    def restart(self, profile: str) -> None:
        self._known(profile)
        self._systemctl(profile, "restart", "restart", self._unit(profile))

    def is_running(self, profile: str) -> bool:
        return bool(self.state(profile).is_up)

    def state(self, profile: str) -> State:
        """What systemd knows of a service. Raises NotRegisteredError, CommandError."""
        return parse_state(self._known(profile), time.monotonic())

    def list(self) -> tuple[str, ...]:
        """The profiles with a unit file in the directory, sorted."""
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
        """Write its unit and, if it is to start, enable and start it. Rolled back if that fails."""
        path = self._path(validate_profile_name(profile))
        if notify is not None:
            raise BadServiceError("systemd has no descriptor for readiness: leave notify out")
        unit = unit_of(profile, command, base.validate_environment(env), self.settings)
        unitfiles.write(profile, path, units.unit_text(unit).encode())
        try:
            self._systemctl(profile, "register", "daemon-reload")
            if start_now:
                name = self._unit(profile)
                self._systemctl(profile, "register", "enable", *self._runtime(), name)
                self._systemctl(profile, "start", "start", name)
        except BaseException:
            self._withdraw(profile, path)
            raise

    def unregister(self, profile: str) -> None:
        """Stop it, disable it, and remove its unit; without effect if there is none."""
        path = self._path(validate_profile_name(profile))
        if os.path.lexists(path):
            self._systemctl(profile, "stop", "stop", self._unit(profile))
            self._withdraw(profile, path)

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
        found = dict(line.split("=", 1) for line in shown.split("\n") if "=" in line)
        if found.get("LoadState") == "not-found":
            raise NotRegisteredError(profile)
        return found

    def _unit(self, profile: str) -> str:
        return f"{self.settings.prefix}{profile}{_SUFFIX}"

    def _systemctl(self, profile: str, action: str, *words: str) -> str:
        """What it prints. Raises CommandError."""
        done = self._call(*words)
        if done.returncode != 0:
            raise CommandError(profile, action, done.returncode, done.stderr)
        return str(done.stdout)

    def _call(self, *words: str) -> programs.Done:
        which = "--user" if self.settings.is_user else "--system"
        command = ("systemctl", which, "--no-ask-password", *words)
        return self._run(command, self.settings.timeout_s)


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
    """The unit of a service. Raises ValueError for a program that is not there."""
    return units.Unit(
        description=f"osbuild-pika service {profile}",
        command=unitfiles.command_of(command, settings.profile_flag, profile),
        env=env,
        user=None if settings.is_user else settings.user,
        log=None,
        is_notify=False,
        target=units.USER_TARGET if settings.is_user else units.SYSTEM_TARGET,
        kill_after_s=settings.kill_after_s,
    )
