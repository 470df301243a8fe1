"""Windows: services are tasks of the Task Scheduler, in a folder of their own.

Formats: the Task Scheduler schema 1.2, schtasks. Never run on Windows: what schtasks is asked is
seen by tests, what it answers is taken from its documentation. Nothing here goes by its words,
which are in the machine's language: its table is read by columns and numbers.
"""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence

from osbuild_pika.service_managers import base, programs, unitfiles
from osbuild_pika.service_managers.base import (
    AlreadyRegisteredError,
    BadServiceError,
    CommandError,
    NotRegisteredError,
    State,
    validate_profile_name,
)

FOLDER = "\\osbuild-pika\\"
NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
SYSTEM = "S-1-5-18"  # LocalSystem
_LAST_RESULT = 6  # the column of `schtasks /Query /V`
_RUNNING, _NEVER_RUN, _ENDED_BY_US, _QUEUED = 0x41301, 0x41303, 0x41306, 0x41325
_NO_EXIT_CODES = (_RUNNING, _NEVER_RUN, _ENDED_BY_US, _QUEUED)
_LOOK_S = 0.2  # between two looks at what schtasks does not wait for

# user: who services run as: None: who registers, while that user is logged on; "SYSTEM".
Settings = namedtuple("Settings", "prefix user profile_flag timeout_s")


def default_settings() -> Settings:
    """Settings of this machine."""
    return Settings(base.UNIT_PREFIX, None, None, 60)


