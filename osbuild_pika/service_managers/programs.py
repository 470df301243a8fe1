"""The one place that starts a service manager's programs. Tests put a recorder in its place."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from osbuild_pika.service_managers.base import CommandError, State

# Where s6-overlay has its programs; and where only root's PATH leads.
MORE_PLACES = os.pathsep.join(("/command", "/usr/sbin", "/sbin"))
MISSING = 127  # as of a shell

# What became of a program. returncode: as of subprocess; None: it was ended at its time limit.
Done = namedtuple("Done", "returncode stdout stderr")
# command, time limit in seconds -> what became of it
Runner = Callable[[Sequence[str], float], Done]


def find(name: str) -> str | None:
    """Where a program is: on PATH, or in MORE_PLACES."""
    places = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join((places, MORE_PLACES)))


def run(command: Sequence[str], timeout_s: float) -> Done:
    """Run a program to its end. Raises nothing that depends on the program."""
    program = find(command[0])
    if program is None:
        return Done(MISSING, "", f"{command[0]} is not on PATH, nor in {MORE_PLACES}: install it")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        return Done(None, "", (error.stderr or b"").decode(errors="replace"))
    except OSError as error:
        return Done(MISSING, "", f"{program}: {error.strerror}")
    out, err = (each.decode(errors="replace") for each in (done.stdout, done.stderr))
    return Done(done.returncode, out, err)


def check(profile: str, action: str, done: Done) -> None:
    """Raises CommandError unless a program ended well. action: what was to be done."""
    if done.returncode != 0:
        raise CommandError(profile, action, done.returncode, done.stderr)


class Steered(ABC):
    """What backends have in common: settings, None for this machine's, and what runs programs."""

    default_settings: ClassVar[Callable[[], Any]]

    def __init__(self, settings: Any = None, run: Runner = run) -> None:
        self.settings = type(self).default_settings() if settings is None else settings
        self._run = run

    def is_running(self, profile: str) -> bool:
        return bool(self.state(profile).is_up)

    @abstractmethod
    def state(self, profile: str) -> State:
        """All that is known of a service: each backend asks in its own way."""
