"""Units for systemd: its own program reads them; what systemctl is asked is recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from osbuild_pika.inside.services.systemd import quote, unit_text
from osbuild_pika.service_managers import base, systemd
from osbuild_pika.service_managers.base import CommandError, NotRegisteredError
from osbuild_pika.service_managers.programs import Done
from osbuild_pika.service_managers.systemd import Settings, SystemdServiceManager

SETTINGS = Settings(False, None, "pika-", None, None, 60, 10)
FOREIGN = ("sh", "-c", "echo \"%n $HOME \\ ${A}\" ';' `id`\n\t\x01", ";", "$$", "", "\u00e4")
SHOWN = "LoadState=loaded\nActiveState=active\nMainPID=42\nExecMainCode=0\nExecMainStatus=0\n"


class Recorder:
    """Stands for systemctl: keeps what it is asked, fails at what `fails` begins with."""

    def __init__(self, shown: str = SHOWN, fails: str = "nothing") -> None:
        self.asked: list[str] = []
        self.shown, self.fails = shown, fails

    def __call__(self, command: Sequence[str], timeout_s: float) -> Done:
        assert command[:3] == ("systemctl", "--system", "--no-ask-password")
        asked = " ".join(command[3:])
        self.asked.append(asked)
        is_refused = asked.startswith(self.fails)
        return Done(int(is_refused), self.shown, "no\n" if is_refused else "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="install Debian's systemd")
@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS._replace(is_user=True)])
@pytest.mark.parametrize("more", [{}, {"log": "/var/log/100% of it", "is_notify": True}])
def test_systemd_takes_a_unit_as_it_is(
    settings: Settings, more: dict[str, object], tmp_path: Path
) -> None:
    unit_found = systemd.unit_of("web", FOREIGN, {"A": "%h\n'\"\\ $X", "B": ""}, settings)
    text = unit_text(unit_found._replace(**more))
    unit = tmp_path / "pika-web.service"
    unit.write_text(text)
    mode = "--user" if settings.is_user else "--system"
    verify = ("systemd-analyze", mode, "--man=no", "--recursive-errors=no", "verify", unit)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verify, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_word_is_quoted_as_systemd_reads_it() -> None:
    assert quote('a"b\\c%d\n\x01;') == '"a\\"b\\\\c%%d\\n\\x01;"'
    assert '"$$HOME"' in unit_text(systemd.unit_of("web", ("sh", "$HOME"), {}, SETTINGS))
    assert "User=web\n" in unit_text(
        systemd.unit_of("web", ("sh",), {}, SETTINGS._replace(user="web"))
    )
    with pytest.raises(ValueError, match="web: only root can run a service as another user"):
        systemd.unit_of("web", ("sh",), {}, SETTINGS._replace(user="web", is_user=True))
    with pytest.raises(ValueError, match="no such program"):
        unit_text(systemd.unit_of("web", ("no-such-program",), {}, SETTINGS))


def test_what_is_asked_of_systemctl(tmp_path: Path) -> None:
    asked = Recorder()
    manager = SystemdServiceManager(SETTINGS._replace(directory=str(tmp_path)), asked)
    assert isinstance(manager, base.Registrar)
    manager.register("web", ("true",))
    with pytest.raises(base.AlreadyRegisteredError):
        manager.register("web", ("true",))
    assert manager.list() == ("web",)
    assert (tmp_path / "pika-web.service").stat().st_mode & 0o777 == 0o600
    manager.restart("web")
    assert manager.state("web") == (True, True, True, 42, None, None, 0)
    manager.unregister("web")
    manager.unregister("web")
    assert list(tmp_path.iterdir()) == []
    unit = "pika-web.service"
    assert [each for each in asked.asked if not each.startswith("show")] == [
        *("daemon-reload", f"enable {unit}", f"start {unit}", f"restart {unit}", f"stop {unit}"),
        *(f"stop {unit}", f"disable {unit}", "daemon-reload", f"reset-failed {unit}"),
    ]


@pytest.mark.parametrize("fails", ["enable", "start"])
def test_what_systemd_refuses_is_rolled_back(fails: str, tmp_path: Path) -> None:
    settings = SETTINGS._replace(directory=str(tmp_path))
    with pytest.raises(CommandError, match="failed with status 1: no"):
        SystemdServiceManager(settings, Recorder(fails=fails)).register("web", ("true",))
    assert list(tmp_path.iterdir()) == []


def test_without_a_directory_nothing_is_registered() -> None:
    manager = SystemdServiceManager(SETTINGS, Recorder())
    assert (manager.supports_runtime_registration(), manager.list()) == (False, ())
    with pytest.raises(NotImplementedError, match="name a directory of unit files"):
        manager.register("web", ("true",))
    with pytest.raises(NotImplementedError, match="name a directory of unit files"):
        manager.unregister("web")


def test_a_unit_that_is_not_there_is_not_registered() -> None:
    manager = SystemdServiceManager(SETTINGS, Recorder("LoadState=not-found\n"))
    with pytest.raises(NotRegisteredError):
        manager.start("web")


def test_who_comes_second_with_a_transient_unit_leaves_it_alone() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], timeout_s: float) -> Done:
        asked.append(command)
        is_look = command[0] == "systemctl"
        error = "Failed: Unit pika-web.service was already loaded or has a fragment file.\n"
        return Done(0, "LoadState=not-found\n", "") if is_look else Done(1, "", error)

    manager = SystemdServiceManager(SETTINGS._replace(is_transient=True), run)
    assert manager.supports_runtime_registration()
    with pytest.raises(base.AlreadyRegisteredError):
        manager.register("web", ("sh", "$A", "%n"), env={"A": "1"})
    assert [command[0] for command in asked] == ["systemctl", "systemd-run"]
    assert asked[1][:5] == (
        *("systemd-run", "--system", "--no-ask-password", "--quiet", "--unit=pika-web.service"),
    )
    assert (asked[1][-5], asked[1][8]) == ("--setenv=A=1", "--property=Restart=on-failure")
    assert asked[1][-2:] == ("$$A", "%n")


@pytest.mark.parametrize(
    ("shown", "ended"),
    [
        ("ActiveState=failed\nExecMainCode=1\nExecMainStatus=78", (False, False, 78, None)),
        ("ActiveState=activating\nExecMainCode=2\nExecMainStatus=9", (False, True, None, 9)),
        ("ActiveState=inactive\nExecMainCode=0\nExecMainStatus=0", (False, False, None, None)),
    ],
)
def test_how_a_service_ended(shown: str, ended: tuple[object, ...]) -> None:
    found = dict(line.split("=") for line in f"MainPID=0\n{shown}".split("\n"))
    state = systemd.parse_state(found, 100.0)
    assert (state.is_up, state.is_wanted, state.exit_code, state.signal) == ended
