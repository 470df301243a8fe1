"""`osbuild-pika tasks`: a base and two images made from it, built and booted in a real Incus."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workshop

from osbuild_pika import verify
from osbuild_pika.incus import images
from osbuild_pika.incus.client import Client

BASE = "name: base\nfrom: debian/bookworm\n{}\ncompression: zstd-3\n"
CHILD = """\
name: {name}
from: base.yaml
files: [{{path: /etc/{name}, content: "{name}"}}]
hooks: {{post-files: "echo {hook} > /etc/hook"}}
compression: zstd-3
"""
MADE = ["resolve", "build"]
BROUGHT = ["lint", "publish", "import_image", "smoke"]


class Place:
    """Definitions, with a store, runs and stamps of their own. path: of the first."""

    def __init__(self, shop: workshop.Workshop, path: Path, socket: str) -> None:
        self.path = path
        places = {"OSBUILD_PIKA_TASKS": str(path / "tasks"), "INCUS_SOCKET": socket}
        runs = {"OSBUILD_PIKA_RUNS": str(path / "runs")}
        self._shop = workshop.Workshop(path, {**shop.store, **runs, **places})
        self.base("")
        self.child("one", "1")
        self.child("two", "1")

    def base(self, text: str) -> None:
        (self.path / "base.yaml").write_text(BASE.format(text))

    def child(self, name: str, hook: str) -> None:
        (self.path / f"{name}.yaml").write_text(CHILD.format(name=name, hook=hook))

    def call(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self._shop.call("tasks", verb, "one.yaml", "two.yaml", *words)

    def predicted(self, *words: str) -> list[tuple[str, str]]:
        done = self.call("inspect", "--format", "json", *words)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return [(each["image"], each["name"]) for each in rows if each["should_run"]]

    def ran(self, *words: str) -> list[tuple[str, str]]:
        """What a run did, by its records; it was predicted exactly."""
        before = set(self.records())
        predicted = self.predicted(*words)
        done = self.call("run", "--progress", "plain", *words)
        assert done.returncode == 0, done.stderr[-4000:]
        found = [step for run in self.records() if run not in before for step in steps(run)]
        assert found == predicted
        return found

    def records(self) -> list[Path]:
        return sorted((self.path / "runs").glob("tasks*"))


def steps(run: Path) -> list[tuple[str, str]]:
    """The tasks that ran to their end, of a whole run."""
    assert not verify.verify(run).faults
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    details = [each["details"] for each in events if each.get("details")]
    ended = [each for each in details if each.get("event") == "task.ran"]
    return [
        (each["subject"].removeprefix("images/").rpartition("-")[0], each["task"])
        for each in ended
        if each["task"] in MADE + BROUGHT
    ]


def of(name: str, tasks: list[str]) -> list[tuple[str, str]]:
    return [(name, task) for task in tasks]


@pytest.fixture
def place(shop: workshop.Workshop, client: Client, tmp_path: Path) -> Iterator[Place]:
    yield Place(shop, tmp_path, client.path)
    assert client.get("/1.0/instances") == [], "guests that were booted are gone"


def test_what_changed_is_done_again_in_order_and_nothing_else(place: Place, client: Client) -> None:
    both = [*of("one", MADE + BROUGHT), *of("two", MADE + BROUGHT)]
    assert place.ran() == [*of("base", MADE), *both]
    first = images.find_alias(client, "one"), images.find_alias(client, "two")
    assert None not in first
    assert images.find_alias(client, "base") is None
    assert len(list((place.path / "runs").glob("*/boots/*/boot.json"))) == 2

    assert place.ran() == []
    assert "nothing to do" in place.call("run").stderr

    place.child("two", "2")
    assert place.ran() == of("two", MADE + BROUGHT)
    assert images.find_alias(client, "one") == first[0]
    assert images.find_alias(client, "two") not in (None, first[1])

    place.base('hooks: {post-packages: "echo base > /etc/base"}')
    assert place.ran() == [*of("base", MADE), *both]

    client.call("DELETE", "/1.0/images/aliases/one")
    assert place.ran() == of("one", ["import_image", "smoke"])
    assert place.ran() == []


def test_a_dry_run_and_a_look_change_nothing(place: Place) -> None:
    before = sorted(place.path.rglob("*"))
    done = place.call("run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was run, 14 tasks would be" in done.stderr
    assert len(place.predicted()) == 14
    assert sorted(place.path.rglob("*")) == before


def test_a_guest_that_is_never_ready_fails_its_smoke_test(place: Place, client: Client) -> None:

    text = (place.path / "one.yaml").read_text()
    never = 'ready: {http: "http://127.0.0.1:1/", within: 2s}\n'
    (place.path / "one.yaml").write_text(text + never)
    done = place.call("run", "--progress", "plain")
    assert done.returncode == 5, done.stderr[-4000:]
    assert "one: its guest is not ready: failed" in done.stderr
    assert images.find_alias(client, "one") is not None
    (run,) = place.records()
    assert json.loads((run / "result.json").read_text())["exit_code"] == 5
    assert place.predicted()[0] == ("one", "smoke")
