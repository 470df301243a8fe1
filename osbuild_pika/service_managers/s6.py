"""s6: services in a scan directory, registered, watched and unregistered while s6-svscan runs.

s6-svscan looks only when told to, and skips only names that begin with a dot: a service directory
is built under such a name and renamed. Whoever may write the scan directory has s6-svscan's
rights; docs/reference/services.md says how its owner lets others in.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
from collections import namedtuple
from collections.abc import Mapping, Sequence

from osbuild_pika.errors import PikaError
from osbuild_pika.inside.services import s6 as s6_tree
from osbuild_pika.service_managers import base, programs, s6_calls
from osbuild_pika.service_managers.base import (
    AlreadyRegisteredError,
    BadServiceError,
    CommandError,
    NotRegisteredError,
    S6Error,
    ServiceError,
    State,
    validate_profile_name,
)
from osbuild_pika.service_managers.desired import Desired, Service

SCAN_DIRECTORY = "/run/service"
GUESTS_OWN = "pika-cloud-"  # an address, the report: see inside/guest_s6.py
SCAN_VARIABLE = "OSBUILD_PIKA_SCAN_DIRECTORY"
# Where and how services run. state: a directory; logs: where their logs are kept unless the
# environment of s6-svscan says otherwise. user: who they run as, None: whoever registers.
# operators: the gid of who else may steer them, -1: the caller's. profile_flag: what names the
# profile on each command line but the default one's, None: nothing does. timeout_s: of each wait.
Settings = namedtuple(
    "Settings",
    "scan_directory state logs prefix user operators profile_flag timeout_s kill_after_s",
)
# What reconcile did: profiles; failed: profile -> message.
Reconciled = namedtuple("Reconciled", "registered started stopped failed")


def default_settings() -> Settings:
    """Settings of this machine and this user."""
    scan = os.environ.get(SCAN_VARIABLE) or SCAN_DIRECTORY
    state, logs = "/var/lib/osbuild-pika/services", "/var/log/osbuild-pika/services"
    if os.geteuid() != 0:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        state, logs = (os.path.join(home, "osbuild-pika", name) for name in ("services", "logs"))
    return Settings(scan, state, logs, base.PREFIX, None, -1, None, timeout_s=60, kill_after_s=10)


class S6ServiceManager(programs.Steered):
    """A Registrar on a running s6-svscan. run: what starts s6's programs."""

    kind: base.ServiceManagerKind = "s6"

    default_settings = staticmethod(default_settings)

    def __init__(
        self, settings: Settings | None = None, run: programs.Runner = programs.run
    ) -> None:
        super().__init__(settings, run)
        self._desired = Desired(self.settings.state)
        self._s6 = s6_calls.Calls(self.settings.scan_directory, self.settings.timeout_s, run)

    def supports_runtime_registration(self) -> bool:
        return True

    def start(self, profile: str) -> None:
        """It runs when this returns, and is ready if it tells that; it starts at a boot, too."""
        place = self._known(profile)
        self._desired.want(profile, "running")
        self._s6.start(profile, place)

    def stop(self, profile: str) -> None:
        """Its process and its `finish` have ended; it stays down over a boot, too."""
        place = self._known(profile)
        self._desired.want(profile, "stopped")
        self._s6.stop(profile, place)

    def restart(self, profile: str) -> None:
        # s6-svc -r would leave a service down that exits 0 when it is asked to end.
        place = self._known(profile)
        self._desired.want(profile, "running")
        self._s6.stop(profile, place, is_for_good=False)
        self._s6.start(profile, place)

    def is_running(self, profile: str) -> bool:
        """Whether its process runs. Raises NotRegisteredError, CommandError."""
        return self._s6.is_running(profile, self._known(profile))

    def state(self, profile: str) -> State:
        """All that s6 knows of a service. Raises NotRegisteredError, CommandError."""
        place = self._known(profile)
        try:
            return self._s6.state(profile, place)
        except CommandError:
            self._known(profile)  # it may have been unregistered since
            raise

    def list(self) -> tuple[str, ...]:
        """The profiles in the scan directory, sorted; none if it is not there. A guest's own
        services are none."""
        try:
            names = os.listdir(self.settings.scan_directory)
        except FileNotFoundError:
            return ()
        prefix = self.settings.prefix
        found = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return tuple(sorted(each for each in found if _is_ours(each, prefix)))

    def register(
        self,
        profile: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        start_now: bool = True,
        notify: int | None = None,
    ) -> None:
        """It is supervised when this returns, and was started unless told otherwise."""
        self._validate(profile)
        service = Service(
            list(base.validate_command(command)),
            base.validate_environment(env),
            base.validate_notify(notify),
            self.settings.profile_flag,
            self._account(self.settings.user).pw_name,
            "running" if start_now else "stopped",
        )
        with self._desired.held():
            self._add(profile, service)
            try:
                self._desired.write(profile, service)
            except OSError as error:
                self._withdraw(profile)
                raise ServiceError(profile, f"{error.filename}: {error.strerror}") from None

    def unregister(self, profile: str) -> None:
        """No process and no directory of it is left; its logs are."""
        self._validate(profile)
        place = self._place(profile)
        if not os.path.lexists(place) and not self._desired.is_ours():
            return
        with self._desired.held():
            if self._s6.is_supervised(profile, place):
                leader = self._s6.state(profile, place).pid
                self._s6.stop(profile, place, is_for_good=False)
                _end_group(leader)
            self._desired.forget(profile)
            self._withdraw(profile)

    def reconcile(self) -> Reconciled:
        """Register what was registered, at a boot; run what is to run, and nothing else of it.

        What fails for one profile does not keep the others: failed says it.
        """
        done = Reconciled([], [], [], {})
        with self._desired.held():
            for profile in self._desired.profiles():
                try:
                    self._settle(profile, done)
                except PikaError as error:
                    done.failed[profile] = str(error)
        return done

    def _settle(self, profile: str, done: Reconciled) -> None:
        service, place = self._desired.read(self._validate(profile)), self._place(profile)
        if service is None:
            return
        if not os.path.lexists(place):
            self._add(profile, service)
            done.registered.append(profile)
            return
        if not self._s6.is_supervised(profile, place):
            self._s6.scan(profile)
            self._await_supervised(profile, place)
        is_up, is_wanted = self._s6.is_running(profile, place), service.wanted == "running"
        if is_wanted and not is_up:
            self._s6.start(profile, place)
            done.started.append(profile)
        elif is_up and not is_wanted:
            self._s6.stop(profile, place)
            done.stopped.append(profile)

    def _add(self, profile: str, service: Service) -> None:
        """Have s6 supervise a service. Raises ServiceError: then nothing of it is left."""
        place, new = self._place(profile), self._hidden(profile, "new")
        if os.path.lexists(place):
            raise AlreadyRegisteredError(profile)
        is_up = service.wanted == "running"
        entries = s6_tree.render(self._script(profile, service), _tools(profile), is_up)
        shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        try:
            s6_tree.write(new, entries, self.settings.operators)
            os.rename(new, place)
        except BaseException as error:
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._refused(profile, error) from None
            if isinstance(error, UnicodeEncodeError):  # a home, or the directory of logs
                what = f"a path of it is not UTF-8 text: {ascii(error.object)[:80]}"
                raise S6Error(profile, what) from None
            raise
        try:
            self._s6.scan(profile)
            self._await_supervised(profile, place)
            if is_up:
                self._s6.wait_until(
                    profile, "start", lambda: s6_calls.has_begun(self._s6.state(profile, place))
                )
        except BaseException:
            self._withdraw(profile)
            raise

    def _withdraw(self, profile: str) -> None:
        """Take a service from s6, with its supervisors.

        Only what s6-svscan no longer sees does it end, and not start again: it is renamed, then
        it looks and prunes, then the directory goes. The other order leaves supervisors behind.
        """
        place, dead = self._place(profile), self._hidden(profile, "dead")
        if os.path.lexists(dead):
            self._bury(profile, dead)
        try:
            os.rename(place, dead)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(profile, error) from None
        self._bury(profile, dead)

    def _bury(self, profile: str, dead: str) -> None:
        parts = (dead, os.path.join(dead, "log"))
        pruned = self._s6.prune()
        if self._s6.is_supervised(profile, *parts):
            programs.check(profile, "rescan", pruned)
            self._s6.wait_for_end(profile, *parts)
        try:
            shutil.rmtree(dead)
        except OSError as error:
            raise self._refused(profile, error) from None

    def _script(self, profile: str, service: Service) -> s6_tree.Script:
        base.refuse_shells_own(service.env)
        account = self._account(service.user)
        command = base.profile_arguments(service.command, service.profile_flag, profile)
        return s6_tree.Script(
            self.settings.prefix + profile,
            command,
            service.env,
            None if account.pw_uid == 0 else account.pw_name,
            account.pw_dir,
            os.path.abspath(self.settings.logs),
            service.notify,
            self.settings.kill_after_s,
        )

    def _account(self, user: str | None) -> pwd.struct_passwd:
        """Who a service runs as. Raises ValueError: only root can name another."""
        try:
            account = pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
        except KeyError:
            who = f"{user}" if user is not None else f"uid {os.geteuid()}"
            raise BadServiceError(f"{who}: there is no such user on this machine") from None
        if os.geteuid() not in (0, account.pw_uid):
            raise BadServiceError(f"{user}: only root can run a service as another user")
        return account

    def _await_supervised(self, profile: str, place: str) -> None:
        log, status = (os.path.join(place, name) for name in ("log", "supervise/status"))

        def is_so() -> bool:
            """s6-supervise takes orders a moment before it first writes how the service is."""
            supervised = (self._s6.is_supervised(profile, each) for each in (place, log))
            return all(supervised) and os.path.exists(status)

        self._s6.wait_until(profile, "register", is_so)

    def _refused(self, profile: str, error: OSError) -> S6Error:
        """The error of a scan directory that is missing, or another's."""
        scan = self.settings.scan_directory
        if not os.path.isdir(scan):
            how = "start s6-svscan there, or name another with --scan-directory"
            return S6Error(profile, f"{scan} is no scan directory; {how}")
        return S6Error(profile, f"{error.filename}: {error.strerror}")

    def _known(self, profile: str) -> str:
        place = self._place(self._validate(profile))
        if not os.path.isdir(place):
            raise NotRegisteredError(profile)
        return place

    def _validate(self, profile: str) -> str:
        """Return a profile's name. Raises ValueError."""
        if not _is_ours(validate_profile_name(profile), self.settings.prefix):
            what = "services of that name are a guest's own"
            raise BadServiceError(f"{profile}: {what}; a profile under s6 has no cloud- before it")
        return profile

    def _place(self, profile: str) -> str:
        name = f"{self.settings.prefix}{profile}"
        return os.path.join(self.settings.scan_directory, name)

    def _hidden(self, profile: str, suffix: str) -> str:
        """A name beside it that s6-svscan does not look at."""
        name = f".{self.settings.prefix}{profile}.{suffix}"
        return os.path.join(self.settings.scan_directory, name)


def _is_ours(profile: str, prefix: str) -> bool:
    """Whether a name is a profile's, and its service none that a guest has from its image."""
    return base.is_profile_name(profile) and not f"{prefix}{profile}".startswith(GUESTS_OWN)


def _tools(profile: str) -> s6_tree.Tools:
    """What the scripts call. Raises CommandError."""
    setuidgid, log = (programs.find(name) for name in ("s6-setuidgid", "s6-log"))
    if setuidgid is None or log is None:
        raise s6_calls.missing(profile, "register", "s6-setuidgid or s6-log")
    return s6_tree.Tools(setuidgid, log, programs.find("with-contenv"))


def _end_group(leader: int | None) -> None:
    """Kill what a service left running: it would keep the logger's input open.

    s6-supervise makes each service the leader of its group; no other group gets its number as
    long as one of it lives.
    """
    if leader is not None and not os.path.exists(f"/proc/{leader}"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
