"""What can go wrong, and the exit code that says so."""

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
