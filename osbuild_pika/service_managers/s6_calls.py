"""s6's programs, called about one scan directory. A refusal is a CommandError of the profile."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from osbuild_pika.service_managers import programs
from osbuild_pika.service_managers.base import CommandError, State
from osbuild_pika.service_managers.programs import Done, Runner

_LOOK_S = 0.02  # between two looks at what s6 tells nobody
_LOGGER_S = 2  # that a logger has for what is left in its pipe
_MARGIN_S = 5  # for what has a limit of its own
_NOT_SUPERVISED = 1  # says s6-svstat
_FIELDS = "up,wantedup,ready,pid,exitcode,signum,updownfor"

NOT_SUPERVISED = State(False, False, False, None, None, None, 0)


class Calls:
    """timeout_s: the limit of each wait for s6."""

    def __init__(self, scan_directory: str, timeout_s: float, run: Runner) -> None:
        self._scan_directory = scan_directory
        self._timeout_s = timeout_s
        self._run = run

    def start(self, profile: str, place: str) -> None:
        """Have it up, and ready if it tells that; also when its supervisor starts again."""
        tells = os.path.exists(os.path.join(place, "notification-fd"))
        self._svc(profile, "start", place, ("-wU" if tells else "-wu", "-U"))

    def stop(self, profile: str, place: str, is_for_good: bool = True) -> None:
        """Have it down, its `finish` done. is_for_good: also when its supervisor starts again."""
        self._svc(profile, "stop", place, ("-wD", "-D" if is_for_good else "-d"))

    def _svc(self, profile: str, action: str, place: str, words: tuple[str, str]) -> None:
        wait, order = words
        limit = ("-T", str(int(self._timeout_s * 1000)))
        done = self._run(("s6-svc", wait, *limit, order, place), self._timeout_s + _MARGIN_S)
        if done.returncode != 0 and "timed out" in done.stderr:
            done = done._replace(returncode=None)
        programs.check(profile, action, done)

    def state(self, profile: str, place: str) -> State:
        """What s6-svstat says; NOT_SUPERVISED if nobody watches the service."""
        done = self._run(("s6-svstat", "-o", _FIELDS, place), self._timeout_s)
        if done.returncode == _NOT_SUPERVISED:
            return NOT_SUPERVISED
        programs.check(profile, "status", done)
        return parse_state(done.stdout)

    def is_running(self, profile: str, place: str) -> bool:
        """Whether its process runs."""
        done = self._run(("s6-svstat", "-o", "up", place), self._timeout_s)
        if done.returncode == _NOT_SUPERVISED:
            return False
        programs.check(profile, "status", done)
        return bool(done.stdout.strip() == "true")

    def is_supervised(self, profile: str, place: str, *more: str) -> bool:
        """Whether an s6-supervise watches any of the service directories."""
        for each in (place, *more):
            done = self._run(("s6-svok", each), self._timeout_s)
            if done.returncode not in (0, 1):
                programs.check(profile, "look", done)
            if done.returncode == 0:
                return True
        return False

    def scan(self, profile: str) -> None:
        """Have s6-svscan look for what is new."""
        programs.check(profile, "rescan", self._svscanctl("-a"))

    def prune(self) -> Done:
        """Have s6-svscan look, and end the supervisors of what is gone."""
        return self._svscanctl("-an")

    def _svscanctl(self, order: str) -> Done:
        return self._run(("s6-svscanctl", order, self._scan_directory), self._timeout_s)

    def wait_for_end(self, profile: str, place: str, log: str) -> None:
        """Wait until both supervisors, which were told to end, have ended."""
        told_at = time.monotonic() + _LOGGER_S

        def has_ended() -> bool:
            nonlocal told_at
            if time.monotonic() > told_at and not self.is_supervised(profile, place):
                # Something of the service lives on, with its output open: the logger ends
                # without having read all of it.
                self._run(("s6-svc", "-xd", log), self._timeout_s)
                told_at = math.inf
            return not self.is_supervised(profile, place, log)

        self.wait_until(profile, "unregister", has_ended)

    def wait_until(self, profile: str, action: str, is_so: Callable[[], bool]) -> None:
        """Look until it is so. Raises CommandError when the time is over."""
        end = time.monotonic() + self._timeout_s
        while not is_so():
            if time.monotonic() > end:
                what = f"s6-svscan did not follow within {self._timeout_s:g} s"
                raise CommandError(profile, action, None, what)
            time.sleep(_LOOK_S)


def parse_state(text: str) -> State:
    """The values of s6-svstat -o, as it prints them: -1 for what there is not."""
    words = text.split()
    is_up, is_wanted, is_ready = (word == "true" for word in words[:3])
    pid, code, signal, since_s = (int(word) for word in words[3:])
    ended = None if is_up or code < 0 else code
    killed = None if is_up or signal < 0 else signal
    # Down and "ready" is to s6: it can be started.
    ready = is_up and is_ready
    return State(is_up, is_wanted, ready, pid if is_up else None, ended, killed, since_s)


def has_begun(state: State) -> bool:
    """Whether a service that was to start did: it is up, or has been up.

    s6 tells a service that never ran and one that ended with 0 apart by what it wants: it gave
    that one up, see inside/services/s6.py, finish_text.
    """
    return state.is_up or not state.is_wanted or bool(state.exit_code) or bool(state.signal)


def missing(profile: str, action: str, names: str) -> CommandError:
    """The error of a program that is not there."""
    what = f"{names} is not on PATH, nor in {programs.MORE_PLACES}: install s6"
    return CommandError(profile, action, programs.MISSING, what)
