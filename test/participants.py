"""A participant whose kickstarts are definitions in YAML: everything else of it is the real one.

usage: participants.py WORDS...     as `osbuild-pika participant WORDS...`
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.image import definition
from osbuild_pika.image.values import Definition
from osbuild_pika.participant import __main__ as job
from osbuild_pika.participant import handler
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Request

ROOT = Path(__file__).parents[1]
KEYRING = "OSBUILD_PIKA_TEST_KEYRING"
TIMEOUT_S = 120
# busybox is the shell of the hook; /sbin/init is nothing that is ever started.
TEXT = """
name: any
from: debian/tiny
base: none
mirror: {url}
packages: [busybox]
files:
  - {{path: /bin/sh, link: /bin/busybox}}
  - {{path: /etc/greeting, content: "{greeting}"}}
  - {{path: /sbin/init, link: /bin/busybox}}
hooks: {{last: "{hook}"}}
compression: zstd-3
lint: {{allow: [init]}}
"""


class Report(NamedTuple):
    name: str

    def as_document(self) -> Any:
        return {"converted": self.name}


class Converted(NamedTuple):
    definition: Definition
    report: Report


def convert(request: Request, _: Site) -> Converted:
    found = definition.parse(request.kickstart.encode(), request.name)
    keyring = os.environ.get(KEYRING)
    return Converted(dataclasses.replace(found, keyring=keyring), Report(request.name))


class Desk:
    """A participant's directory, and how the workitems for it look."""

    def __init__(self, path: Path, url: str, keyring: Path) -> None:
        self.path, self.url = path, url
        self.directory = path / "spool"
        self.told = path / "told"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            KEYRING: str(keyring),
            "OSBUILD_PIKA_STORE": str(path / "store"),
            "OSBUILD_PIKA_RUNS": str(path / "runs"),
        }

    def workitem(self, image_id: str, hook: str = "true", **image: Any) -> dict[str, Any]:
        greeting = image.pop("greeting", "hi")
        text = TEXT.format(url=self.url, greeting=greeting, hook=hook)
        fields = {"kickstart": text, "image_id": image_id, "name": "little"}
        fields |= {"image_type": "incus-container", **image}
        return {"fields": {"image": fields, "other": [1]}, "wfid": "w1"}

    def drop(self, name: str, workitem: Any) -> None:
        """Put a workitem into the spool as its users do."""
        into = self.directory / "in"
        into.mkdir(parents=True, exist_ok=True)
        new = into / f".{name}"
        new.write_text(workitem if isinstance(workitem, str) else json.dumps(workitem))
        new.rename(into / f"{name}.json")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", __file__, *words]

    def spool_words(self, *more: str) -> list[str]:
        write = f"{sys.executable} {__file__} tell {self.told}"
        return self.command("spool", str(self.directory), "--notify-command", write, *more)

    def spool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Work off the spool."""
        return subprocess.run(
            self.spool_words("--once", *words),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    @contextmanager
    def participant(self) -> Iterator[subprocess.Popen[bytes]]:
        """A participant at the spool; killed at the end of the block."""
        log = open(self.path / "participant.log", "ab")  # noqa: SIM115 - closed below
        process = subprocess.Popen(self.spool_words(), env=self.environment, stderr=log)
        try:
            yield process
        finally:
            log.close()
            process.kill()
            process.wait()

    def out(self, name: str) -> dict[str, Any]:
        """The fields of an answer."""
        answer = json.loads((self.directory / "out" / f"{name}.json").read_text())
        fields: dict[str, Any] = answer["fields"]
        return fields

    def has_answer(self, name: str) -> bool:
        return (self.directory / "out" / f"{name}.json").exists()

    def place(self, image_id: str) -> Path:
        return self.directory / "files/requests" / image_id

    def says(self, image_id: str, words: str) -> bool:
        """Whether the log of a request has these words."""
        log = self.place(image_id) / f"{image_id}.log"
        return log.exists() and words in log.read_text()

    def statuses(self) -> list[tuple[str, str]]:
        """What was told: status and image_id."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        told = map(json.loads, lines)
        return [(each["status"], each["image"].get("image_id", "")) for each in told]

    @contextmanager
    def server(self) -> Iterator[str]:
        """What is published, served; its URL."""
        process = subprocess.Popen(
            self.command("serve", str(self.directory), "--listen", "127.0.0.1:0"),
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr
            yield process.stderr.readline().strip().rpartition(" at ")[2]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            process.stderr.close() if process.stderr else None


def add_busybox(pool: Path, architecture: str) -> None:
    """Put a package with a static busybox into a repository's pool."""
    with tempfile.TemporaryDirectory() as made:
        program = Path(made, "bin/busybox")
        control = Path(made, "DEBIAN/control")
        for each in (program, control):
            each.parent.mkdir(mode=0o755)
        shutil.copy(shutil.which("busybox") or "", program)
        control.write_text(
            f"Package: busybox\nVersion: 1.0\nArchitecture: {architecture}\n"
            "Maintainer: Test <test@localhost>\nDescription: test\n"
        )
        words = ["dpkg-deb", "--root-owner-group", "--build", "-Znone", made, str(pool)]
        subprocess.run(words, capture_output=True, check=True)


def main(words: list[str]) -> int:
    if words[0] == "job":
        return job.main(int(words[1]), convert)
    if words[0] == "tell":
        with open(words[1], "a", encoding="utf-8") as file:
            file.write(sys.stdin.read())
        return 0
    handler.JOB = (sys.executable, "-P", __file__, "job")
    osbuild_pika(["participant", *words])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
