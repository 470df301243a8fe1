"""A kickstart -> an image definition, and a report of what became of each command.

pykickstart reads the commands one by one: so one that is wrong hides no other. It is imported by
this file only (GPL, and 0.3 s), and it opens no file: includes are followed in kickstart_text.py.
What is made of which command stands in docs/reference/kickstart.md.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.image import kickstart_network, kickstart_packages
from osbuild_pika.image.checking import did_you_mean
from osbuild_pika.image.kickstart_commands import COMMANDS
from osbuild_pika.image.kickstart_draft import Draft
from osbuild_pika.image.kickstart_report import ERROR, KickstartError, Report, entry, refused
from osbuild_pika.image.kickstart_report import HONOURED as YES
from osbuild_pika.image.kickstart_rules import HONOURED, IGNORED, REFUSED, SECRET
from osbuild_pika.image.kickstart_text import MAX_BYTES, MAX_ITEMS, Item, Line, expand, split
from osbuild_pika.image.reading import shown
from osbuild_pika.image.values import Definition
from osbuild_pika.text import one_line

ORIGIN = "debian/bookworm"
OLDER = ("RHEL10", "RHEL9", "F33", "RHEL8", "RHEL7", "RHEL6", "RHEL5", "RHEL4", "FC3")
SUFFIXES = (".ks", ".kickstart", ".cfg")
_SUITE = re.compile(r"(debian|ubuntu)/[a-z][a-z0-9.-]{0,40}(@[0-9]{8}T[0-9]{6}Z)?")
_VERSION = re.compile(r"#\s*version=\s*(\S+)", re.IGNORECASE)
# Options of `repo` that image creators of the MeeGo family added -> whether a value follows.
_MEEGO_REPO = {
    **dict.fromkeys(("--save", "--debuginfo", "--source", "--disable", "--nocache"), False),
    **dict.fromkeys(("--ssl_verify", "--check_ssl", "--gpgkey", "--priority"), True),
}
_COMMANDS = {
    **COMMANDS,
    "network": kickstart_network.network,
    "repo": kickstart_packages.repo,
    "url": kickstart_packages.url,
}


class Converted(NamedTuple):
    definition: Definition
    report: Report


class Parsed(NamedTuple):
    """What pykickstart made of an item: its options by name, or why there are none."""

    item: Item
    data: Mapping[str, Any]
    fault: str


class Reading(NamedTuple):
    """A kickstart as a version of the language has it."""

    version: str
    why: str
    parsed: tuple[Parsed, ...]

    @property
    def fault_count(self) -> int:
        """How many lines could not be read."""
        return sum(bool(each.fault) for each in self.parsed)


def convert(
    text: str,
    name: str,
    allowed: frozenset[str] = frozenset(),
    include_root: str | None = None,
    origin: str = ORIGIN,
) -> Converted:
    """The definition that a kickstart means.

    name: of its file; the image is called so, without the suffix. allowed: commands that are left
    out with a warning, as the report calls them. include_root: the directory of files that may be
    included; they are all that is read. origin: DISTRIBUTION/SUITE, unless a mirror's line says it.
    Raises KickstartError, which has the report, with all that is wrong; InputError for a wrong
    origin or include_root; HostError without pykickstart.
    """
    if not _SUITE.fullmatch(origin):
        raise InputError(f"--from {shown(origin)} is no suite such as {ORIGIN}")
    expanded = expand(text, one_line(name, 60), include_root)
    if expanded.faults:
        raise refused(name, expanded.faults)
    items = _items(name, expanded.lines)
    reading = _read(items, expanded.lines)
    draft = Draft(expanded.lines, allowed)
    for at, command, why in expanded.refused:
        draft.fault(at, why, command)
    for each in reading.parsed:
        _take(draft, each)
    chosen, why = (draft.origin, "a mirror's line") if draft.origin else (origin, "--from")
    definition = draft.finish(image_name(name), chosen)
    report = Report(
        one_line(name, 60),
        reading.version,
        reading.why,
        f"{chosen} ({why})",
        tuple(draft.entries()),
    )
    if definition is None or draft.is_refused:
        raise KickstartError(report)
    return Converted(definition, report)


def _items(name: str, lines: Sequence[Line]) -> tuple[Item, ...]:
    """Raises KickstartError if there are too many."""
    items = tuple(islice(split(lines), MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        why = f"has more than {MAX_ITEMS} commands: shorten it"
        raise refused(name, [entry(lines[items[-1].at].place, "", ERROR, why)])
    return items


def load(
    path: str,
    allowed: frozenset[str] = frozenset(),
    include_root: str | None = None,
    origin: str = ORIGIN,
) -> Converted:
    """`convert` of a file. Raises what it does, InputError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{ascii(path)[1:-1]}: {why}") from None
    name = Path(path).name
    try:
        return convert(data.decode(), name, allowed, include_root, origin)
    except UnicodeDecodeError as error:
        if len(data) > MAX_BYTES:  # maybe cut inside of a character: told as what it is
            return convert("\n" * len(data), name)
        place = (name, data[: error.start].count(b"\n") + 1)
        why = "is not UTF-8 text: convert it"
        raise refused(name, [entry(place, "", ERROR, why)]) from None


