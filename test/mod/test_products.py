"""What the tasks of an image depend on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import images
import pytest
from click.testing import CliRunner

from osbuild_pika import pipeline
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, lock
from osbuild_pika.products import inputs
from osbuild_pika.products.image import ImagePipeline, Site
from osbuild_pika.products.inputs import Inputs

SEEN = {"source", "manifest"}
ROOT = Path(__file__).parents[2]
TEXT = "name: web\nfrom: debian/bookworm\nfiles: [{path: /etc/a, source: a}]\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A definition with a file and a lock."""
    (tmp_path / "state").mkdir()
    (tmp_path / "a").write_text("a")
    define(tmp_path, TEXT)
    write_lock(tmp_path)
    return tmp_path


def define(place: Path, text: str) -> None:
    (place / "web.yaml").write_text(text)


def write_lock(place: Path, version: str = "1") -> None:
    found = definition.load(str(place / "web.yaml"))
    made = images.made_lock(found, images.package("base-files", True, version))
    lock.write(made, pipeline.lock_path(str(place / "web.yaml")))


def look(place: Path) -> Inputs:
    return inputs.of(str(place / "web.yaml"), place / "state/inputs.json")


def test_what_is_kept_is_what_is_found(place: Path) -> None:
    found = look(place)
    assert (found.name, found.parent, found.outputs) == ("web", None, ("incus-unified",))
    assert (place / "state/inputs.json").exists()
    assert look(place) == found


def test_nothing_is_kept_where_no_task_has_run(place: Path) -> None:
    (place / "state").rmdir()
    assert look(place).name == "web"
    assert not (place / "state").exists()


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda place: (place / "a").write_text("b"), {"manifest"}),
        (lambda place: define(place, TEXT + "# note\n"), {"source"}),
        (lambda place: define(place, TEXT + "hostname: web\n"), {"source", "manifest"}),
        (lambda place: write_lock(place, "2"), {"source", "manifest"}),
        (lambda place: (place / "web.lock.json").unlink(), SEEN),
        (lambda place: os.utime(place / "a", (1, 1)), set()),
        (lambda place: define(place, TEXT + "lint: {allow: [hosts]}\n"), {*SEEN, "allowed"}),
    ],
    ids=["file", "comment", "hostname", "lock", "no lock", "time", "allowed"],
)
def test_what_changed_is_seen(change: object, changed: set[str], place: Path) -> None:
    before = look(place)
    assert callable(change)
    change(place)
    after = look(place)
    assert {
        name for name in Inputs._fields if getattr(before, name) != getattr(after, name)
    } == changed


