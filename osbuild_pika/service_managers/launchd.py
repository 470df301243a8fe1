"""launchd, of the system and of a user: services are jobs; registering writes plists, if asked.

Formats: launchd.plist(5), launchctl(1) of macOS 13. Never run on a Mac: what launchctl is asked is
seen by tests, what it answers is taken from its documentation and from what others have shown.
"""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import time
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence

from osbuild_pika.service_managers import base, programs, unitfiles
from osbuild_pika.service_managers.base import (
    BadServiceError,
    CommandError,
    NotRegisteredError,
    ServiceError,
    State,
    validate_profile_name,
)

LABEL_PREFIX = "osbuild-pika.service."
SYSTEM_DIRECTORY = "/Library/LaunchDaemons"
_SUFFIX = ".plist"
_LOOK_S = 0.05  # between two looks at what launchctl does not wait for
# The answer's own lines, not those of what is nested in it.
_FACT = re.compile(r"^\t(pid|last exit code|last terminating signal) = (.+)$", re.MULTILINE)
_NUMBER = re.compile(r"-?[0-9]+")

# is_user: the calling user's jobs of a session, not the system's. directory: where registering
# writes plists; None: registering is refused, and those of the usual place are steered. user: who
# services run as, None: root; a user's jobs have no choice. logs: a directory. timeout_s: of each
# wait.
Settings = namedtuple(
    "Settings", "is_user directory prefix user profile_flag logs timeout_s kill_after_s"
)


def default_settings() -> Settings:
    """Settings of this user: root steers the system's jobs."""
    is_user = os.geteuid() != 0
    logs = os.path.expanduser("~/Library/Logs/osbuild-pika") if is_user else "/var/log/osbuild-pika"
    return Settings(is_user, None, LABEL_PREFIX, None, None, logs, 60, 10)


