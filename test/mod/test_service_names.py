"""What lies beside our services and is none: list and status go on without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from osbuild_pika.cli import service as cli
from osbuild_pika.service_managers import (
    base,
    desired,
    launchd,
    openrc,
    programs,
    s6,
    systemd,
    windows,
)
from osbuild_pika.service_managers.base import BadServiceError, NotRegisteredError

UP = base.State(True, True, True, 1, None, None, 1)


def silent(*_: object) -> programs.Done:
    return programs.Done(0, "", "")


def of_s6(path: Path) -> s6.S6ServiceManager:
    changed = {"scan_directory": str(path), "state": str(path / "state")}
    return s6.S6ServiceManager(s6.default_settings()._replace(**changed), silent)


@pytest.mark.parametrize("stray", ["pika-web.bak", "pika-", "pika-A", ".pika-web.new", "pika-a@b"])
def test_what_is_no_profile_is_not_listed_under_s6(stray: str, tmp_path: Path) -> None:
    for name in ("pika-web", stray):
        (tmp_path / name).mkdir()
    assert of_s6(tmp_path).list() == ("web",)


@pytest.mark.parametrize(
    ("kind", "prefix", "suffix"),
    [
        ("systemd", base.UNIT_PREFIX, ".service"),
        ("openrc", base.UNIT_PREFIX, ""),
        ("launchd", launchd.LABEL_PREFIX, ".plist"),
    ],
)
def test_what_is_no_profile_is_not_listed_elsewhere(
    kind: base.ServiceManagerKind, prefix: str, suffix: str, tmp_path: Path
) -> None:
    for name in ("web", "a@", "web.bak", ""):
        (tmp_path / f"{prefix}{name}{suffix}").touch()
    assert base.get_service_manager(kind, directory=str(tmp_path)).list() == ("web",)


def test_what_is_no_profile_is_not_listed_by_who_is_asked_for_it() -> None:
    units = "".join(f"Id=pika-service-{each}.service\nTransient=yes\n\n" for each in ("web", "a@b"))
    settings = systemd.default_settings()._replace(is_transient=True)
    manager = systemd.SystemdServiceManager(settings, lambda *_: programs.Done(0, units, ""))
    assert manager.list() == ("web",)
    tasks = "".join(f'"{windows.FOLDER}pika-service-{each}"\n' for each in ("web", "A copy"))
    other = windows.WindowsServiceManager(
        windows.default_settings(), lambda *_: programs.Done(0, tasks, "")
    )
    assert other.list() == ("web",)


def test_what_is_no_profile_is_not_brought_back(tmp_path: Path) -> None:
    for name in ("web.json", "web.bak.json", ".web.json"):
        (tmp_path / name).touch()
    assert desired.Desired(str(tmp_path)).profiles() == ("web",)


def test_a_guests_own_services_are_no_profiles(tmp_path: Path) -> None:
    (tmp_path / "pika-cloud-report").mkdir()
    (tmp_path / "state").mkdir()
    manager = of_s6(tmp_path)
    assert manager.list() == ()
    for verb in ("start", "stop", "restart", "is_running", "state", "unregister"):
        with pytest.raises(BadServiceError, match="cloud-report: services of that name are a gue"):
            getattr(manager, verb)("cloud-report")
    with pytest.raises(BadServiceError, match="cloud-x: services of that name are a guest's own"):
        manager.register("cloud-x", ("true",))
    (tmp_path / "state/cloud-x.json").write_text("{}")
    assert "a guest's own" in manager.reconcile().failed["cloud-x"]
    assert (tmp_path / "pika-cloud-report").is_dir()


def test_what_cannot_be_written_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = of_s6(tmp_path)
    manager.settings = manager.settings._replace(logs="/srv/\udce4")
    monkeypatch.setattr(programs, "find", lambda name: f"/usr/bin/{name}")
    with pytest.raises(base.S6Error, match="web: a path of it is not UTF-8 text"):
        manager.register("web", ("true",))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    with pytest.raises(BadServiceError, match="UID is the shell's own"):
        manager.register("web", ("true",), env={"UID": "1"})
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_service_that_is_unregistered_while_openrc_is_asked_is_not_registered() -> None:
    known = iter((0, 1))

    def vanish(words: Sequence[str], _: float) -> programs.Done:
        return programs.Done(next(known) if "--exists" in words else 1, "", "")

    with pytest.raises(NotRegisteredError):
        openrc.OpenRCServiceManager(openrc.default_settings(), vanish).state("web")


def test_a_supervisor_that_has_not_told_anything_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "pika-web/supervise/status"
    asked = []

    def run(words: Sequence[str], _: float) -> programs.Done:
        asked.append(words[0])
        if asked.count("s6-svok") == 3 and status.parent.exists():
            status.touch()
        if words[0] == "s6-svstat" and not status.exists():
            return programs.Done(111, "", "s6-svstat: fatal: unable to read status")
        return programs.Done(0, "true true false 1 -1 -1 1", "")

    monkeypatch.setattr(programs, "find", lambda name: f"/usr/bin/{name}")
    manager = s6.S6ServiceManager(of_s6(tmp_path).settings, run)
    manager.register("web", ("true",))
    assert manager.list() == ("web",)


class Vanishing:
    """A service manager of two services, one of which is gone before it is looked at."""

    def list(self) -> tuple[str, ...]:
        return ("gone", "web")

    def state(self, profile: str) -> base.State:
        if profile == "gone":
            raise NotRegisteredError(profile)
        return UP


def test_status_of_all_leaves_out_what_is_gone_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "manager_of", lambda **_: Vanishing())
    done = CliRunner().invoke(cli.service, ["status", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert [each["profile"] for each in json.loads(done.output)["services"]] == ["web"]


def test_a_service_that_is_unregistered_while_s6_is_asked_is_not_registered(tmp_path: Path) -> None:
    (tmp_path / "pika-web").mkdir()

    def vanish(*_: object) -> programs.Done:
        (tmp_path / "pika-web").rmdir()
        return programs.Done(111, "", "s6-svstat: fatal")

    manager = s6.S6ServiceManager(of_s6(tmp_path).settings, vanish)
    with pytest.raises(NotRegisteredError):
        manager.state("web")
