"""OpenRC: services are init scripts under supervise-daemon; registering writes them, if asked.

Formats: rc-service(8), rc-update(8), supervise-daemon(8) of OpenRC 0.45. What nothing prints, the
number of a process and when it began, is read from OpenRC's own state.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import namedtuple
from collections.abc import Mapping, Sequence

from osbuild_pika.inside.services import openrc as scripts
from osbuild_pika.service_managers import base, processes, programs, unitfiles
from osbuild_pika.service_managers.base import (
    BadServiceError,
    CommandError,
    NotRegisteredError,
    State,
    validate_profile_name,
)

RUNLEVEL = "default"
_EXAMPLE = "/etc/init.d"
_LOOK_S = 0.02  # between two looks at what OpenRC tells nobody
_STARTED, _STARTING = 0, 8  # say `status` of a script; all others are not started again
_UNSUPERVISED = (32, 64)  # its supervisor was killed, or gave up
_STATES = (_STARTED, 3, 4, _STARTING, 16, *_UNSUPERVISED)

# directory: where registering writes scripts, one that OpenRC reads; None: registering is refused.
# user: who services run as, None: root. logs: a directory. timeout_s: of each wait.
# state_directory: OpenRC's own.
Settings = namedtuple(
    "Settings",
    "directory prefix user profile_flag logs timeout_s kill_after_s state_directory",
)


def default_settings() -> Settings:
    """Settings of this machine."""
    logs = "/var/log/osbuild-pika/services"
    return Settings(None, base.UNIT_PREFIX, None, None, logs, 60, 10, "/run/openrc")


class OpenRCServiceManager(programs.Steered):
    """A Registrar where settings.directory says so. run: what starts OpenRC's programs."""

    kind: base.ServiceManagerKind = "openrc"

    default_settings = staticmethod(default_settings)

    def supports_runtime_registration(self) -> bool:
        return self.settings.directory is not None

    def start(self, profile: str) -> None:
        self._known(profile)
        if self._status(profile, "start") in _UNSUPERVISED:  # OpenRC would take it for started
            self._stop(profile)
        self._start(profile)

    def stop(self, profile: str) -> None:
        self._known(profile)
        self._stop(profile)

    def restart(self, profile: str) -> None:
        self.stop(profile)
        self._start(profile)

    def state(self, profile: str) -> State:
        """What OpenRC knows of a service; it keeps not how one ended.

        Raises NotRegisteredError, CommandError.
        """
        self._known(profile)
        try:
            status = self._status(profile, "status")
        except CommandError:
            self._known(profile)  # it may have been unregistered since
            raise
        is_wanted = status in (_STARTED, _STARTING)
        pid = self._pid(profile) if is_wanted else self._stray(profile)
        is_up = pid is not None
        since_s = self._since_s(profile) if is_up else 0
        return State(is_up, is_wanted, is_up and is_wanted, pid, None, None, since_s)

    def list(self) -> tuple[str, ...]:
        """The profiles with a script in the directory, sorted."""
        return unitfiles.profiles(self.settings.directory, self.settings.prefix)

    def register(
        self,
        profile: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        start_now: bool = True,
        notify: int | None = None,
    ) -> None:
        """Write its script and, if it is to start, add it to the runlevel and start it.

        Rolled back if that fails.
        """
        path = self._path(validate_profile_name(profile))
        if notify is not None:
            raise BadServiceError("OpenRC has no descriptor for readiness: leave notify out")
        text = scripts.script_text(self._script(profile, command, env))
        unitfiles.write(profile, path, text.encode(), 0o700)
        try:
            if start_now:
                self._call(profile, "register", "rc-update", "add", self._name(profile), RUNLEVEL)
                self._start(profile)
        except BaseException:
            self._withdraw(profile, path)
            raise

    def unregister(self, profile: str) -> None:
        """Stop it and remove its script; without effect if there is none. Its log stays."""
        path = self._path(validate_profile_name(profile))
        if os.path.lexists(path):
            self._stop(profile)
            self._withdraw(profile, path)

    def _withdraw(self, profile: str, path: str) -> None:
        name = self._name(profile)
        for words in (("rc-service", name, "stop"), ("rc-update", "--all", "del", name)):
            self._tried(*words)  # what was not begun cannot be undone
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _status(self, profile: str, action: str) -> int:
        """What a script's `status` ends with. Raises CommandError."""
        done = self._tried("rc-service", self._name(profile), "status")
        if done.returncode not in _STATES:
            raise _refused(profile, action, done)
        return int(done.returncode)

    def _stop(self, profile: str) -> None:
        """OpenRC ends a supervisor, which ends the service; one whose supervisor is gone, we do."""
        is_lost = self._status(profile, "stop") in _UNSUPERVISED
        stray = self._stray(profile) if is_lost else None
        self._call(profile, "stop", "rc-service", self._name(profile), "stop")
        if stray is not None:
            processes.end(stray, self.settings.kill_after_s)

    def _pid(self, profile: str) -> int | None:
        """The service's process, if there is one of its number."""
        pid = self._kept(profile, "child_pid")
        return int(pid) if pid.isdecimal() and os.path.exists(f"/proc/{pid}") else None

    def _stray(self, profile: str) -> int | None:
        """The same where nobody watches it: the number could be another process's by now."""
        pid = self._pid(profile)
        with contextlib.suppress(OSError):
            kept_s = time.time() - os.stat(self._value(profile, "child_pid")).st_mtime
            if pid is not None and processes.is_of_age(pid, kept_s):
                return pid
        return None

    def _start(self, profile: str) -> None:
        """supervise-daemon goes to the background first, and starts the service then."""
        self._call(profile, "start", "rc-service", self._name(profile), "start")
        end = time.monotonic() + self.settings.timeout_s
        while not self._kept(profile, "child_pid"):
            if time.monotonic() > end:
                what = f"supervise-daemon did not start it within {self.settings.timeout_s:g} s"
                raise CommandError(profile, "start", None, what)
            time.sleep(_LOOK_S)

    def _script(
        self, profile: str, command: Sequence[str], env: Mapping[str, str] | None
    ) -> scripts.Script:
        """Raises ValueError for what cannot be."""
        variables = base.validate_environment(env)
        base.refuse_shells_own(variables)
        taken = [key for key in variables if scripts.is_own(key)]
        if taken:
            raise BadServiceError(f"{taken[0]}: OpenRC keeps variables of that name to itself")
        return scripts.Script(
            name=self._name(profile),
            description=f"osbuild-pika service {profile}",
            command=unitfiles.command_of(command, self.settings.profile_flag, profile),
            env=variables,
            user=base.validate_user(self.settings.user),
            log=os.path.join(self.settings.logs, f"{self._name(profile)}.log"),
            needs=(),
            kill_after_s=self.settings.kill_after_s,
        )

    def _known(self, profile: str) -> None:
        """Raises NotRegisteredError, CommandError."""
        done = self._tried("rc-service", "--exists", self._name(validate_profile_name(profile)))
        if done.returncode == 1:
            raise NotRegisteredError(profile)
        if done.returncode != 0:
            raise _refused(profile, "look", done)

    def _kept(self, profile: str, name: str) -> str:
        """A value that OpenRC keeps of a service; empty if there is none."""
        try:
            with open(self._value(profile, name)) as file:
                return file.read(100).strip()
        except OSError:
            return ""

    def _since_s(self, profile: str) -> int:
        with contextlib.suppress(OSError):
            began = os.stat(self._value(profile, "child_pid")).st_mtime
            return max(0, int(time.time() - began))
        return 0

    def _value(self, profile: str, name: str) -> str:
        return os.path.join(self.settings.state_directory, "options", self._name(profile), name)

    def _path(self, profile: str) -> str:
        directory = unitfiles.directory_of(self.kind, self.settings.directory, _EXAMPLE)
        return os.path.join(directory, self._name(profile))

    def _name(self, profile: str) -> str:
        return f"{self.settings.prefix}{profile}"

    def _call(self, profile: str, action: str, *words: str) -> None:
        """Raises CommandError."""
        done = self._tried(*words)
        if done.returncode != 0:
            raise _refused(profile, action, done)

    def _tried(self, *words: str) -> programs.Done:
        return self._run((words[0], "--nocolor", *words[1:]), self.settings.timeout_s)


def _refused(profile: str, action: str, done: programs.Done) -> CommandError:
    """OpenRC says no more than "Permission denied" to who is not root."""
    hint = "" if os.geteuid() == 0 else "; only root steers OpenRC: be root"
    return CommandError(profile, action, done.returncode, done.stderr.strip() + hint)
