"""What Incus refuses of an image, what only fails when an instance starts, and what it ignores.

Found with Incus 6.0.4, which checks little when it imports: a template is first looked at when an
instance starts, and the cause of its failure stands in the daemon's log alone.
"""

from __future__ import annotations

import re

from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint.finding import error, warning
from osbuild_pika.inside.lint.pongo import PongoError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from osbuild_pika.inside.lint.finding import Finding

_KEYS = {"architecture", "creation_date", "expiry_date", "properties", "templates"}
_TEMPLATE_KEYS = {"when", "create_only", "template", "properties", "uid", "gid", "mode"}
_MODE, _ID = re.compile("[0-7]{1,5}"), re.compile("[0-9]{1,9}")
_I64 = 1 << 63
IGNORED = "Incus ignores this key; remove it"
MAX_SHOWN = 200  # characters


def lint_metadata(
    found: Any, templates: Mapping[str, bytes | str], now_s: float, host: str | None
) -> Iterator[Finding]:
    """What is wrong with metadata.

    found: metadata.yaml as its parser gave it. templates: the files of templates/ by name; a text
    says why one cannot be taken. now_s: Unix seconds. host: the architecture of the host that
    shall run it, in any of its names; None: any.
    """
    if not isinstance(found, dict):
        what = "is empty" if found is None else "is no map of keys and values"
        yield error("metadata", form.FILE, f"{what}: it needs architecture and creation_date")
        return
    yield from _architecture(found.get("architecture"), host)
    yield from _dates(found, now_s)
    yield from _strings(found.get("properties"), "properties", "property")
    for key in sorted({_shown(key, "") for key in found} - _KEYS):
        yield warning("unknown-key", form.FILE, IGNORED, key)
    given = found.get("templates")
    if given is not None and not isinstance(given, dict):
        yield error("templates", form.FILE, "is no map of path: template", "templates")
        return
    for path, each in (given or {}).items():
        yield from _template(_shown(path, ""), each, templates)


def _shown(value: Any, quote: str = "'") -> str:
    """A foreign value as text. What contains others is not shown: YAML makes it as large as it
    likes, by naming one thing a million times."""
    if isinstance(value, str):
        return f"{quote}{value[:MAX_SHOWN]}{quote}"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a map"
    try:
        return str(value)[:MAX_SHOWN]
    except ValueError:  # an integer of too many digits
        return "a number"


def _architecture(found: Any, host: str | None) -> Iterator[Finding]:
    key = "architecture"
    if found is None or found == "":
        yield error("architecture", form.FILE, "is missing; write one such as x86_64", key)
        return
    name = form.architecture(_shown(found, ""))
    if not isinstance(found, str) or name is None:
        known = ", ".join(form.ARCHITECTURES)
        yield error(
            "architecture", form.FILE, f"{_shown(found)} is unknown; known are {known}", key
        )
        return
    machine = form.architecture(host) if host else None
    if machine and not form.runs_on(name, machine):
        text = f"{name} does not run on this host, which is {machine}; a start of it fails"
        yield warning("foreign-architecture", form.FILE, text, key)


def _dates(found: dict[Any, Any], now_s: float) -> Iterator[Finding]:
    for key, is_needed in (("creation_date", True), ("expiry_date", False)):
        value = found.get(key)
        if value is None or value == 0:
            if is_needed:
                what = "is missing" if value is None else "is 0"
                yield error(key.replace("_", "-"), form.FILE, f"{what}; write Unix seconds", key)
            continue
        code = key.replace("_", "-")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield error(code, form.FILE, f"{_shown(value)} is no number; write Unix seconds", key)
        elif value != value or abs(value) >= _I64 or value != int(value):
            yield error(code, form.FILE, f"{_shown(value)} is no whole number of seconds", key)
        elif isinstance(value, float):
            yield warning(
                code, form.FILE, f"{_shown(value)} has a fraction; write {int(value)}", key
            )
        elif value < 0:
            yield warning(
                code, form.FILE, f"{_shown(value)} is before 1970; write Unix seconds", key
            )
        elif not is_needed and value < now_s:
            text = f"{_shown(value)} has passed; Incus takes the image all the same"
            yield warning("expired", form.FILE, text, key)


