"""What the kickstart commands that are honoured add to a definition.

Each function is given what pykickstart read of one command: `data`, its options by pykickstart's
names, of which older versions have fewer.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from osbuild_pika.image.checking import did_you_mean
from osbuild_pika.image.kickstart_draft import Draft
from osbuild_pika.image.reading import shown
from osbuild_pika.image.rules import is_hash

Data = Mapping[str, Any]
_LAYOUT = re.compile(r"([A-Za-z0-9_]{1,20})(?: ?\(([A-Za-z0-9_,.-]{1,40})\))?")
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_OPTION = re.compile(r"[A-Za-z0-9_]{1,30}:[A-Za-z0-9_]{1,60}")
_DEBIAN_UNITS = {"sshd": "ssh", "crond": "cron", "chronyd": "chrony", "httpd": "apache2"}
_SUFFIXED = re.compile(r".\.(service|socket|target|timer|path|mount)$")
_SHELLS = ("/bin/bash", "/bin/dash", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/sh")
_ADMINS = {"wheel": "sudo"}


def lang(draft: Draft, at: int, data: Data) -> None:
    locale = str(data["lang"])
    base, _, modifier = locale.partition("@")
    language, _, charset = base.partition(".")
    if charset.lower().replace("-", "") == "utf8":
        charset = "UTF-8"
    elif not charset and language not in ("C", "POSIX"):
        charset = "UTF-8"
        draft.note(at, "in UTF-8")
    locale = f"{language}{'.' if charset else ''}{charset}{'@' if modifier else ''}{modifier}"
    draft.put("locale", locale, at)
    if data.get("addsupport"):
        draft.note(at, "only this one is made: for more list the package locales-all")


def keyboard(draft: Draft, at: int, data: Data) -> None:
    console = str(data.get("vc_keymap") or data.get("_keyboard") or data.get("keyboard") or "")
    given = [str(each).strip("'\"") for each in data.get("x_layouts") or ()]
    layouts = []
    for each in given or [console.partition("-")[0] if console[2:3] == "-" else console]:
        match = _LAYOUT.fullmatch(each)
        if match is None:
            draft.fault(
                at, f"{shown(each)} is no keyboard layout: write one such as us or 'de (neo)'"
            )
            return
        layouts.append((match[1], match[2] or ""))
    options = [str(each) for each in data.get("switch_options") or ()]
    for each in options:
        if not _OPTION.fullmatch(each):
            draft.fault(at, f"{shown(each)} is no option such as grp:alt_shift_toggle: correct it")
            return
    variants = [variant for _, variant in layouts]
    values = {
        "XKBMODEL": "pc105",
        "XKBLAYOUT": ",".join(layout for layout, _ in layouts),
        "XKBVARIANT": ",".join(variants) if any(variants) else "",
        "XKBOPTIONS": ",".join(options),
    }
    text = "".join(f'{name}="{value}"\n' for name, value in values.items())
    draft.file("/etc/default/keyboard", f'{text}BACKSPACE="guess"\n', at)
    draft.note(at, "in /etc/default/keyboard: a container has no keyboard of its own")


def timezone(draft: Draft, at: int, data: Data) -> None:
    zone = str(data.get("timezone") or "")
    if zone:
        problem = _zone_problem(zone)
        if problem:
            draft.fault(at, problem)
            return
        draft.put("timezone", zone, at)
    _add_servers(draft, at, sorted(map(str, data.get("ntpservers") or ())))
    if data.get("nontp"):
        _mask_timesync(draft, at)


def _zone_problem(zone: str) -> str:
    """What is wrong with a time zone, by the zones that this machine knows; "" if nothing."""
    is_name = re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*){0,2}", zone)
    folders = [Path(each) for each in zoneinfo.TZPATH if Path(each, "Europe").is_dir()]
    if is_name and (not folders or any(_has_zone(each, zone) for each in folders)):
        return ""
    near = did_you_mean(zone, sorted(zoneinfo.available_timezones())) if is_name else ""
    return f"{shown(zone)} is no time zone{near or ': write one such as Europe/Berlin'}"


def _has_zone(folder: Path, zone: str) -> bool:
    """Whether a folder of time zones has one, or knows the old name of one: since Debian 13 old
    names such as US/Eastern are files of a package of their own."""
    if (folder / zone).is_file():
        return True
    with suppress(OSError, UnicodeDecodeError):
        links = (folder / "tzdata.zi").read_text().split("\n")
        return any(line.startswith("L ") and line.endswith(f" {zone}") for line in links)
    return False


def timesource(draft: Draft, at: int, data: Data) -> None:
    if data.get("ntp_disable"):
        _mask_timesync(draft, at)
    if data.get("nts"):
        draft.note(at, "systemd-timesyncd does not know NTS: the server is asked without it")
    servers = [data.get("ntp_server"), data.get("ntp_pool")]
    _add_servers(draft, at, [str(each) for each in servers if each])


def _add_servers(draft: Draft, at: int, servers: Sequence[str]) -> None:
    for each in servers:
        if not _HOST.fullmatch(each):
            draft.fault(at, f"{shown(each)} is no host name: correct it")
            return
    if servers:
        draft.time_servers += [each for each in servers if each not in draft.time_servers]
        text = f"[Time]\nNTP={' '.join(draft.time_servers)}\n"
        draft.file("/etc/systemd/timesyncd.conf.d/kickstart.conf", text, at)
        draft.note(at, "for systemd-timesyncd, which a container leaves to its host")


def _mask_timesync(draft: Draft, at: int) -> None:
    unit = "/etc/systemd/system/systemd-timesyncd.service"
    if not any(each["path"] == unit for each in draft.document.get("files", ())):
        draft.append("files", {"path": unit, "link": "/dev/null"}, at)


def rootpw(draft: Draft, at: int, data: Data) -> None:
    if not data.get("password") and not data.get("lock"):
        draft.fault(at, "an empty password lets anybody in: give a hash, or --lock")
        return
    password = _password(draft, at, data)
    if password is not None:
        draft.user("root", at)["password"] = password
        if not password.startswith("!"):
            draft.listed_in("lint", "allow", "root-password", at)
            draft.note(at, "all instances share it: better `rootpw --lock` and `sshkey`")
    if data.get("allow_ssh"):
        path = "/etc/ssh/sshd_config.d/01-permitrootlogin.conf"
        draft.file(path, "PermitRootLogin yes\n", at)


def _password(draft: Draft, at: int, data: Data) -> str | None:
    """The password that an account gets: in clear, a hash, or locked; None after a fault, and if
    there is none."""
    password, is_hashed = str(data.get("password") or ""), bool(data.get("isCrypted"))
    if data.get("lock"):
        return f"!{password}" if is_hashed and is_hash(password) else "!"
    if not password:
        return None
    if is_hashed and not is_hash(password):
        draft.fault(at, "the password is no hash, such as `openssl passwd -6` makes: correct it")
        return None
    if not is_hashed and is_hash(password):
        draft.fault(at, "the password looks like a hash: add --iscrypted")
        return None
    if not is_hashed:
        draft.note(at, "in clear here, hashed in all that is written: better give a hash")
    return password


def user(draft: Draft, at: int, data: Data) -> None:
    name = str(data.get("name"))
    if any(each["name"] == name and "shell" in each for each in draft.document.get("users", ())):
        draft.fault(at, f"{shown(name)} stands in an earlier line: write one of them")
        return
    made = draft.user(name, at)
    made["shell"] = str(data.get("shell") or "/bin/bash")
    password = _password(draft, at, data)
    if password is not None:
        made["password"] = password
    for key, option in (("home", "homedir"), ("description", "gecos")):
        if data.get(option):
            made[key] = str(data[option])
    for key in ("uid", "gid"):
        if data.get(key) not in (None, ""):
            made[key] = _number(data[key])
    if "gid" in made:
        _own_group(draft, name, made["gid"], at)
    groups = [str(each).strip() for each in data.get("groups") or ()]
    if groups:
        made["groups"] = [_group_of(draft, each, at) for each in dict.fromkeys(groups)]


def _number(given: Any) -> Any:
    """A number that may have come as text; what is none stays, and is a fault later."""
    text = str(given)
    return int(text) if text.isdecimal() and len(text) < 10 else text


def _own_group(draft: Draft, name: str, gid: Any, at: int) -> None:
    """useradd wants the user's own group to be there."""
    if not any(each.get("gid") == gid for each in draft.document.get("groups", ())):
        _add_group(draft, name, gid, at)


