"""Jobs for launchd: plists are read back, what launchctl is asked is recorded. No Mac was there."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from osbuild_pika.service_managers import base, launchd
from osbuild_pika.service_managers.base import CommandError, NotRegisteredError
from osbuild_pika.service_managers.launchd import LaunchdServiceManager, Settings
from osbuild_pika.service_managers.programs import Done

TARGET = "system/osbuild-pika.service.web"
FOREIGN = ("sh", "-c", "echo <&> \"%n\" 'x' ]]>\n\tä", "", "$A")
UP = "{target} = {{\n\tstate = running\n\tpid = 42\n\tendpoints = {{\n\t\tpid = 1\n\t}}\n}}\n"
ENDED = "x = {\n\tstate = not running\n\truns = 1\n\tlast exit code = 78: EX_CONFIG\n}\n"


class Recorder:
    """Stands for launchctl: keeps what it is asked, and which jobs are loaded."""

    def __init__(self, fails: str = "nothing") -> None:
        self.asked: list[str] = []
        self.fails = fails
        self.loaded: set[str] = set()

    def __call__(self, command: Sequence[str], timeout_s: float) -> Done:
        assert command[0] == "launchctl"
        verb, target = command[1:3]
        if verb == "print":
            is_there = target in self.loaded
            return Done(0 if is_there else 113, UP.format(target=target) if is_there else "", "")
        self.asked.append(" ".join(command[1:]))
        if verb == self.fails:
            return Done(5, "", "Bootstrap failed: 5: Input/output error\n")
        if verb == "bootstrap":
            self.loaded.add(f"{target}/{Path(command[3]).stem}")
        if verb == "bootout":
            self.loaded.discard(target)
        return Done(0, "", "")


def settings(directory: Path | None, **changed: object) -> Settings:
    found = Settings(False, None, launchd.LABEL_PREFIX, None, None, "/logs", 1, 10)
    if directory is not None:
        logs = directory.with_name(f"{directory.name}-logs")
        found = found._replace(directory=str(directory), logs=str(logs))
    return found._replace(**changed)


def test_a_plist_is_read_back_as_it_was_meant() -> None:
    env = {"A": "<&\n", "B": ""}
    job = plistlib.loads(launchd.render("web", FOREIGN, env, settings(None, user="web")))
    program = job["ProgramArguments"].pop(0)
    assert (Path(program).is_absolute(), Path(program).name) == (True, "sh")
    assert job == {
        "Label": "osbuild-pika.service.web",
        "ProgramArguments": list(FOREIGN[1:]),
        "EnvironmentVariables": env,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 1,
        "ExitTimeOut": 10,
        "StandardOutPath": "/logs/osbuild-pika.service.web.log",
        "StandardErrorPath": "/logs/osbuild-pika.service.web.log",
        "UserName": "web",
    }
    own = plistlib.loads(launchd.render("web", FOREIGN, {}, settings(None, is_user=True)))
    assert "UserName" not in own
    with pytest.raises(ValueError, match="x: only root can run a service as another user"):
        launchd.render("web", FOREIGN, {}, settings(None, is_user=True, user="x"))
    with pytest.raises(ValueError, match="web: a plist holds no control characters"):
        launchd.render("web", ("sh", "\x01"), {}, settings(None))


def test_what_is_asked_of_launchctl(tmp_path: Path) -> None:
    asked = Recorder()
    manager = LaunchdServiceManager(settings(tmp_path), asked)
    assert isinstance(manager, base.Registrar)
    manager.register("web", ("true",))
    path = tmp_path / "osbuild-pika.service.web.plist"
    assert (manager.list(), path.stat().st_mode & 0o777) == (("web",), 0o600)
    with pytest.raises(base.AlreadyRegisteredError):
        manager.register("web", ("true",))
    assert manager.state("web") == (True, True, True, 42, None, None, 0)
    manager.restart("web")
    manager.start("web")
    manager.stop("web")
    manager.stop("web")
    assert not manager.is_running("web")
    manager.restart("web")
    manager.unregister("web")
    manager.unregister("web")
    load = (f"enable {TARGET}", f"bootstrap system {path}")
    assert asked.asked == [
        *(*load, f"kickstart -k {TARGET}", f"kickstart {TARGET}", f"bootout {TARGET}"),
        *(*load, f"bootout {TARGET}"),
    ]
    assert list(tmp_path.iterdir()) == []
    assert Path(manager.settings.logs).is_dir()


def test_a_job_that_is_not_to_start_is_disabled(tmp_path: Path) -> None:
    asked = Recorder()
    manager = LaunchdServiceManager(settings(tmp_path), asked)
    manager.register("web", ("true",), start_now=False)
    assert asked.asked == [f"disable {TARGET}"]
    assert not manager.is_running("web")
    manager.start("web")
    assert manager.is_running("web")


@pytest.mark.parametrize("fails", ["enable", "bootstrap"])
def test_what_launchd_refuses_is_rolled_back(fails: str, tmp_path: Path) -> None:
    manager = LaunchdServiceManager(settings(tmp_path), Recorder(fails))
    with pytest.raises(CommandError, match=r"^web: start failed with status 5: Bootstrap failed"):
        manager.register("web", ("true",))
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_does_not_go_is_said(tmp_path: Path) -> None:
    manager = LaunchdServiceManager(settings(tmp_path, timeout_s=0), Recorder("bootout"))
    manager.register("web", ("true",))
    with pytest.raises(CommandError, match="web: stop failed with status 5"):
        manager.stop("web")


def test_what_launchd_cannot_is_refused(tmp_path: Path) -> None:
    closed = LaunchdServiceManager(settings(None), Recorder())
    assert (closed.supports_runtime_registration(), closed.list()) == (False, ())
    with pytest.raises(
        NotImplementedError, match="such as --unit-directory /Library/LaunchDaemons"
    ):
        closed.register("web", ("true",))
    with pytest.raises(
        NotImplementedError, match="such as --unit-directory /Library/LaunchDaemons"
    ):
        closed.unregister("web")
    with pytest.raises(NotRegisteredError):
        closed.start("web")
    manager = LaunchdServiceManager(settings(tmp_path), Recorder())
    with pytest.raises(ValueError, match="no descriptor for readiness"):
        manager.register("web", ("true",), notify=3)
    unloggable = LaunchdServiceManager(settings(tmp_path, logs="/proc/logs"), Recorder())
    with pytest.raises(base.ServiceError, match="web: /proc/logs: No such file"):
        unloggable.register("web", ("true",))
    with pytest.raises(CommandError, match="launchctl is not on PATH") as missing:
        LaunchdServiceManager(settings(tmp_path)).state("web")
    assert missing.value.exit_code == 3


def test_how_a_job_ended() -> None:
    assert launchd.parse_state(None) == (False, False, False, None, None, None, 0)
    assert launchd.parse_state(ENDED)[:5] == (False, True, False, None, 78)
    done = ENDED.replace("78: EX_CONFIG", "0")
    assert launchd.parse_state(done)[:5] == (False, False, False, None, 0)
    never = ENDED.replace("78: EX_CONFIG", "(never exited)")
    assert launchd.parse_state(never)[3:6] == (None, None, None)
    killed = ENDED.replace("last exit code = 78", "last terminating signal = Killed: 9")
    assert launchd.parse_state(killed)[3:6] == (None, None, 9)


def test_a_user_has_a_domain_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr("os.getuid", lambda: 501)
    monkeypatch.setenv("HOME", "/Users/x")
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], timeout_s: float) -> Done:
        asked.append(command)
        return Done(113, "", "")

    with pytest.raises(NotRegisteredError):
        LaunchdServiceManager(run=run).start("web")
    assert asked == [("launchctl", "print", "gui/501/osbuild-pika.service.web")]
    assert launchd.default_settings().logs == "/Users/x/Library/Logs/osbuild-pika"
