"""A service of an image: put into the tree as its init wants it, to start at each boot.

    systemd   /etc/systemd/system/NAME.service, enabled
    s6        /etc/s6/services/NAME, see guest_s6
    openrc    /etc/init.d/NAME, in the runlevel default

What these say stands in services/.
"""

from __future__ import annotations

import os
import re

from osbuild_pika.inside import files, guest_openrc, guest_s6, intree, units
from osbuild_pika.inside.accounts import Accounts
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.services import openrc, s6, shell, systemd
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

UNITS = "/etc/systemd/system"
LOGS = "/var/log"
OURS = "pika-cloud-"  # names of services that a guest has from us
KILL_AFTER_S = 10  # from SIGTERM to SIGKILL
SD_NOTIFY = "systemd"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,199}\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOOLS = s6.Tools("/usr/bin/s6-setuidgid", "/usr/bin/s6-log", None)


def put(tree: Path, options: Mapping[str, Any]) -> str:
    """Put a service into the tree as the stage's options say. Returns what was done. Raises
    StageError: it names the service."""
    name, init = options["name"], options.get("init", "systemd")
    try:
        if not NAME.match(name) or name.startswith(OURS):
            raise StageError(f"is no name: a-z, 0-9, then also _ and -; {OURS} is ours")
        _INITS[init](tree, {**options, "command": _command(tree, options), "env": _env(options)})
    except StageError as error:
        raise StageError(f"service {ascii(name)[1:-1][:80]}: {error}") from None
    return f"{name} starts at each boot, by {init}"


def _command(tree: Path, options: Mapping[str, Any]) -> list[str]:
    """The command, its program by an absolute path. Raises StageError."""
    program, *arguments = (_text("the command", word) for word in options["command"])
    folders = [""] if program.startswith("/") else [f"{each}/" for each in intree.PATH.split(":")]
    found = [f"{each}{program}" for each in folders if intree.has_program(tree, each + program)]
    if not found or ("/" in program and not program.startswith("/")):
        raise StageError(f"the tree has no program {ascii(program)[:200]}")
    return [found[0], *arguments]


def _env(options: Mapping[str, Any]) -> dict[str, str]:
    """The environment, sorted. Raises StageError."""
    env = dict(sorted(options.get("env", {}).items()))
    for key, value in env.items():
        if not _KEY.match(key):
            raise StageError(f"{ascii(key)[:60]} cannot be in an environment")
        _text(key, value)
    return env


def _script_env(options: Mapping[str, Any]) -> dict[str, str]:
    """The environment, where a shell script sets it. Raises StageError."""
    env: dict[str, str] = options["env"]
    for key in filter(shell.is_own, env):
        raise StageError(f"{key} is the shell's own: it cannot be in a service's environment")
    return env


def _text(what: str, text: str) -> str:
    """A text that can be written into a file. Raises StageError."""
    if why := shell.why_not(text):
        raise StageError(f"{what} {why}")
    return text


def _put_unit(tree: Path, options: Mapping[str, Any]) -> None:
    name, notify = f"{options['name']}.service", options.get("notify")
    if notify not in (None, SD_NOTIFY):
        raise StageError(f"systemd has no descriptor for readiness: notify: {SD_NOTIFY}, or none")
    if not intree.has_program(tree, "systemctl"):
        raise StageError("the tree has no systemd")
    if units.has(tree, name):
        raise StageError(f"the tree has a unit {name} already")
    unit = systemd.Unit(
        description=options["name"],
        command=options["command"],
        env=options["env"],
        user=_user(tree, options)[0],
        log=_log_file(tree, options) if "log" in options else None,
        is_notify=notify == SD_NOTIFY,
        target=systemd.SYSTEM_TARGET,
        kill_after_s=KILL_AFTER_S,
    )
    files.write(tree, f"{UNITS}/{name}", systemd.unit_text(unit).encode(), 0o600)
    units.control(tree, "enable", name)


def _put_s6(tree: Path, options: Mapping[str, Any]) -> None:
    notify = options.get("notify")
    if notify == SD_NOTIFY:
        raise StageError("s6 has no sd_notify: notify takes the number of a descriptor")
    if not all(intree.has_program(tree, each) for each in (_TOOLS.setuidgid, _TOOLS.log)):
        raise StageError("the tree has no s6")
    place = f"{guest_s6.SERVICES}/{options['name']}"
    if os.path.lexists(resolve(tree, place)):
        raise StageError(f"the tree has {place} already")
    account, home = _user(tree, options)
    script = s6.Script(
        name=options["name"],
        command=options["command"],
        env=_script_env(options),
        account=account,
        home=home,
        logs=_log_folder(options),
        notify=notify,
        kill_after_s=KILL_AFTER_S,
    )
    for each in s6.render(script, _TOOLS, is_up=True):
        if each.kind == "file":  # all else s6-supervise makes, in the scan directory
            files.write(tree, f"{place}/{each.path}", each.content.encode(), each.mode)


def _put_openrc(tree: Path, options: Mapping[str, Any]) -> None:
    if options.get("notify") is not None:
        raise StageError("OpenRC is not told of readiness: leave notify out")
    own = sorted(filter(openrc.is_own, options["env"]))
    if own:
        raise StageError(f"{own[0]} is OpenRC's own: it cannot be in a service's environment")
    if not intree.has_program(tree, "openrc"):
        raise StageError("the tree has no openrc")
    place = f"{guest_openrc.SCRIPTS}/{options['name']}"
    if os.path.lexists(resolve(tree, place)):
        raise StageError(f"the tree has {place} already")
    script = openrc.Script(
        name=options["name"],
        description=options["name"],
        command=options["command"],
        env=_script_env(options),
        user=_user(tree, options)[0],
        log=_log_file(tree, options),
        needs=(),
        kill_after_s=KILL_AFTER_S,
    )
    files.write(tree, place, openrc.script_text(script).encode(), 0o700)
    guest_openrc.enable(tree, options["name"])


def _user(tree: Path, options: Mapping[str, Any]) -> tuple[str | None, str]:
    """Who it runs as, None for root, and that user's home. Raises StageError."""
    name = options.get("user", "root")
    known = Accounts.of(tree).user(name)
    if known is None:
        raise StageError(f"the tree has no user {ascii(name)[:80]}")
    home = known[5] if len(known) > 5 else "/"
    return None if name == "root" else _text("user", name), _text("its user's home", home)


def _log_file(tree: Path, options: Mapping[str, Any]) -> str:
    """The file that its log is, in a directory of the tree."""
    folder = _log_folder(options)
    files.make_directory(tree, folder)
    return f"{folder}/{options['name']}.log"


def _log_folder(options: Mapping[str, Any]) -> str:
    """The directory of its log. Raises StageError: it is written into files of lines."""
    folder: str = options.get("log", LOGS)
    parts = folder.split("/")
    if not folder.startswith("/") or ".." in parts or any(each < " " for each in folder):
        raise StageError(f"log: {ascii(folder)[:80]} is no directory of an image")
    return _text("log", folder)


_INITS = {"systemd": _put_unit, "s6": _put_s6, "openrc": _put_openrc}
