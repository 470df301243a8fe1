"""What the tasks of an image depend on, and what is published of it."""

from __future__ import annotations

import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import images
import pytest

from osbuild_pika import pipeline, verify
from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, lock
from osbuild_pika.products import inputs, published
from osbuild_pika.products.image import ImagePipeline, Site
from osbuild_pika.products.inputs import Inputs
from osbuild_pika.products.published import Output, PublishError
from osbuild_pika.products.record import Record
from osbuild_pika.tasks import SetupTaskMixin, SkipSetupTask, setup_task

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
        (lambda place: (place / "web.lock.json").unlink(), {"source", "manifest", "allowed"}),
        (lambda place: os.utime(place / "a", (1, 1)), set()),
    ],
    ids=["file", "comment", "hostname", "lock", "no lock", "time"],
)
def test_what_changed_is_seen(change: object, changed: set[str], place: Path) -> None:
    define(place, TEXT + "lint: {allow: [init]}\n")
    write_lock(place)
    define(place, TEXT)
    before = look(place)._replace(allowed=())
    assert callable(change)
    change(place)
    after = look(place)._replace(allowed=())
    assert {name for name in Inputs._fields if getattr(before, name) != getattr(after, name)} == (
        changed - {"allowed"}
    )


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
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a/image.yaml")
    assert made(tmp_path, tmp_path / "link.yaml").stamp_subdir == one


def made(folder: Path, path: Path) -> ImagePipeline:
    def nothing(*_: object) -> None:
        raise AssertionError

    site = Site(str(folder / "store"), str(folder / "out"), nothing, 1, nothing, nothing)  # type: ignore[arg-type]
    return ImagePipeline(str(path), site)


def test_what_is_readonly_does_nothing_and_says_so(place: Path) -> None:
    image = made(place, place / "web.yaml")
    image.readonly = True
    before = sorted(place.rglob("*"))
    assert driven(image.run_setup_tasks()) == ()
    found = driven(image.inspect_setup_tasks())
    assert {each.should_run for each in found} == {False}
    assert found[1].reason == "readonly; otherwise: not done yet"
    assert sorted(place.rglob("*")) == before


# --- published ------------------------------------------------------------------------------------


def output(folder: Path, text: str = "image") -> Output:
    folder.mkdir(exist_ok=True)
    (folder / "web.tar.zst").write_text(text)
    return Output("incus-unified", (str(folder / "web.tar.zst"),), len(text), "f" * 64)


def test_what_is_published_is_there_with_its_digests(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    published.publish(str(tmp_path / "out"), "web", [given])
    assert published.are_there(published.place(str(tmp_path / "out"), "web", [given]))
    facts = json.loads((tmp_path / "out/web/image.json").read_text())
    (document,) = facts["outputs"]
    assert document["fingerprint"] == "f" * 64
    assert document["files"][0]["path"] == "incus-unified/web.tar.zst"
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.*"))
    assert names == ["web/image.json", "web/incus-unified/web.tar.zst"]


def test_what_is_replaced_is_whole_or_as_it_was(tmp_path: Path) -> None:
    published.publish(str(tmp_path / "out"), "web", [output(tmp_path / "built")])
    gone = Output("incus-unified", (str(tmp_path / "gone.tar.zst"),), 1, "0" * 64)
    with pytest.raises(PublishError, match="gone\\.tar\\.zst: No such file"):
        published.publish(str(tmp_path / "out"), "web", [gone])
    assert (tmp_path / "out/web/incus-unified/web.tar.zst").read_text() == "image"
    published.publish(str(tmp_path / "out"), "web", [output(tmp_path / "built", "newer")])
    assert (tmp_path / "out/web/incus-unified/web.tar.zst").read_text() == "newer"


def test_what_is_cut_off_or_gone_is_not_there(tmp_path: Path) -> None:
    given = output(tmp_path / "built")
    assert published.are_there([given])
    (tmp_path / "built/web.tar.zst").write_text("im")
    assert not published.are_there([given])
    (tmp_path / "built/web.tar.zst").unlink()
    assert not published.are_there([given])
    assert not published.are_there([])


# --- the run of the tasks -------------------------------------------------------------------------


class Two(SetupTaskMixin):
    def __init__(self, root: Path, error: BaseException | None = None) -> None:
        self.root, self.error = root, error

    @property
    def tasks_root(self) -> Path:
        return self.root

    @property
    def stamp_subdir(self) -> str:
        return "images/web"

    @setup_task("the first")
    def one(self) -> None:
        pass

    @setup_task("the second")
    def two(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    return tmp_path


async def keep(obj: SetupTaskMixin) -> None:
    with Record():
        await obj.run_setup_tasks()


def told(root: Path) -> list[str]:
    lines = (root / "runs/tasks/events.jsonl").read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


def driven(doing: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that never waits comes to."""
    with pytest.raises(StopIteration) as end:
        doing.send(None)
    return end.value.value


def drive(obj: SetupTaskMixin) -> None:
    driven(keep(obj))


def test_tasks_are_a_whole_run(root: Path) -> None:
    drive(Two(root / "tasks"))
    assert not verify.verify(root / "runs/tasks").faults
    assert told(root)[1:] == [
        "images/web: one: the first",
        "images/web: one: done",
        "images/web: two: the second",
        "images/web: two: done",
        "all tasks are done",
    ]
    result = json.loads((root / "runs/tasks/result.json").read_text())
    assert (result["status"], result["exit_code"]) == ("completed", 0)


def test_nothing_to_do_is_no_run(root: Path) -> None:
    drive(Two(root / "tasks"))
    drive(Two(root / "tasks"))
    assert os.listdir(root / "runs") == ["tasks"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a is wrong"), 2, "a is wrong"),
        (ValueError("b"), 1, "ValueError b"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (SystemExit(143), 143, "SystemExit 143"),
    ],
    ids=["expected", "a bug", "Ctrl-C", "SIGTERM"],
)
def test_what_failed_is_told(error: BaseException, code: int, message: str, root: Path) -> None:
    with pytest.raises(type(error)):
        keep(Two(root / "tasks", error)).send(None)
    assert not verify.verify(root / "runs/tasks").faults
    result = json.loads((root / "runs/tasks/result.json").read_text())
    assert (result["status"], result["exit_code"]) == ("failed", code)
    assert message in result["message"]


def test_what_is_skipped_fails_nothing(root: Path) -> None:
    drive(Two(root / "tasks", SkipSetupTask("not today")))
    assert "images/web: two: skipped, not today" in told(root)
    result = json.loads((root / "runs/tasks/result.json").read_text())
    assert result["status"] == "completed"