@pytest.fixture(autouse=True)
def fixture_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is one of a new process."""

    class Forgetful(dict[Path, dict[str, object]]):
        def __setitem__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(inputs, "_found", Forgetful())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 1, "files": [], "inputs": {}}'])
def test_what_is_damaged_is_found_anew(text: str, place: Path) -> None:
    found = look(place)
    (place / "state/inputs.json").write_text(text)
    assert look(place) == found


def test_a_definition_that_became_wrong_is_told(place: Path) -> None:
    look(place)
    define(place, "name: web\n")
    with pytest.raises(InputError, match="the key 'from' is missing"):
        look(place)


def test_images_of_one_file_name_have_stamps_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.yaml").touch()
    one, two = (made(tmp_path, tmp_path / name / "image.yaml").stamp_subdir for name in "ab")
    assert one != two
    assert one.startswith("images/a-")
    (tmp_path / "b/link.yaml").symlink_to(tmp_path / "a/image.yaml")
    assert made(tmp_path, tmp_path / "b/link.yaml").stamp_subdir not in (one, two)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert made(tmp_path, tmp_path / "c/image.yaml").stamp_subdir == one


def made(folder: Path, path: Path) -> ImagePipeline:
    def nothing(*_: object) -> None:
        raise AssertionError

    site = Site(str(folder / "store"), str(folder / "out"), nothing, 1, nothing, nothing)  # type: ignore[arg-type]
    return ImagePipeline(str(path), site)


def test_what_an_image_is_made_from_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    (tmp_path / "real/base.yaml").write_text("name: base\nfrom: debian/bookworm\n")
    (tmp_path / "real/sub/web.yaml").write_text("name: web\nfrom: ../base.yaml\n")
    monkeypatch.setenv("OSBUILD_PIKA_TASKS", str(tmp_path / "tasks"))
    monkeypatch.chdir(tmp_path)
    web = made(tmp_path, Path("link/web.yaml"))
    web.state_path.mkdir(parents=True)
    first = web.inputs
    monkeypatch.chdir("/")
    assert first.parent is not None
    assert os.path.samefile(first.parent, tmp_path / "real/base.yaml")
    (tmp_path / "real/base.yaml").write_text("name: base\nfrom: debian/trixie\n")
    assert web.inputs.source != first.source


def test_a_damaged_lock_is_not_thrown_away(place: Path) -> None:
    text = "<<<<<<< HEAD\n"
    (place / "web.lock.json").write_text(text)
    with pytest.raises(InputError, match="is no JSON"):
        made(place, place / "web.yaml").resolve.task.func(made(place, place / "web.yaml"))
    assert (place / "web.lock.json").read_text() == text


@pytest.mark.parametrize("text", ["[" * 100_000, '{"key": "a", "files": ["a\\u0000"]}'])
def test_what_is_hostile_in_the_state_is_found_anew(text: str, place: Path) -> None:
    found = look(place)
    (place / "state/inputs.json").write_text(text)
    assert look(place) == found


def test_a_file_without_an_end_is_not_read(place: Path) -> None:
    (place / "a").unlink()
    (place / "a").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"not a regular file|leads out"):
        look(place)


def test_many_may_look_at_once(place: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: look(place), range(40)))
    assert len(set(found)) == 1
    assert os.listdir(place / "state") == ["inputs.json"]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", "smoke"),
        ("outputs: [squashfs]\n", "publish"),
        ("init: none\n", "import_image"),
        ("lifecycle: false\n", "smoke"),
    ],
)
def test_an_image_has_no_tasks_that_it_can_never_do(text: str, last: str, place: Path) -> None:
    define(place, TEXT + text)
    assert made(place, place / "web.yaml").last_task == last


def test_the_command_line_shows_what_would_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_TASKS", str(place / "tasks"))
    words = ["--through", "publish", f"{place}/web.yaml"]
    done = CliRunner().invoke(osbuild_pika, ["tasks", "inspect", "--format", "json", *words])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(each["name"], each["should_run"], each["reason"]) for each in rows] == [
        (name, True, "not done yet") for name in ("resolve", "build", "lint", "publish")
    ]
    dry = CliRunner().invoke(osbuild_pika, ["tasks", "run", "--dry-run", *words])
    assert dry.exit_code == 0
    assert "dry run: nothing was run, 4 tasks would be" in dry.stderr
    assert not (place / "tasks").exists()


def test_a_wait_for_another_process_is_told_and_ends_quietly_when_interrupted(place: Path) -> None:
    """It holds the lock that the command line waits for."""
    environment = {
        **os.environ,
        "OSBUILD_PIKA_TASKS": str(place / "tasks"),
        "PYTHONPATH": str(ROOT),
    }
    stamps = place / "tasks/stamps" / made(place, place / "web.yaml").stamp_subdir
    stamps.mkdir(parents=True)
    command = [sys.executable, "-c", "from osbuild_pika.cli import main; main()", "tasks", "run"]
    command += ["--through", "resolve", f"{place}/web.yaml"]
    with open(stamps / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert next(line for line in lines if "waiting for another process" in line)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_two_images_of_one_name_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_TASKS", str(place / "tasks"))
    (place / "b").mkdir()
    (place / "b/a").write_text("a")
    (place / "b/web.yaml").write_text(TEXT)
    words = ["tasks", "inspect", "--through", "publish", f"{place}/web.yaml", f"{place}/b/web.yaml"]
    done = CliRunner().invoke(osbuild_pika, words)
    assert done.exit_code == 2
    assert done.stderr.endswith("are both named web: give one another name\n")


def driven(doing: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that never waits comes to."""
    with pytest.raises(StopIteration) as end:
        doing.send(None)
    return end.value.value


def test_what_is_readonly_does_nothing_and_says_so(place: Path) -> None:
    image = made(place, place / "web.yaml")
    image.readonly = True
    before = sorted(place.rglob("*"))
    assert driven(image.run_setup_tasks()) == ()
    found = driven(image.inspect_setup_tasks())
    assert {each.should_run for each in found} == {False}
    assert found[1].reason == "readonly; otherwise: not done yet"
    assert sorted(place.rglob("*")) == before
