"""A service directory of s6, as s6's servicedir page has it: rendered, and written.

    type                 longrun
    run, finish          the service; exit 0 and 78 mean that it is to stay down
    log/run              its logger: forwards, and keeps timestamped, rotated files
    notification-fd      where the service says that it is ready
    down                 it is not to start by itself
    timeout-kill         milliseconds from SIGTERM to SIGKILL
    event, supervise/{event,control}, and the same under log/

The last are s6-supervise's own. It makes what is missing, for its own user alone; what is there
it takes as it is. So they are seeded: whoever registers, and a group that may be named, steers a
service whose supervisor is root's.
"""

from __future__ import annotations

import os
import shlex
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOGS_VARIABLE = "OSBUILD_PIKA_SERVICE_LOGS"
FIFODIR = 0o3730  # as s6's fifodir page has it: listeners of one group
CONTROL = 0o660
_STAY_DOWN = "0|78"  # done; EX_CONFIG: it would fail again
_PERMANENT = 125  # what finish tells s6-supervise
_RUN = 0o700  # the environment of a service can be secret

# kind: "directory", "file" or "fifo". A directory comes before what is in it.
Entry = namedtuple("Entry", "path kind mode content")
# What scripts call, as absolute paths. with_contenv: None where there is none (s6-overlay's).
Tools = namedtuple("Tools", "setuidgid log with_contenv")
# account: a user's name that root's processes become; None: they stay. home: HOME.
# logs: where logs are kept if LOGS_VARIABLE does not say so. kill_after_s: 0: never.
Script = namedtuple("Script", "name command env account home logs notify kill_after_s")


def render(script: Script, tools: Tools, is_up: bool) -> tuple[Entry, ...]:
    """All of a service directory. is_up: it starts as soon as it is seen."""
    return (
        _file("type", "longrun\n"),
        _file("run", run_text(script, tools), _RUN),
        _file("finish", finish_text(), 0o755),
        _file("timeout-kill", f"{int(script.kill_after_s * 1000)}\n"),
        *((_file("notification-fd", f"{script.notify}\n"),) if script.notify is not None else ()),
        *((_file("down", ""),) if not is_up else ()),
        *skeleton(""),
        Entry("log", "directory", 0o755, ""),
        _file("log/type", "longrun\n"),
        _file("log/run", log_text(script, tools), 0o755),
        *skeleton("log/"),
    )


def skeleton(below: str) -> Iterator[Entry]:
    """What s6-supervise would make for its own user alone."""
    yield Entry(f"{below}event", "directory", FIFODIR, "")
    yield Entry(f"{below}supervise", "directory", 0o755, "")
    yield Entry(f"{below}supervise/event", "directory", FIFODIR, "")
    yield Entry(f"{below}supervise/control", "fifo", CONTROL, "")


def run_text(script: Script, tools: Tools) -> str:
    """The script `run`. What it prints goes to the logger, errors too."""
    env = {"HOME": script.home, **script.env}
    exports = "".join(f"export {key}={shlex.quote(env[key])}\n" for key in env)
    command = shlex.join(script.command)
    if script.account is not None:
        # No name of the environment reaches "$1": what it holds decides who the service runs as.
        exports = f'set -- "$account"\n{exports}'
        command = f'{shlex.quote(tools.setuidgid)} "$1" {command}'
    return f"{_head(script, tools)}exec 2>&1\n{exports}exec {command}\n"


def finish_text() -> str:
    """The script `finish`: which ends are for good."""
    return f'#!/bin/sh\ncase "$1" in {_STAY_DOWN}) exit {_PERMANENT} ;; esac\nexit 0\n'


def log_text(script: Script, tools: Tools) -> str:
    """The script `log/run`. Where nothing can be kept it forwards: a full pipe stops a service."""
    logs = f"logs=${{{LOGS_VARIABLE}:-{shlex.quote(script.logs)}}}/{script.name}\n"
    become, given = "", ""
    if script.account is not None:
        become = f'{shlex.quote(tools.setuidgid)} "$account" '
        given = ' && { [ -z "$account" ] || chown -h "$account" "$logs"; }'
    program = f"exec {become}{shlex.quote(tools.log)}"
    # What is there already may be somebody else's: it keeps its owner.
    made = f'[ -e "$logs" ] || {{ mkdir -p "$logs"{given}; }}\n'
    able = f'{become}test -d "$logs" -a -w "$logs" -a -x "$logs" || {program} 1\n'
    keep = f'{program} 1 n10 s1000000 T "$logs"\n'
    return f"{_head(script, tools)}exec 2>&1\n{logs}{made}{able}{keep}"


def _head(script: Script, tools: Tools) -> str:
    """The first lines: the interpreter, and who root's process becomes."""
    shell = "/bin/sh" if tools.with_contenv is None else f"{tools.with_contenv} sh"
    first = f"#!{shell}\n# Written by osbuild-pika, again at each boot.\n"
    if script.account is None:
        return first
    return f'{first}account=\n[ "$(id -u)" != 0 ] || account={shlex.quote(script.account)}\n'


def _file(path: str, content: str, mode: int = 0o644) -> Entry:
    return Entry(path, "file", mode, content)


def write(directory: str, entries: Iterable[Entry], gid: int = -1) -> None:
    """Make a service directory that is not there yet. Raises OSError: then it may be half made.

    gid: the group of what steers the service; -1: the caller's own.
    """
    os.mkdir(directory)
    for entry in (Entry("", "itself", 0o755, ""), *entries):
        path = os.path.join(directory, entry.path)
        if entry.kind == "directory":
            os.mkdir(path)
        elif entry.kind == "fifo":
            os.mkfifo(path)
        elif entry.kind == "file":
            with open(path, "x") as file:
                file.write(entry.content)
        if entry.mode in (FIFODIR, CONTROL):
            os.chown(path, -1, os.getegid() if gid == -1 else gid)
        os.chmod(path, entry.mode)  # whatever the umask; and chown takes special bits away