def image_name(name: str) -> str:
    """What the image of a kickstart's file is called."""
    plain = name.rpartition("/")[2]
    for suffix in SUFFIXES:
        plain = plain.removesuffix(suffix)
    return re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.")[:63].strip("-.") or "image"


# --- reading -------------------------------------------------------------------------------------


def _read(items: Sequence[Item], lines: Sequence[Line]) -> Reading:
    """Read by the version that is asked for, else by the newest, else by an older one that can
    read more. Raises HostError."""
    try:
        from pykickstart import version
    except ImportError:
        raise HostError(
            "kickstarts need pykickstart: pip install 'osbuild-pika[kickstart]', "
            "or the package python3-pykickstart"
        ) from None
    asked, place = _asked(items, lines)
    if asked in version.versionMap:
        return _read_as(items, lines, version.versionMap[asked], f"#version= in {place}")
    unknown = f", for {shown(asked)} in {place} is not known" if asked else ""
    best = newest = _read_as(items, lines, version.DEVEL, f"the newest{unknown}")
    known = [name for name in OLDER if name in version.versionMap]
    for name in known if newest.fault_count else ():
        older = _read_as(items, lines, version.versionMap[name], "")
        if older.fault_count < best.fault_count:
            more = newest.fault_count - older.fault_count
            best = older._replace(why=f"it reads {more} lines more than the newest")
        if not best.fault_count:
            break
    return best


def newest() -> str:
    """The newest version of the language that pykickstart here knows."""
    from pykickstart.version import DEVEL, versionToString

    return str(versionToString(DEVEL, skipDevel=True))


def _asked(items: Sequence[Item], lines: Sequence[Line]) -> tuple[str, str]:
    """The version that a comment outside of sections asks for, and where; ("", "") without one."""
    inside = {index for item in items for index, _ in item.body}
    for index, line in enumerate(lines):
        match = _VERSION.match(line.text) if index not in inside else None
        if match:
            return match[1].upper(), f"line {line.number}"
    return "", ""


def _read_as(items: Sequence[Item], lines: Sequence[Line], number: int, why: str) -> Reading:
    from pykickstart.parser import KickstartParser
    from pykickstart.version import F8, versionToString

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated options: they are read all the same
        handler = _handler(number, {each.name for each in items})
        parser = KickstartParser(handler, followIncludes=False)
        parsed = []
        for item in items:
            data, fault = _parsed(parser, item, lines[item.at].text)
            if not item.is_ended and number >= F8:
                fault = fault or f"{item.name} has no %end: add one"
            parsed.append(Parsed(item, data, fault))
    return Reading(versionToString(number, skipDevel=True), why, tuple(parsed))


