"""Tasks for Windows: the XML is read back, what schtasks is asked is recorded; none was there."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from osbuild_pika.service_managers import base, windows
from osbuild_pika.service_managers.base import CommandError, NotRegisteredError
from osbuild_pika.service_managers.programs import Done
from osbuild_pika.service_managers.windows import Settings, WindowsServiceManager

SETTINGS = Settings("pika-service-", None, None, 1)
TASK = "\\osbuild-pika\\pika-service-web"
ROW = '"HOST","{task}","N/A","{word}","Interactive only","N/A","{result}","x","sh"\r\n'
RUNNING, NEVER, ENDED = 267009, 267011, 267014


class Recorder:
    """Stands for schtasks: keeps what it is asked, and each task's last result."""

    def __init__(self, fails: str = "nothing", runs: int = RUNNING) -> None:
        self.asked: list[str] = []
        self.tasks: dict[str, int] = {}
        self.files: list[bytes] = []
        self.fails, self.runs = fails, runs

    def __call__(self, command: Sequence[str], timeout_s: float) -> Done:
        assert command[0] == "schtasks"
        if command[1:] == ("/Query", "/FO", "CSV", "/NH"):
            rows = "".join(f'"{name}","N/A","Bereit"\r\n' for name in (*self.tasks, "\\Other"))
            return Done(int(self.fails == "list"), rows, "no\n")
        verb, task = command[1], command[3]
        if verb == "/Query":
            return self._query(task)
        self.asked.append(" ".join((verb, *command[4:])).split(" /XML")[0])
        if verb == self.fails:
            return Done(5, "", "FEHLER: Zugriff verweigert\r\n")
        if verb == "/Create":
            self.files.append(Path(command[5]).read_bytes())
        changes = {"/Create": NEVER, "/Run": self.runs, "/End": ENDED}
        self.tasks[task] = changes.get(verb, 0)
        if verb == "/Delete":
            del self.tasks[task]
        return Done(0, "", "")

    def _query(self, task: str) -> Done:
        if task not in self.tasks:
            return Done(1, "", "FEHLER: nicht gefunden\r\n")
        row = ROW.format(task=task, word="Wird ausgeführt", result=self.tasks[task])
        return Done(0, row * 2, "")


def read(content: bytes) -> dict[str, str | None]:
    """The task's texts by their path, each name without the namespace."""
    found: dict[str, str | None] = {}

    def walk(element: ET.Element, path: str) -> None:
        space, name = element.tag[1:].split("}")
        assert space == windows.NAMESPACE
        if len(element) == 0:
            found[f"{path}{name}"] = element.text
        for child in element:
            walk(child, f"{path}{name}/")

    walk(ET.fromstring(content), "")  # noqa: S314 - our own, made just now
    return found


def test_a_task_is_read_back_as_it_was_meant() -> None:
    arguments = ("-c", 'say "<&>" \\', "", "two words")
    content = windows.render("web", ("sh", *arguments), True, SETTINGS)
    assert content.startswith(b"\xff\xfe<\0?\0")
    found = read(content)
    assert found.pop("Task/Actions/Exec/Command", "").endswith("/sh")  # type: ignore[union-attr]
    assert found == {
        "Task/RegistrationInfo/Description": "osbuild-pika service web",
        "Task/Triggers/LogonTrigger/Enabled": "true",
        "Task/Principals/Principal/LogonType": "InteractiveToken",
        "Task/Settings/MultipleInstancesPolicy": "IgnoreNew",
        "Task/Settings/DisallowStartIfOnBatteries": "false",
        "Task/Settings/StopIfGoingOnBatteries": "false",
        "Task/Settings/StartWhenAvailable": "true",
        "Task/Settings/ExecutionTimeLimit": "PT0S",
        "Task/Settings/RestartOnFailure/Interval": "PT1M",
        "Task/Settings/RestartOnFailure/Count": "255",
        "Task/Actions/Exec/Arguments": '-c "say \\"<&>\\" \\\\" "" "two words"',
    }


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("SYSTEM", {"UserId": "S-1-5-18"}),
        ("HOST\\web", {"UserId": "HOST\\web", "LogonType": "S4U"}),
    ],
)
def test_who_a_task_runs_as(user: str, expected: dict[str, str]) -> None:
    found = read(windows.render("web", ("sh",), False, SETTINGS._replace(user=user)))
    start = "Task/Principals/Principal/"
    seen = {key.removeprefix(start): found[key] for key in found if key.startswith(start)}
    assert seen == expected
    assert found["Task/Triggers/BootTrigger/Enabled"] == "false"
    assert "Task/Actions/Exec/Arguments" not in found