def _strings(found: Any, key: str, code: str) -> Iterator[Finding]:
    """A map of texts. What is a number or a truth value Incus takes as the text it was."""
    if found is None:
        return
    if not isinstance(found, dict):
        yield error(code, form.FILE, "is no map of name: text", key)
        return
    for name, value in found.items():
        place = f"{key}.{_shown(name, '')}"
        if isinstance(value, (dict, list)):
            what = "a map" if isinstance(value, dict) else "a list"
            yield error(code, form.FILE, f"is {what}; only a text is taken", place)
        elif not isinstance(value, str):
            yield warning(code, form.FILE, f"{_shown(value)} is no text; put it in quotes", place)


def _template(path: str, found: Any, files: Mapping[str, bytes | str]) -> Iterator[Finding]:
    key = f"templates.{path}"
    if not isinstance(found, dict):
        yield error("template", form.FILE, "is no map; it needs when and template", key)
        return
    if not path.startswith("/") or ".." in path.split("/"):
        text = "the path leaves the instance; write an absolute one without '..'"
        yield error("template-path", form.FILE, text, key)
    yield from _when(found.get("when"), f"{key}.when")
    yield from _strings(found.get("properties"), f"{key}.properties", "property")
    for name, pattern in (("mode", _MODE), ("uid", _ID), ("gid", _ID)):
        value = found.get(name)
        if value in (None, ""):
            continue
        if isinstance(value, (dict, list, bool)) or not pattern.fullmatch(_shown(value, "")):
            example = "0644" if name == "mode" else "0"
            words = f"{_shown(value)} is no {name}; write '{example}'"
            yield error(f"template-{name}", form.FILE, words, f"{key}.{name}")
        elif name == "mode" and not isinstance(value, str):
            words = f"{_shown(value)} is a number, which may be decimal; put it in quotes"
            yield warning("template-mode", form.FILE, words, f"{key}.{name}")
    if not isinstance(found.get("create_only", False), bool):
        yield error("template", form.FILE, "is neither true nor false", f"{key}.create_only")
    for name in sorted({_shown(key, "") for key in found} - _TEMPLATE_KEYS):
        yield warning(
            "unknown-key", form.FILE, "Incus ignores this key; remove it", f"{key}.{name}"
        )
    yield from _file(found.get("template"), f"{key}.template", files)


def _when(found: Any, key: str) -> Iterator[Finding]:
    known = ", ".join(form.WHEN)
    if found is not None and not isinstance(found, list):
        yield error("template-when", form.FILE, f"is no list; write [create, copy] ({known})", key)
        return
    for each in found or ():
        if each not in form.WHEN:
            text = f"{_shown(each)} is never a reason to render it; known are {known}"
            yield error("template-when", form.FILE, text, key)
    if not found:
        yield warning(
            "template-when", form.FILE, f"is empty, so it is never rendered ({known})", key
        )


def _file(name: Any, key: str, files: Mapping[str, bytes | str]) -> Iterator[Finding]:
    if not isinstance(name, str) or not name:
        yield error("template-file", form.FILE, "names no file in templates/", key)
        return
    if name.startswith("/") or ".." in name.split("/"):
        text = f"'{name}' leaves templates/; write a name in it"
        yield error("template-file", form.FILE, text, key)
        return
    place = f"{form.TEMPLATES}/{name}"
    if name not in files:
        yield error("template-missing", form.FILE, f"{place} is not in the image", key)
        return
    content = files[name]
    if isinstance(content, str):
        yield error("template-file", place, content)
        return
    try:
        unknown = parse(content.decode("utf-8", "replace"))
    except PongoError as problem:
        yield error("template-syntax", place, f"line {problem.line}: {problem}")
        return
    for each in unknown:
        yield warning(
            "template-variable", place, f"'{each}' is nothing that Incus gives a template"
        )