def _group_of(draft: Draft, text: str, at: int) -> str:
    """A group of a user, given as NAME or NAME(GID); it is made if it is not there."""
    match = re.fullmatch(r"([^()]*)\(([0-9]{1,9})\)", text)
    name = match[1].strip() if match else text
    if not any(each["name"] == name for each in draft.document.get("groups", ())):
        _add_group(draft, name, int(match[2]) if match else None, at)
    if name in _ADMINS:
        draft.note(at, f"{name} has no rights in Debian: there it is {_ADMINS[name]}")
    return name


def group(draft: Draft, at: int, data: Data) -> None:
    gid = data.get("gid")
    _add_group(draft, str(data.get("name")), None if gid in (None, "") else _number(gid), at)


def _add_group(draft: Draft, name: str, gid: Any, at: int) -> None:
    for each in draft.document.get("groups", ()):
        if each["name"] == name and gid in (None, each.get("gid", gid)):
            each |= {} if gid is None else {"gid": gid}
            return
    draft.append("groups", {"name": name} | ({} if gid is None else {"gid": gid}), at)


def sshkey(draft: Draft, at: int, data: Data) -> None:
    name, key = str(data.get("username")), str(data.get("key") or "").strip()
    keys = draft.user(name, at).setdefault("ssh_keys", [])
    if key not in keys:
        keys.append(key)
        index = next(i for i, each in enumerate(draft.document["users"]) if each["name"] == name)
        draft.place(("users", index, "ssh_keys", len(keys) - 1), at)


