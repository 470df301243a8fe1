"""A workitem's fields: those that come in -> a Request, or all that is wrong; those that go out.

The fields stand in docs/reference/participant.md and schemas/workitem.schema.json. A workitem is
{"fields": {"image": {...}}, ...} as a process engine has it, or the fields alone. What is not ours
is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.image.debian import ARCHITECTURES
from osbuild_pika.participant import options
from osbuild_pika.participant.options import Options, shown
from osbuild_pika.runs import is_name
from osbuild_pika.text import one_line

Json = dict[str, Any]
MAX_BYTES = 4 * 1024 * 1024  # of a workitem
MAX_KICKSTART = 1024 * 1024  # characters
MAX_DEPTH = 64  # of nested lists and objects
PREFIX = "requests"
# image_type -> the output of a definition.
TYPES = {
    "incus-container": "incus-unified",
    "incus-split": "incus-split",
    "rootfs": "rootfs-tar",
    "squashfs": "squashfs",
}
ERROR = "__error__"
_NAME = "a-z, 0-9, and then also . _ -; at most 64"
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]{0,63}", re.ASCII)
# Tabs and line ends are all of the control characters that a kickstart has.
_UNTEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Request:
    """What a workitem asks for. arch: Debian's name; "": this machine's. release: "" for none."""

    kickstart: str = field(repr=False)
    prefix: str
    image_id: str
    image_type: str
    name: str
    release: str
    arch: str
    options: Options

    @property
    def output(self) -> str:
        return TYPES[self.image_type]

    @property
    def digest(self) -> str:
        """Of all that decides what is built: the same for the same request."""
        chosen = self.options
        parts = [self.kickstart, self.image_type, self.name, self.release, self.arch]
        more = [chosen.compression, sorted(chosen.allowed), chosen.lifecycle]
        return hashlib.sha256(json.dumps([1, *parts, *more]).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """How a request ended. error: "" if it was built. URLs: None for what there is not.

    report: of the conversion, as JSON has it. lines: what is to be told, beside the error.
    """

    code: int
    error: str = ""
    image_url: str | None = None
    files_url: str | None = None
    logfile_url: str | None = None
    report: Any = None
    lines: tuple[str, ...] = ()

    @property
    def is_built(self) -> bool:
        return not self.code


def refused(faults: list[str], report: Any = None) -> Outcome:
    """The end of a workitem that cannot be a request."""
    more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
    error = one_line(f"{faults[0]}{more}")
    return Outcome(ExitCode.BAD_INPUT, error, report=report, lines=tuple(map(one_line, faults)))


def decode(data: bytes) -> Json:
    """The workitem that a text holds. Raises InputError."""
    if len(data) > MAX_BYTES:
        raise InputError(f"the workitem is larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InputError("the workitem is no JSON") from None
    if not isinstance(found, dict):
        raise InputError("the workitem is no JSON object")
    if _is_deep(found):
        raise InputError(f"the workitem is nested deeper than {MAX_DEPTH} lists and objects")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _is_deep(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def encode(workitem: Mapping[str, Any]) -> bytes:
    return json.dumps(workitem).encode() + b"\n"


def fields_of(workitem: object) -> Json:
    """The fields of a workitem; {} if it has none."""
    found = workitem.get("fields", workitem) if isinstance(workitem, dict) else None
    return found if isinstance(found, dict) else {}


def image_of(workitem: object) -> Json:
    """The fields of its image; {} if it has none."""
    found = fields_of(workitem).get("image")
    return found if isinstance(found, dict) else {}


def read(workitem: object) -> tuple[Request | None, list[str]]:
    """What a workitem asks for, or all that is wrong with it, a line each. Raises nothing."""
    image = image_of(workitem)
    if not image:
        return None, [
            "the workitem has no fields of an image: image.kickstart, image.image_id, ..."
        ]
    faults = [*_names(image), *_texts(image)]
    given = image.get("extra_opts")
    listed = [] if given is None else given
    if not isinstance(listed, list):
        faults.append(f"image.extra_opts: {shown(given)} is no list")
        listed = []
    chosen, wrong = options.read(listed)
    faults += [f"image.extra_opts: {each}" for each in wrong]
    if faults:
        return None, faults
    return _request(image, chosen), []


def _request(image: Mapping[str, Any], chosen: Options) -> Request:
    return Request(
        kickstart=image["kickstart"],
        prefix=image.get("prefix") or PREFIX,
        image_id=image["image_id"],
        image_type=image["image_type"],
        name=image["name"],
        release=image.get("release") or "",
        arch=architecture(image.get("arch")) or "",
        options=chosen,
    )


def _names(image: Mapping[str, Any]) -> list[str]:
    faults = []
    for key in ("image_id", "name", "prefix"):
        value = image.get(key)
        if value in (None, ""):
            if key != "prefix":
                faults.append(f"image.{key} is missing")
        elif not isinstance(value, str) or not is_name(value):
            faults.append(f"image.{key}: {shown(value)} is no name: {_NAME}")
    kind = image.get("image_type")
    if kind in (None, ""):
        faults.append(f"image.image_type is missing: one of {', '.join(TYPES)}")
    elif not isinstance(kind, str) or kind not in TYPES:
        faults.append(f"image.image_type: {shown(kind)} is none of {', '.join(TYPES)}")
    return faults


def _texts(image: Mapping[str, Any]) -> list[str]:
    faults = []
    text = image.get("kickstart")
    if text in (None, ""):
        faults.append("image.kickstart is missing: the text of a kickstart")
    elif not isinstance(text, str):
        faults.append(f"image.kickstart: {shown(text)} is no text")
    elif len(text) > MAX_KICKSTART:
        faults.append(f"image.kickstart has {len(text)} characters, at most {MAX_KICKSTART}")
    elif found := _UNTEXT.search(text):
        line = text.count("\n", 0, found.start()) + 1
        faults.append(f"image.kickstart: line {line} has {found[0]!a}, which is no text")
    release, arch = image.get("release"), image.get("arch")
    is_release = isinstance(release, str) and _RELEASE.fullmatch(release)
    if release not in (None, "") and not is_release:
        faults.append(f"image.release: {shown(release)} is no release such as 12.1")
    if arch not in (None, "") and architecture(arch) is None:
        known = ", ".join(ARCHITECTURES.values())
        faults.append(f"image.arch: {shown(arch)} is none of {known}")
    return faults


def architecture(given: object) -> str | None:
    """Debian's name of an architecture, from it or from the kernel's."""
    if not isinstance(given, str):
        return None
    return given if given in ARCHITECTURES.values() else ARCHITECTURES.get(given)


def answer(workitem: object, outcome: Outcome) -> Json:
    """The workitem as it goes out: a new value, with nothing left of what we might have said
    before. An engine takes __error__ for the failure that it is."""
    image = {
        **image_of(workitem),
        "result": outcome.is_built,
        "image_url": outcome.image_url,
        "files_url": outcome.files_url,
        "logfile_url": outcome.logfile_url,
        "error": outcome.error or None,
        "msg": {"lines": list(outcome.lines), "report": outcome.report},
    }
    fields = {**fields_of(workitem), "image": image, "result": outcome.is_built}
    fields.pop(ERROR, None)
    if outcome.error:
        fields[ERROR] = outcome.error
    if isinstance(workitem, dict) and "fields" in workitem:
        return {**workitem, "fields": fields}
    return fields


def told(workitem: object) -> Json:
    """What whoever is told of a status may see of an image: never the kickstart."""
    names = ("prefix", "image_id", "name", "image_type", "release", "arch")
    results = ("result", "image_url", "files_url", "logfile_url", "error")
    image = image_of(workitem)
    found = {
        name: image[name]
        for name in (*names, *results)
        if isinstance(image.get(name), str | bool) and len(str(image[name])) <= 4096
    }
    return {**found, "prefix": found.get("prefix") or PREFIX}
