"""What setup tasks do is a run of the lifecycle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from osbuild_pika import verify
from osbuild_pika.errors import InputError
from osbuild_pika.products.record import Record
from osbuild_pika.tasks import SetupTaskMixin, SkipSetupTask, setup_task


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


def drive(obj: SetupTaskMixin) -> None:
    """Run the tasks, which never wait."""
    with pytest.raises(StopIteration):
        keep(obj).send(None)


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