def services(draft: Draft, at: int, data: Data) -> None:
    for key in ("disabled", "enabled"):
        for each in data.get(key) or ():
            name = str(each).strip()
            plain = name.removesuffix(".service")
            if plain in _DEBIAN_UNITS:
                name = _DEBIAN_UNITS[plain]
                draft.note(at, f"{plain} is {name} in Debian")
            unit = name if _SUFFIXED.search(name) else f"{name}.service"
            draft.listed_in("services", key, unit, at)


def post(draft: Draft, at: int, data: Data) -> None:
    """A %post: data has its body, interpreter, log, is_fatal."""
    script = str(data["body"])
    if not script.strip():
        draft.note(at, "empty")
        return
    hook: dict[str, Any] = {"script": script, "interpreter": _interpreter(str(data["interpreter"]))}
    if data.get("log"):
        hook["log"] = str(data["log"])
        if hook["log"].startswith("/var/log/"):
            draft.note(at, "its log is in the build's: /var/log is empty in an image")
    if not data["is_fatal"]:
        hook["may_fail"] = True
    draft.hook(hook, at)


def _interpreter(given: str) -> str:
    """What /bin/sh is where kickstarts come from is bash; and no shell of a kickstart ends at the
    first command that fails, as one without arguments would in a hook."""
    if given == "/bin/sh":
        return "/bin/bash --posix"
    return f"{given} +e" if given in _SHELLS else given


COMMANDS: Mapping[str, Callable[[Draft, int, Data], None]] = {
    "lang": lang,
    "keyboard": keyboard,
    "timezone": timezone,
    "timesource": timesource,
    "rootpw": rootpw,
    "user": user,
    "group": group,
    "sshkey": sshkey,
    "services": services,
    "%post": post,
}