class LaunchdServiceManager(programs.Steered):
    """A Registrar where settings.directory says so. run: what starts launchctl."""

    kind: base.ServiceManagerKind = "launchd"

    default_settings = staticmethod(default_settings)

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}" if self.settings.is_user else "system"

    def supports_runtime_registration(self) -> bool:
        return self.settings.directory is not None

    def start(self, profile: str) -> None:
        if self._known(profile) is None:
            self._load(profile)
        else:
            self._call(profile, "start", "kickstart", self._target(profile))
        self._wait_until_begun(profile)

    def stop(self, profile: str) -> None:
        """launchd forgets the job until it is started again, or the next boot."""
        if self._known(profile) is not None:
            self._unload(profile)

    def restart(self, profile: str) -> None:
        if self._known(profile) is None:
            self._load(profile)
        else:
            self._call(profile, "restart", "kickstart", "-k", self._target(profile))
        self._wait_until_begun(profile)

    def state(self, profile: str) -> State:
        """What launchd knows of a job, not since when. Raises NotRegisteredError, CommandError."""
        return parse_state(self._known(profile))

    def list(self) -> tuple[str, ...]:
        """The profiles with a plist in the directory, sorted."""
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
        """Write its plist and load it: that starts it. Else it is disabled, for boots, too.

        Rolled back if that fails.
        """
        validate_profile_name(profile)
        unitfiles.directory_of(self.kind, self.settings.directory, SYSTEM_DIRECTORY)
        if notify is not None:
            raise BadServiceError("launchd has no descriptor for readiness: leave notify out")
        content = render(profile, command, base.validate_environment(env), self.settings)
        self._make_logs(profile)
        unitfiles.write(profile, self._path(profile), content)
        try:
            if start_now:
                self._load(profile)
                self._wait_until_begun(profile)
            else:
                self._call(profile, "register", "disable", self._target(profile))
        except BaseException:
            self._tried("bootout", self._target(profile))
            os.unlink(self._path(profile))
            raise

    def unregister(self, profile: str) -> None:
        """End it and remove its plist; without effect if there is none. Its log stays."""
        validate_profile_name(profile)
        unitfiles.directory_of(self.kind, self.settings.directory, SYSTEM_DIRECTORY)
        if os.path.lexists(self._path(profile)):
            if self._shown(profile) is not None:
                self._unload(profile)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(profile))

    def _make_logs(self, profile: str) -> None:
        """launchd starts nothing whose log has no directory."""
        try:
            os.makedirs(self.settings.logs, exist_ok=True)
        except OSError as error:
            raise ServiceError(profile, f"{self.settings.logs}: {error.strerror}") from None

    def _load(self, profile: str) -> None:
        self._call(profile, "start", "enable", self._target(profile))
        self._call(profile, "start", "bootstrap", self._domain, self._path(profile))

    def _unload(self, profile: str) -> None:
        """launchctl can say that it is still at it."""
        done = self._tried("bootout", self._target(profile))
        if not self._becomes(lambda: self._shown(profile) is None):
            raise CommandError(profile, "stop", done.returncode or None, done.stderr)

    def _wait_until_begun(self, profile: str) -> None:
        def has_begun() -> bool:
            state = self.state(profile)
            return state.is_up or state.exit_code is not None or state.signal is not None

        if not self._becomes(has_begun):
            what = f"launchd did not start it within {self.settings.timeout_s:g} s"
            raise CommandError(profile, "start", None, what)

    def _becomes(self, is_so: Callable[[], bool]) -> bool:
        end = time.monotonic() + self.settings.timeout_s
        while not is_so():
            if time.monotonic() > end:
                return False
            time.sleep(_LOOK_S)
        return True

    def _known(self, profile: str) -> str | None:
        """What launchctl says of a job, None if it is not loaded. Raises NotRegisteredError."""
        shown = self._shown(validate_profile_name(profile))
        if shown is None and not os.path.exists(self._path(profile)):
            raise NotRegisteredError(profile)
        return shown

    def _shown(self, profile: str) -> str | None:
        done = self._tried("print", self._target(profile))
        if done.returncode in (None, programs.MISSING):
            raise CommandError(profile, "status", done.returncode, done.stderr)
        return str(done.stdout) if done.returncode == 0 else None

    def _path(self, profile: str) -> str:
        usual = os.path.expanduser("~/Library/LaunchAgents")
        usual = usual if self.settings.is_user else SYSTEM_DIRECTORY
        name = f"{self.settings.prefix}{profile}{_SUFFIX}"
        return os.path.join(self.settings.directory or usual, name)

    def _target(self, profile: str) -> str:
        return f"{self._domain}/{self.settings.prefix}{profile}"

    def _call(self, profile: str, action: str, *words: str) -> None:
        """Raises CommandError."""
        done = self._tried(*words)
        programs.check(profile, action, done)

    def _tried(self, *words: str) -> programs.Done:
        return self._run(("launchctl", *words), self.settings.timeout_s)


def parse_state(shown: str | None) -> State:
    """A job as `launchctl print` shows it; None: it is not loaded."""
    if shown is None:
        return State(False, False, False, None, None, None, 0)
    facts = {key: _NUMBER.findall(value) for key, value in _FACT.findall(shown)}
    pid, code, signal = (
        int(facts[key][-1]) if facts.get(key) else None
        for key in ("pid", "last exit code", "last terminating signal")
    )
    is_up = pid is not None
    ended = None if is_up or signal is not None else code
    return State(is_up, is_up or ended != 0, is_up, pid, ended, None if is_up else signal, 0)


def render(
    profile: str, command: Sequence[str], env: Mapping[str, str], settings: Settings
) -> bytes:
    """The plist of a job. Raises ValueError for what cannot be."""
    if settings.is_user and settings.user is not None:
        raise BadServiceError(f"{settings.user}: only root can run a service as another user")
    log = os.path.join(settings.logs, f"{settings.prefix}{profile}.log")
    job = {
        "Label": f"{settings.prefix}{profile}",
        "ProgramArguments": [*unitfiles.command_of(command, settings.profile_flag, profile)],
        "EnvironmentVariables": dict(env),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 1,
        "ExitTimeOut": settings.kill_after_s,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    if settings.user is not None:
        job["UserName"] = base.validate_user(settings.user)
    try:
        return plistlib.dumps(job)
    except ValueError:
        what = "a plist holds no control characters but line ends and tabs"
        raise BadServiceError(
            f"{profile}: {what}: leave them out of the command and --env"
        ) from None
