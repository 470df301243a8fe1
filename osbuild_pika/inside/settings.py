"""A tree's language, time zone and package sources."""

from __future__ import annotations

import os
import re

from osbuild_pika.inside import files, intree
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Union

    Words = Union[str, Sequence[str]]

LANGUAGE = re.compile(r"[A-Za-z0-9_.@-]{1,64}\Z")
ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}\Z")
BUILT_IN = re.compile(r"(C|POSIX)(\.|\Z)")  # languages that the C library has by itself
ZONES = "/usr/share/zoneinfo"
_ORDER = ("types", "uris", "suites", "components", "architectures", "signed-by")


def set_language(tree: Path, language: str) -> str:
    """Set the system's language. Returns what was done. Raises StageError."""
    if not LANGUAGE.match(language):
        raise StageError(f"{ascii(language)[:80]} is no locale such as en_US.UTF-8")
    line = f"LANG={language}\n".encode()
    files.write(tree, "/etc/locale.conf", line)
    # Debian's PAM reads this one; in newer releases it is a link to the other.
    debians = resolve(tree, "/etc/default/locale", follow=False)
    if os.path.isdir(resolve(tree, "/etc/default")) and not os.path.islink(debians):
        files.write(tree, "/etc/default/locale", line)
    if BUILT_IN.match(language) or not intree.has_program(tree, "locale-gen"):
        return f"the language is {language}"
    return _generate(tree, language)


def _generate(tree: Path, language: str) -> str:
    """Have Debian's package locales make what a language needs."""
    name = resolve(tree, "/etc/locale.gen")
    text = ""
    if os.path.isfile(name):
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    changed, known = enable_language(text, language)
    if not known:
        raise StageError(f"{language}: the tree's /etc/locale.gen knows no such locale")
    files.write(tree, "/etc/locale.gen", changed.encode("utf-8", "surrogateescape"))
    intree.run_checked(tree, ["locale-gen"])
    return f"the language is {language}, and was generated"


def enable_language(text: str, language: str) -> tuple[str, bool]:
    """Take the comment off a language's line in /etc/locale.gen. Returns (the text, whether the
    language stands in it)."""
    pattern = re.compile(rf"^[# \t]*({re.escape(language)}[ \t].*)$", re.MULTILINE)
    changed, count = pattern.subn(r"\1", text, count=1)
    return changed, bool(count)


def set_zone(tree: Path, zone: str) -> None:
    """Set the system's time zone. Raises StageError."""
    if not ZONE.match(zone):
        raise StageError(f"{ascii(zone)[:80]} is no time zone such as Europe/Berlin")
    if zone != "UTC" and not os.path.isfile(resolve(tree, f"{ZONES}/{zone}")):
        raise StageError(
            f"{zone}: not in the tree's {ZONES}; add the package tzdata (since Debian 13 "
            "tzdata-legacy for old names such as US/Eastern), or see its names"
        )
    files.link(tree, "/etc/localtime", f"..{ZONES}/{zone}")
    if os.path.isfile(resolve(tree, "/etc/timezone")):  # Debian keeps the name here, too
        files.write(tree, "/etc/timezone", f"{zone}\n".encode())


def set_sources(tree: Path, sources: Sequence[Mapping[str, Words]]) -> str:
    """Write the sources of the image's packages, instead of what is there. Returns the path.

    sources: stanzas of deb822: types, uris, suites, components, signed-by, ... Raises StageError.
    """
    for stanza in sources:
        for key in _words(stanza.get("signed-by", ())):
            if key.startswith("/") and not os.path.isfile(resolve(tree, key)):
                raise StageError(
                    f"{key}: the image has no such keyring; add the package that has it"
                )
    old = resolve(tree, "/etc/apt/sources.list", follow=False)
    if os.path.lexists(old):
        os.unlink(old)
    path = f"/etc/apt/sources.list.d/{_distribution(tree)}.sources"
    files.write(tree, path, "\n".join(map(stanza_text, sources)).encode())
    return path


def stanza_text(stanza: Mapping[str, Words]) -> str:
    """One stanza of a .sources file."""
    names = sorted(stanza, key=lambda name: (_ORDER.index(name) if name in _ORDER else 99, name))
    lines = []
    for name in names:
        words = " ".join(_words(stanza[name]))
        if "\n" in words:
            raise StageError(f"sources: {name} has more than one line")
        lines.append(f"{name.title().replace('Uris', 'URIs')}: {words}\n")
    return "".join(lines)


def _words(given: Words) -> list[str]:
    return given.split(" ") if isinstance(given, str) else list(given)


def _distribution(tree: Path) -> str:
    """What the release calls itself in os-release."""
    path = resolve(tree, "/etc/os-release")
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                found = re.match(r"ID=\"?([a-z0-9._-]+)\"?$", line.strip())
                if found:
                    return found.group(1)
    return "image"


def set_answers(tree: Path, answers: Sequence[str]) -> None:
    """Answer debconf's questions before a package asks. answers: lines "PACKAGE QUESTION TYPE
    VALUE", as of debconf-set-selections. Raises StageError."""
    name = "/var/cache/osbuild-pika.answers"
    path = files.write(tree, name, "".join(f"{line}\n" for line in answers).encode(), 0o600)
    try:
        intree.run_checked(tree, ["debconf-set-selections", name])
    finally:
        os.unlink(path)