def test_what_is_asked_of_schtasks() -> None:
    asked = Recorder()
    manager = WindowsServiceManager(SETTINGS, asked)
    assert isinstance(manager, base.Registrar)
    assert manager.supports_runtime_registration()
    manager.register("web", ("true",))
    with pytest.raises(base.AlreadyRegisteredError):
        manager.register("web", ("true",))
    assert (manager.list(), read(asked.files[0])["Task/Triggers/LogonTrigger/Enabled"]) == (
        *(("web",), "true"),
    )
    assert manager.state("web") == (True, True, True, None, None, None, 0)
    manager.start("web")
    manager.restart("web")
    manager.stop("web")
    manager.stop("web")
    assert manager.state("web") == (False, False, False, None, None, None, 0)
    manager.start("web")
    manager.unregister("web")
    manager.unregister("web")
    assert (asked.asked, asked.tasks) == (
        ["/Create", "/Run", "/End", "/Run", "/End", "/Run", "/End", "/Delete /F"],
        {},
    )


def test_a_task_that_is_not_to_start_waits() -> None:
    asked = Recorder()
    manager = WindowsServiceManager(SETTINGS, asked)
    manager.register("web", ("true",), start_now=False)
    assert (asked.asked, manager.is_running("web")) == (["/Create"], False)


def test_a_task_that_ended_tells_how() -> None:
    manager = WindowsServiceManager(SETTINGS, Recorder(runs=78))
    manager.register("web", ("true",))
    assert manager.state("web") == (False, True, False, None, 78, None, 0)


@pytest.mark.parametrize(("fails", "left"), [("/Create", {}), ("/Run", {})])
def test_what_windows_refuses_is_rolled_back(fails: str, left: dict[str, int]) -> None:
    asked = Recorder(fails)
    with pytest.raises(CommandError, match=r"^web: \w+ failed with status 5: FEHLER"):
        WindowsServiceManager(SETTINGS, asked).register("web", ("true",))
    assert asked.tasks == left


def test_what_a_task_cannot_is_refused() -> None:
    manager = WindowsServiceManager(SETTINGS, Recorder())
    with pytest.raises(ValueError, match="no environment of its own"):
        manager.register("web", ("true",), env={"A": "1"})
    with pytest.raises(ValueError, match="no descriptor for readiness"):
        manager.register("web", ("true",), notify=3)
    with pytest.raises(ValueError, match="web: a task's command holds no control characters"):
        manager.register("web", ("true", "\x01"))
    with pytest.raises(NotRegisteredError):
        manager.start("web")


def test_what_schtasks_does_not_do_is_said() -> None:
    stuck = WindowsServiceManager(SETTINGS._replace(timeout_s=0), Recorder(runs=NEVER))
    with pytest.raises(CommandError, match="web: start took too long: the Task Scheduler"):
        stuck.register("web", ("true",))
    with pytest.raises(CommandError, match="all: list failed with status 1: no"):
        WindowsServiceManager(SETTINGS, Recorder("list")).list()
    other = WindowsServiceManager(SETTINGS, lambda command, timeout_s: Done(0, "a,b\n", ""))
    with pytest.raises(CommandError, match="schtasks printed another table"):
        other.state("web")
    with pytest.raises(CommandError, match="schtasks is not on PATH") as missing:
        WindowsServiceManager(SETTINGS).state("web")
    assert missing.value.exit_code == 3


def test_what_is_a_task_is_named_in_our_folder() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], timeout_s: float) -> Done:
        asked.append(command)
        return Done(1, "", "")

    with pytest.raises(NotRegisteredError):
        WindowsServiceManager(run=run).state("web")
    assert asked == [("schtasks", "/Query", "/TN", TASK, "/V", "/FO", "CSV", "/NH")]


def test_it_needs_nothing_that_windows_has_not() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'grp', 'pwd', 'resource')))\n"
        "from osbuild_pika.service_managers import base\n"
        "print(base.get_service_manager('windows').kind)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"windows\n"
