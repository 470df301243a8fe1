"""What can go wrong, and the exit code that says so."""

from collections import namedtuple
from collections.abc import Iterable, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `osbuild-pika`: a promise to scripts, frozen by a test."""

    OK = 0
    FAILED = 1  # the build failed, or something is wrong with what was looked at
    BAD_INPUT = 2  # a wrong argument or input file
    HOST_NOT_FIT = 3  # the host lacks something, or a source cannot be had
    PUBLISH_FAILED = 4
    GUEST_FAILED = 5
    BUSY = 75  # somebody else holds it: try again later
    TIMED_OUT = 124
    INTERRUPTED = 130  # by SIGINT
    BROKEN_PIPE = 141  # nobody reads our output any more
    TERMINATED = 143  # by SIGTERM


class PikaError(Exception):
    """Base of every expected failure: the CLI prints it as one line, without a traceback."""

    exit_code = ExitCode.FAILED


class InputError(PikaError):
    """An argument or an input file is wrong."""

    exit_code = ExitCode.BAD_INPUT


class ManifestFault(namedtuple("ManifestFault", "path message")):
    """One thing that is wrong with a manifest. path: keys and indices from the top."""

    __slots__ = ()

    @property
    def place(self) -> str:
        """The path as text: ".pipelines[0].stages[2]", "." for the top."""
        parts = (
            f"[{part}]" if isinstance(part, int) else f".'{part}'" if " " in part else f".{part}"
            for part in self.path
        )
        return "".join(parts) or "."

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class ManifestError(InputError):
    """The manifest is wrong. faults: all that is, sorted by place, none twice, at least one."""

    def __init__(self, faults: Iterable[ManifestFault]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.place, fault.message)))
        more = f" (and {len(self.faults) - 1} more)" if self.faults[1:] else ""
        super().__init__(f"{self.faults[0]}{more}")


class HostError(PikaError):
    """The host lacks something that a build needs. The message names it, and the fix."""

    exit_code = ExitCode.HOST_NOT_FIT


class RemoteError(PikaError):
    """A host service answered with an exception.

    name: its class, or one of our stable error names. backtrace: text, of the service.
    """

    def __init__(self, service: str, name: str, value: str, backtrace: str) -> None:
        super().__init__(f"{service}: {name}: {value}")
        self.service = service
        self.name = name
        self.value = value
        self.backtrace = backtrace


class ServiceDied(PikaError):
    """A host service ended without an answer.

    status: as of subprocess, None if it still runs. lines: the last ones that it printed.
    """

    def __init__(self, service: str, status: int | None, lines: Sequence[str]) -> None:
        how = "closed its socket" if status is None else describe_status(status)
        last = f"; its last words: {' | '.join(lines[-3:])}" if lines else ""
        super().__init__(f"{service}: the service {how} without an answer{last}")
        self.service = service
        self.status = status
        self.lines = tuple(lines)


class ServiceTimeout(PikaError):
    """A host service did not answer in time."""

    exit_code = ExitCode.TIMED_OUT

    def __init__(self, service: str, call: str, timeout_s: float) -> None:
        super().__init__(f"{service}: no answer to {call} within {timeout_s:g} s")
        self.service = service


def describe_status(status: int) -> str:
    """Words for an exit status in subprocess's form (negative: the signal)."""
    import signal  # takes a millisecond of the start of each service

    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
