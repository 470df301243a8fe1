"""What a stage is made of: `stage.run(main)` calls main and tells everybody how it ended.

main names what it needs, in any order, among

    tree     pathlib.Path of the tree that the stage changes
    options  its options from the manifest, a dict
    report   a Reporter, see reporter.py
    devices, inputs, mounts, paths, meta   as they stand in the stage's arguments

and may return the message of its result. To fail it raises StageError("one line that names the
thing and the fix"). What is told then, and the exit status:

    what main raises                            status  on standard error
    StageError, OSError, a failed subprocess         1  one line
    SystemExit                                 its own  its message
    KeyboardInterrupt                              130  one line
    SIGTERM                                        143  one line
    any other: a bug of the stage                    2  the traceback

Every failure but SystemExit and the signals is also told to the engine, as upstream's stages do.
The result is the last thing that is sent to the lifecycle device.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from osbuild_pika import wire
from osbuild_pika.inside.reporter import ARGUMENTS, TREE, Reporter, note
from osbuild_pika.lifecycle import read_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, NoReturn

    Options = dict[str, Any]
else:
    import _signal as signal  # what the module signal wraps: that one loads enum, 5 ms

    Options = dict

__all__ = ["Options", "Reporter", "StageError", "arguments", "leave_metadata", "run"]

METADATA = "/run/osbuild/meta"
API = "/run/osbuild/api/osbuild"
API_TIMEOUT_S = 5.0
MAX_TEXT = 32 * 1024  # characters of an exception and of its traceback
_GIVEN = ("options", "devices", "inputs", "mounts", "paths", "meta")
FAILED, BUG, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class StageError(Exception):
    """The stage cannot do what it should, and it is no bug of the stage."""


class _Terminated(BaseException):
    """SIGTERM came."""


def arguments(path: str = ARGUMENTS) -> dict[str, Any]:
    """What the engine gives the stage: tree, options, devices, ... Raises StageError."""
    try:
        with open(path, encoding="utf-8") as file:
            given = read_json(file.read())
    except (OSError, ValueError) as error:
        text = f"the stage's arguments cannot be read, which osbuild gives it: {error}"
        raise StageError(text) from None
    if not isinstance(given, dict):
        raise StageError(f"{path}: the stage's arguments are not an object")
    return given


def leave_metadata(found: dict[str, Any], path: str = METADATA) -> None:
    """Leave what was found for whoever reads the build's result; kept in the cache, too."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(write_json(found))
    except FileNotFoundError:
        return  # started by hand: nobody reads it


def run(
    main: Callable[..., str | None], arguments_path: str = ARGUMENTS, api_path: str = API
) -> NoReturn:
    """Do a stage's work, tell how it ended, and end the process; see above."""
    gc.freeze()  # modules stay: no collection, nor that of the exit, need look at them
    report = None
    try:
        given = arguments(arguments_path)
        report = Reporter.from_devices(given.get("devices") or {}, given.get("tree", TREE))
        message, status = _call(main, given, report), 0
    except BaseException as error:
        message, status = _explain(error, api_path)
    if report is not None:
        if status or not report.has_result:
            report.result("failed" if status else "completed", message, status)
        report.close()
    sys.exit(status)


def _call(main: Callable[..., str | None], given: dict[str, Any], report: Reporter) -> str:
    """Call main with what it names. Returns the message of the result."""
    known: dict[str, Any] = {name: given.get(name) or {} for name in _GIVEN}
    known["report"] = report
    code = main.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if "tree" in names:
        from pathlib import Path  # 8 ms; stages that change a tree have it anyway

        known["tree"] = Path(given.get("tree", TREE))
    signal.signal(signal.SIGTERM, _terminate)
    message = main(**{name: known[name] for name in names if name in known})
    _ignore_signals()
    if message is None:
        return "done"
    if not isinstance(message, str):  # a status would be a failure for upstream's stages
        raise TypeError(f"main returned {message!r}: a message or None; to fail, raise StageError")
    return message


def _terminate(*_: object) -> NoReturn:
    _ignore_signals()
    raise _Terminated


def _ignore_signals() -> None:
    """From now on the stage's end is being told."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _explain(error: BaseException, api_path: str) -> tuple[str, int]:
    """Say why the stage failed, to the user and the engine. Returns (message, exit status)."""
    _ignore_signals()
    if isinstance(error, SystemExit):
        return _exit_of(error)
    if isinstance(error, _Terminated):
        message, status = "terminated by SIGTERM", TERMINATED
    elif isinstance(error, KeyboardInterrupt):
        message, status = "interrupted by SIGINT", INTERRUPTED
    else:
        message, status = _describe(error), FAILED if _is_expected(error) else BUG
    if status == BUG:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        note(f"{os.path.basename(sys.argv[0])}: {message}")
    if status in (FAILED, BUG):
        _tell_engine(error, api_path)
    return message, status


def _exit_of(error: SystemExit) -> tuple[str, int]:
    if error.code is None or error.code == 0:
        return "done", 0
    if isinstance(error.code, int):
        status = error.code & 0xFF
        return f"exited with status {status}", status
    message = _first_line(str(error.code))
    note(message)
    return message, FAILED


def _is_expected(error: BaseException) -> bool:
    """Whether a user can do something about it, without reading the stage's source."""
    subprocess = sys.modules.get("subprocess")
    of_tools = (subprocess.SubprocessError,) if subprocess else ()
    return isinstance(error, (StageError, OSError, *of_tools))


def _describe(error: BaseException) -> str:
    text = _first_line(str(error))
    if isinstance(error, StageError):
        return text or "failed"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}: the disk that holds the tree is full; make room for it"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def _tell_engine(error: BaseException, path: str) -> None:
    """Send the exception to the engine's socket, in upstream's form; there is no answer."""
    import traceback

    trace = "".join(traceback.format_tb(error.__traceback__))
    exception = {
        "type": type(error).__name__,
        "value": str(error)[:MAX_TEXT],
        "traceback": trace[-MAX_TEXT:],
    }
    packet = write_json({"method": "exception", "exception": exception}).encode()
    try:
        connection = wire.Connection.connect(path)
    except FileNotFoundError:
        return  # started by hand
    except OSError as problem:
        note(f"the engine cannot be told: {problem.strerror}")
        return
    try:
        connection.send(packet, timeout_s=API_TIMEOUT_S)
    except OSError as problem:
        note(f"the engine cannot be told: {problem.strerror}")
    finally:
        connection.close()