def _handler(number: int, names: Set[str]) -> Any:
    """What reads a version's commands of these names: to make all takes ten times as long."""
    from pykickstart.handlers.control import commandMap
    from pykickstart.version import returnClassForVersion

    known = commandMap[number]
    # Where packages come from is one command with several names in older versions.
    return returnClassForVersion(number)(
        mapping={name: known[name] for name in known if name in names or name == "method"}
    )


def _parsed(parser: Any, item: Item, text: str) -> tuple[Mapping[str, Any], str]:
    """What pykickstart makes of an item, and why it cannot."""
    from pykickstart.errors import KickstartError as Refusal

    if item.fault:
        return {}, item.fault
    try:
        if item.name == "%packages":
            parser.readKickstartFromString(f"{text}\n%end\n")
            return dict(vars(parser.handler.packages)), ""
        if item.name == "%post":
            return _script(parser, text), ""
        if item.name.startswith("%"):
            return {}, ""
        words, extra = _without_meego(item.words)
        found = parser.handleCommand(item.at + 1, list(words))
        return {**_copied(found), **extra}, ""
    except Refusal as error:
        return {}, _fault(item, str(error.message))
    # Its commands stumble over some odd values instead of refusing them.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return {}, _fault(item, "its values are not understood")


def _script(parser: Any, text: str) -> Mapping[str, Any]:
    """The options of a %post. Its body is not given to pykickstart, only a line in its place."""
    parser.readKickstartFromString(f"{text}\n:\n%end\n")
    script = parser.handler.scripts[-1]
    return {
        "interpreter": script.interp,
        "log": script.logfile,
        "is_fatal": script.errorOnFail,
        "is_outside": not script.inChroot,
    }


def _copied(found: Any) -> dict[str, Any]:
    """The values of a command: the next of its name changes the same object."""
    return {
        name: list(value) if isinstance(value, (list, set, tuple)) else value
        for name, value in (vars(found) if found is not None else {}).items()
    }


def _without_meego(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """A command's words, and the options of `repo` that pykickstart does not know."""
    kept: list[str] = []
    extra: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.partition("=")
        if words[0] != "repo" or name not in _MEEGO_REPO:
            kept.append(word)
        elif has_value or not _MEEGO_REPO[name] or not rest or rest[0].startswith("--"):
            extra[name] = value or True
        else:
            extra[name] = rest.pop(0)
    return kept, extra


def _fault(item: Item, message: str) -> str:
    """pykickstart's words; not where they might repeat a password."""
    if item.name in SECRET or not message:
        message = "its options are not understood"
    return f"{' '.join(message.split())}: correct it"


# --- judging -------------------------------------------------------------------------------------


def _take(draft: Draft, parsed: Parsed) -> None:
    """Add an item to the definition, or say why not."""
    item, name = parsed.item, parsed.item.name
    if name in IGNORED:
        draft.ignore(item.at, name, IGNORED[name])
    elif name in REFUSED:
        draft.refuse(item.at, name, REFUSED[name])
    elif name not in HONOURED:
        _refuse_unknown(draft, parsed)
    elif parsed.fault:
        draft.fault(item.at, parsed.fault, name)
    elif parsed.data.get("is_outside"):
        draft.refuse(item.at, "%post --nochroot", REFUSED["%post --nochroot"])
    else:
        draft.judge(item.at, name, YES)
        if name == "%packages":
            kickstart_packages.packages(draft, item.at, parsed.data, item.body)
        elif name == "%post":
            body = "".join(f"{text}\n" for _, text in item.body)
            _COMMANDS[name](draft, item.at, {**parsed.data, "body": body})
        else:
            _COMMANDS[name](draft, item.at, parsed.data)


def _refuse_unknown(draft: Draft, parsed: Parsed) -> None:
    item, name = parsed.item, one_line(parsed.item.name, 60)
    if name == "%end":
        draft.fault(item.at, "no section is open here: remove it", name)
    elif item.fault:
        draft.fault(item.at, item.fault, name)
    else:
        kind = "section" if name.startswith("%") else "command"
        near = did_you_mean(name, [*HONOURED, *IGNORED, *REFUSED])
        draft.refuse(item.at, name, f"is no {kind} of kickstart{near or '; remove it'}")