class WindowsServiceManager(programs.Steered):
    """A Registrar. run: what starts schtasks."""

    kind: base.ServiceManagerKind = "windows"

    default_settings = staticmethod(default_settings)

    def supports_runtime_registration(self) -> bool:
        return True

    def start(self, profile: str) -> None:
        if not self.state(profile).is_up:
            self._begin(profile)

    def stop(self, profile: str) -> None:
        if self.state(profile).is_up:
            self._call(profile, "stop", "/End")
            self._wait_until(profile, "stop", lambda: not self.state(profile).is_up)

    def restart(self, profile: str) -> None:
        self.stop(profile)
        self._begin(profile)

    def state(self, profile: str) -> State:
        """What the Task Scheduler tells of a task: no process, no times.

        Raises NotRegisteredError, CommandError.
        """
        result = self._result(validate_profile_name(profile))
        if result is None:
            raise NotRegisteredError(profile)
        is_up = result == _RUNNING
        ended = None if result in _NO_EXIT_CODES else result
        return State(is_up, is_up or bool(ended), is_up, None, ended, None, 0)

    def list(self) -> tuple[str, ...]:
        """The profiles with a task in our folder, sorted. Raises CommandError."""
        done = self._run(("schtasks", "/Query", "/FO", "CSV", "/NH"), self.settings.timeout_s)
        if done.returncode != 0:
            raise CommandError("all", "list", done.returncode, done.stderr)
        start = f"{FOLDER}{self.settings.prefix}"
        names = {row[0] for row in csv.reader(done.stdout.splitlines()) if row}
        found = (name.removeprefix(start) for name in names if name.startswith(start))
        return tuple(sorted(filter(base.is_profile_name, found)))

    def register(
        self,
        profile: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        start_now: bool = True,
        notify: int | None = None,
    ) -> None:
        """Make its task; it is started at each boot, and now, unless told otherwise."""
        validate_profile_name(profile)
        if notify is not None:
            raise BadServiceError("a task has no descriptor for readiness: leave notify out")
        if base.validate_environment(env):
            raise BadServiceError("a task has no environment of its own: leave env out")
        content = render(profile, command, start_now, self.settings)
        if self._result(profile) is not None:
            raise AlreadyRegisteredError(profile)
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "task.xml")
            with open(path, "wb") as file:
                file.write(content)
            self._call(profile, "register", "/Create", "/XML", path)
        try:
            if start_now:
                self._begin(profile)
        except BaseException:
            self._tried(profile, "/End")
            self._tried(profile, "/Delete", "/F")
            raise

    def unregister(self, profile: str) -> None:
        """End and remove its task; without effect if there is none."""
        if self._result(validate_profile_name(profile)) is not None:
            self.stop(profile)
            self._call(profile, "unregister", "/Delete", "/F")

    def _begin(self, profile: str) -> None:
        self._call(profile, "start", "/Run")
        waits = (_NEVER_RUN, _QUEUED)
        self._wait_until(profile, "start", lambda: self._result(profile) not in waits)

    def _wait_until(self, profile: str, action: str, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + self.settings.timeout_s
        while not is_so():
            if time.monotonic() > end:
                what = f"the Task Scheduler did not follow within {self.settings.timeout_s:g} s"
                raise CommandError(profile, action, None, what)
            time.sleep(_LOOK_S)

    def _result(self, profile: str) -> int | None:
        """The task's last result, _RUNNING while it runs; None if there is no task."""
        done = self._tried(profile, "/Query", "/V", "/FO", "CSV", "/NH")
        if done.returncode == 1:
            return None
        row = next(csv.reader(done.stdout.splitlines()), [])
        if done.returncode != 0 or not row[_LAST_RESULT:]:
            what = done.stderr if done.returncode else "schtasks printed another table"
            raise CommandError(profile, "status", done.returncode, what)
        try:
            return int(row[_LAST_RESULT])
        except ValueError:
            raise CommandError(profile, "status", 0, "schtasks printed another table") from None

    def _call(self, profile: str, action: str, *words: str) -> None:
        """Raises CommandError."""
        done = self._tried(profile, *words)
        programs.check(profile, action, done)

    def _tried(self, profile: str, verb: str, *words: str) -> programs.Done:
        name = f"{FOLDER}{self.settings.prefix}{profile}"
        return self._run(("schtasks", verb, "/TN", name, *words), self.settings.timeout_s)


def render(profile: str, command: Sequence[str], is_up: bool, settings: Settings) -> bytes:
    """The task as schtasks takes it, in UTF-16. is_up: it starts at each boot, or log-on.

    Raises ValueError for what cannot be.
    """
    program, *arguments = unitfiles.command_of(command, settings.profile_flag, profile)
    is_own = settings.user is None
    task = ET.Element("Task", version="1.2", xmlns=NAMESPACE)
    _add(task, "RegistrationInfo", Description=f"osbuild-pika service {profile}")
    triggers = ET.SubElement(task, "Triggers")
    _add(triggers, "LogonTrigger" if is_own else "BootTrigger", Enabled=str(is_up).lower())
    principal = _add(ET.SubElement(task, "Principals"), "Principal", **_principal(settings.user))
    principal.set("id", "service")
    restart = _add(_add(task, "Settings", **_SETTINGS), "RestartOnFailure", Interval="PT1M")
    ET.SubElement(restart, "Count").text = "255"  # the most there is
    actions = ET.SubElement(task, "Actions", Context="service")
    line = subprocess.list2cmdline(arguments)
    if any(char < " " for char in f"{program}{line}"):
        raise BadServiceError(f"{profile}: a task's command holds no control characters")
    _add(actions, "Exec", Command=program, **({"Arguments": line} if line else {}))
    text: bytes = ET.tostring(task, encoding="utf-16", xml_declaration=True)
    return text


# Without these a task ends after three days, or when a laptop is unplugged.
_SETTINGS = {
    "MultipleInstancesPolicy": "IgnoreNew",
    "DisallowStartIfOnBatteries": "false",
    "StopIfGoingOnBatteries": "false",
    "StartWhenAvailable": "true",
    "ExecutionTimeLimit": "PT0S",
}


def _principal(user: str | None) -> dict[str, str]:
    """Who it runs as. A named user's task has no password: it reaches no other machine's files."""
    if user is None:
        return {"LogonType": "InteractiveToken"}
    if user.upper() == "SYSTEM":
        return {"UserId": SYSTEM}
    return {"UserId": user, "LogonType": "S4U"}


def _add(parent: ET.Element, name: str, **children: str) -> ET.Element:
    made = ET.SubElement(parent, name)
    for key, text in children.items():
        ET.SubElement(made, key).text = text
    return made
