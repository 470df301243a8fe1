"""Kickstarts of many styles: each is converted or refused with a complete report, as the docs say.

The tables of docs/reference/kickstart.md are made by `rows` and `command_rows`:
    PYTHONPATH=.:test python test/mod/test_kickstart_corpus.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import images
import pytest

from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard
from osbuild_pika.image import kickstart, manifest
from osbuild_pika.image.kickstart_report import KickstartError, Report
from osbuild_pika.image.kickstart_rules import HONOURED, IGNORED, REFUSED
from osbuild_pika.image.local import Local
from osbuild_pika.image.values import Definition

pykickstart = pytest.importorskip("pykickstart", reason="needs pykickstart")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/reference/kickstart.md"
CORPUS = sorted((ROOT / "test/data/kickstart").glob("*.ks"))


@cache
def read(path: Path) -> tuple[Report, Definition | None]:
    """What became of a kickstart, and its definition if it was converted."""
    try:
        found = kickstart.load(str(path))
    except KickstartError as error:
        return error.report, None
    return found.report, found.definition


def rows() -> Iterator[str]:
    """The table of counts."""
    yield "| kickstart | | read as | honoured | ignored | errors |"
    yield "| --- | --- | --- | --- | --- | --- |"
    converted = 0
    for path in CORPUS:
        found, definition = read(path)
        converted += bool(definition)
        counts = found.counts
        numbers = " | ".join(str(counts[each]) for each in ("honoured", "ignored", "error"))
        state = "converted" if definition else "refused"
        version = "newest" if found.version == kickstart.newest() else found.version
        yield f"| {path.name} | {state} | {version} | {numbers} |"
    yield f"| {len(CORPUS)} | {converted} converted | | | | |"


def command_rows() -> Iterator[str]:
    """The table of commands."""
    yield "| command | becomes |"
    yield "| --- | --- |"
    for name, what in HONOURED.items():
        yield f"| `{name}` | {what} |"
    for table, verdict in ((IGNORED, "ignored"), (REFUSED, "an error")):
        reasons = dict.fromkeys(table.values())
        for why in reasons:
            names = ", ".join(f"`{name}`" for name, each in table.items() if each == why)
            yield f"| {names} | {verdict}: {why} |"


def test_there_are_many() -> None:
    assert len(CORPUS) >= 25


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_command_has_its_entry(path: Path) -> None:
    found, definition = read(path)
    assert (definition is None) == bool(found.counts["error"])
    text = path.read_text().split("\n")
    for each in found.entries:
        word = each.command.split()[0].removesuffix("groups")
        line = text[each.line - 1]
        assert word in line or each.note.startswith(repr(line)), each
    assert all(each.note for each in found.entries if each.verdict != "honoured")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_report_is_the_same_each_time_and_is_json(path: Path) -> None:
    again = read.__wrapped__(path)[0]
    assert json.dumps(again.as_document()) == json.dumps(read(path)[0].as_document())


def pipelines(asked: Definition) -> list[str]:
    """The names of what would be built."""
    given = Local({}, {each.name: "$6$a" for each in asked.users if each.password is not None})
    made = manifest.make([manifest.Level(asked, images.made_lock(asked), given)])
    return [each.name for each in load(json.dumps(made).encode(), standard(())).pipelines]


def test_what_is_converted_is_a_manifest_that_the_modules_take() -> None:
    converted = {path: converted for path in CORPUS if (converted := read(path)[1])}
    assert len(converted) >= 10
    wrong = {path: pipelines(asked) for path, asked in converted.items()}
    assert wrong == {
        path: ["rootfs", "metadata", *asked.outputs] for path, asked in converted.items()
    }


def test_the_counts_stand_in_the_docs() -> None:
    assert "\n".join(rows()) in DOCS.read_text()


def test_the_commands_stand_in_the_docs() -> None:
    assert "\n".join(command_rows()) in DOCS.read_text()


def test_each_command_that_any_version_knows_has_a_verdict() -> None:
    from pykickstart.handlers.control import commandMap
    from pykickstart.version import versionMap

    known = {name for each in versionMap.values() for name in commandMap[each]}
    assert sorted(known - {*HONOURED, *IGNORED, *REFUSED, "method"}) == []


if __name__ == "__main__":
    text = DOCS.read_text()
    for heading, made in (("## Commands", command_rows), ("## Kickstarts", rows)):
        before, _, rest = text.partition(f"{heading}\n")
        intro, _, table = rest.partition("\n| ")
        _, separator, after = table.partition("|\n\n")
        text = f"{before}{heading}\n{intro}\n" + "\n".join(made()) + f"\n{separator[2:]}{after}"
    DOCS.write_text(text)
