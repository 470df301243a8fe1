"""The verbs that take a kickstart, as far as they need neither network nor root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
from commands import COMMAND, ROOT, Commands

from osbuild_pika.image import kickstart, lock

pytest.importorskip("pykickstart", reason="needs pykickstart")
MODULES = (
    "jsonschema",
    "osbuild_pika.image.kickstart",
    "osbuild_pika.image.lock",
    "pykickstart.handlers.control",
    "pykickstart.parser",
)
WEB = (
    "lang C.UTF-8\npart /\nrootpw --lock\nservices --enabled=nginx\n%packages\nnginx-light\n%end\n"
)
BAD = "lang C\ntimezone Nowhere/City\nlogvol /\n"


Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(place: Path) -> dict[str, str]:
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OSBUILD_PIKA_MIRROR": "http://127.0.0.1:9/"}
    known |= {"OSBUILD_PIKA_RUNS": str(place / "runs"), "OSBUILD_PIKA_STORE": str(place / "store")}
    return known


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The command in a directory, with a mirror at which nobody answers."""
    with Commands(*MODULES) as commands:
        yield lambda place, *words: commands.run(place, *words, env=environment(place))


def write(place: Path, text: str) -> None:
    """A kickstart and its lock."""
    (place / "web.ks").write_text(text)
    asked = kickstart.convert(text, "web.ks").definition
    lock.write(images.made_lock(asked), str(place / "web.lock.json"))


def test_check_tells_what_becomes_of_each_command(run: Run, tmp_path: Path) -> None:
    write(tmp_path, WEB)
    done = run(tmp_path, "check", "web.ks")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split()[:3] for line in done.stdout.split("\n")]
    assert lines[0] == ["LINE", "COMMAND", "VERDICT"]
    assert ["web.ks:2", "part", "ignored"] in lines
    assert "4 honoured, 1 ignored; read as" in done.stdout
    assert done.stdout.endswith("\nok: web from debian/bookworm, 2 packages\n")


def test_check_tells_all_faults_each_on_a_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.ks").write_text(BAD)
    done = run(tmp_path, "check", "web.ks")
    assert (done.returncode, done.stderr) == (2, "")
    assert "\nweb.ks:2: timezone: 'Nowhere/City' is no time zone" in done.stdout
    assert "\nweb.ks:3: logvol: an image has no disks" in done.stdout


def test_check_in_json_has_the_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.ks").write_text(BAD)
    done = run(tmp_path, "check", "--format", "json", "web.ks")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], len(found["faults"])) == (2, False, 2)
    assert found["report"]["counts"] == {"honoured": 1, "ignored": 0, "warning": 0, "error": 2}
    assert found["report"]["entries"][0]["command"] == "lang"


@pytest.mark.parametrize("words", [("build",), ("plan",), ("lock",)])
def test_the_others_refuse_with_every_line(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "web.ks").write_text(BAD)
    done = run(tmp_path, *words, "web.ks")
    assert (done.returncode, done.stdout) == (2, "")
    starts = [line.split(": ")[2] for line in done.stderr.splitlines()]
    assert starts == ["web.ks:2", "web.ks:3"]


def test_a_plan_has_the_manifest(run: Run, tmp_path: Path) -> None:
    write(tmp_path, WEB)
    done = run(tmp_path, "plan", "--manifest", "web.ks")
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["pipelines"][0]["stages"]
    users = next(each["options"] for each in stages if each["type"] == "org.osbuild.users")
    assert users == {"users": {"root": {"password": "!"}}}
    assert "web.ks: 4 honoured, 1 ignored; read as" in done.stderr


def test_what_is_left_out_is_warned_of(run: Run, tmp_path: Path) -> None:
    write(tmp_path, WEB)
    (tmp_path / "web.ks").write_text(f"logvol /\n{WEB}")
    done = run(tmp_path, "plan", "web.ks", "--allow-unsupported", "logvol")
    assert done.returncode == 0, done.stderr
    assert "web.ks:1: logvol: left out, as --allow-unsupported says" in done.stderr


def test_another_suite_is_another_lock(run: Run, tmp_path: Path) -> None:
    write(tmp_path, WEB)
    done = run(tmp_path, "plan", "web.ks", "--from", "debian/trixie")
    assert done.returncode == 2
    assert "web.lock.json is not of this definition any more (from is another)" in done.stderr
    assert run(tmp_path, "check", "web.ks", "--from", "trixie").returncode == 2


def test_includes_come_from_their_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/base.ks").write_text("lang C\n")
    (tmp_path / "web.ks").write_text("%include base.ks\n")
    assert run(tmp_path, "check", "web.ks").returncode == 2
    done = run(tmp_path, "check", "web.ks", "--include-root", "parts")
    assert done.returncode == 0, done.stdout
    assert "base.ks:1  lang" in done.stdout


def test_without_pykickstart_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "web.ks").write_text(WEB)
    program = "import sys; sys.modules['pykickstart'] = None; "
    words = (sys.executable, "-c", program + COMMAND[2], "check", "web.ks")
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=tmp_path, env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "pip install 'osbuild-pika[kickstart]'" in done.stderr
