"""The verbs for image definitions, as far as they need neither network nor root."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import images
import pytest
from commands import ROOT, Commands
from jsonschema import Draft202012Validator

from osbuild_pika.datadir import data_folder
from osbuild_pika.image import definition, lock

NOWHERE = "http://127.0.0.1:9/"


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The command in a directory, with a mirror at which nobody answers."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OSBUILD_PIKA_MIRROR": NOWHERE}

    def in_place(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"OSBUILD_PIKA_RUNS": str(place / "runs"), "OSBUILD_PIKA_STORE": f"{place}/store"}
        return commands.run(place, *words, env={**known, **own, **environment})

    with Commands("jsonschema", "osbuild_pika.image.lock", "yaml") as commands:
        yield in_place


def write(place: Path, text: str = "", is_locked: bool = True) -> None:
    (place / "image.yaml").write_text(f"{images.HEAD}{text}")
    if is_locked:
        lock.write(images.made_lock(images.define(text)), str(place / "image.lock.json"))


def test_init_writes_a_definition_that_is_right(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "init", "web", "--suite", "debian/trixie")
    assert (done.returncode, done.stdout) == (0, "")
    assert len((tmp_path / "image.yaml").read_text().split("\n")) <= 15
    found = definition.load(str(tmp_path / "image.yaml"))
    assert (found.name, found.distribution, found.suite) == ("web", "debian", "trixie")
    checked = run(tmp_path, "check", "image.yaml")
    assert checked.stdout == "ok: web from debian/trixie, not locked yet\n"


def test_its_first_line_leads_editors_to_the_schema(run: Run, tmp_path: Path) -> None:
    run(tmp_path, "init")
    first = (tmp_path / "image.yaml").read_text().split("\n")[0]
    path = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(Path(path).read_text())["title"] == "an image definition"


def test_init_is_named_after_the_directory(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "My Web_Server"
    place.mkdir()
    assert run(place, "init").returncode == 0
    assert definition.load(str(place / "image.yaml")).name == "my-web-server"


def test_init_replaces_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_text("mine")
    done = run(tmp_path, "init", "web")
    assert done.returncode == 2
    assert "image.yaml is there already" in done.stderr
    assert (tmp_path / "image.yaml").read_text() == "mine"


@pytest.mark.parametrize("words", [("Web",), ("web", "--suite", "bookworm"), ("a\nb",)])
def test_init_refuses_what_is_no_name_or_suite(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = run(tmp_path, "init", *words)
    assert (done.returncode, len(done.stderr.split("\n"))) == (2, 2)
    assert not (tmp_path / "image.yaml").exists()


def test_check_tells_all_faults_each_on_a_line(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "packges: [a]\nbase: no\n", is_locked=False)
    done = run(tmp_path, "check", "image.yaml")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == (
        "image.yaml:3:1: unknown key 'packges', did you mean 'packages'?\n"
        "image.yaml:4:7: 'no' is none of: minbase, none, did you mean 'none'?\n"
    )


def write_for(place: Path, text: str) -> None:
    """A definition without a fault but the lock of another."""
    write(place)
    write(place, text, is_locked=False)


def test_check_says_what_the_lock_does_not_have(run: Run, tmp_path: Path) -> None:
    write(tmp_path)
    assert (
        run(tmp_path, "check", "image.yaml").stdout == "ok: web from debian/bookworm, 2 packages\n"
    )
    write_for(tmp_path, "packages: [zsh]")
    done = run(tmp_path, "check", "image.yaml")
    assert done.returncode == 2
    assert "image.lock.json is not of this definition any more (it is without zsh)" in done.stdout


def test_build_and_plan_tell_all_faults_too(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "a: 1\nb: 2\n", is_locked=False)
    for verb in ("build", "plan", "lock"):
        done = run(tmp_path, verb)
        lines = done.stderr.split("\n")
        assert (done.returncode, len(lines)) == (2, 3), done.stderr
        assert lines[0].startswith("osbuild-pika: error: image.yaml:3:1: unknown key 'a'")


@pytest.mark.parametrize("verb", ["build", "plan"])
def test_packages_that_do_not_match_the_lock_end_both(run: Run, tmp_path: Path, verb: str) -> None:
    write_for(tmp_path, "packages: [zsh]")
    done = run(tmp_path, verb)
    assert done.returncode == 2
    assert "(it is without zsh): osbuild-pika lock\n" in done.stderr


@pytest.mark.parametrize("words", [("plan",), ("build", "--locked")])
def test_without_a_lock_some_refuse_and_ask_nobody(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    write(tmp_path, is_locked=False)
    done = run(tmp_path, *words, PATH="/nonexistent")
    text = "there is no image.lock.json: make it with osbuild-pika lock"
    assert (done.returncode, done.stderr) == (2, f"osbuild-pika: error: {text}\n")


def test_a_lock_that_answers_stays_without_a_look_at_any_mirror(run: Run, tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "image.lock.json").stat()
    done = run(tmp_path, "lock", PATH="/nonexistent")
    assert (done.returncode, done.stdout) == (0, "")
    assert "osbuild-pika lock --update" in done.stderr
    assert (tmp_path / "image.lock.json").stat().st_mtime_ns == before.st_mtime_ns


def test_without_apt_the_way_out_is_named(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "keyring: own.gpg", is_locked=False)
    (tmp_path / "own.gpg").write_bytes(b"key")
    done = run(tmp_path, "lock", PATH="/nonexistent")
    assert done.returncode == 3
    assert "apt-get is not on this machine: make the lock where it is" in done.stderr


def test_without_a_definition_here_its_writer_is_named(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "build")
    assert done.returncode == 2
    assert "there is no image.yaml here: `osbuild-pika init` writes one" in done.stderr


@pytest.mark.parametrize("kind", ["image", "lock"])
def test_a_schema_is_one(kind: str) -> None:
    schema: Any = json.loads((data_folder("schemas") / f"{kind}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
