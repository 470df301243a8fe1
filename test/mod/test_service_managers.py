"""What service managers have in common: names, environments, errors, and which one there is."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from osbuild_pika.errors import ExitCode, HostError, InputError
from osbuild_pika.inside.services import s6 as s6_tree
from osbuild_pika.service_managers import base, desired, programs, s6, s6_calls
from osbuild_pika.service_managers.base import CommandError, NotRegisteredError, ServiceError

TOOLS = s6_tree.Tools("/bin/s6-setuidgid", "/bin/s6-log", None)
SCRIPT = s6_tree.Script("pika-web", ("cmd",), {}, None, "/root", "/logs", None, 10)


@pytest.mark.parametrize("name", ["a", "0", "web-1_x", "n" * 200, "default"])
def test_a_name_of_a_profile(name: str) -> None:
    assert base.validate_profile_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "_a", ".a", "a.b", "a/b", "a b", "a\n", "\u00e4", "\u0661", "n" * 201]
)
def test_what_is_no_name_of_a_profile(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a profile") as caught:
        base.validate_profile_name(name)
    assert isinstance(caught.value, InputError)


def test_an_environment_is_copied_in_order() -> None:
    assert list(base.validate_environment({"B": "\n'\"$", "A_1": ""})) == ["A_1", "B"]
    assert base.validate_environment(None) == {}


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=", "A\n", "\u00c4", "a;b", "A-B"])
def test_what_is_no_name_of_a_variable(key: str) -> None:
    with pytest.raises(ValueError, match="no name of an environment variable"):
        base.validate_environment({key: "x"})


def test_what_no_command_has() -> None:
    for command in ((), ("",), "sleep 1"):
        with pytest.raises(ValueError, match="needs a command"):
            base.validate_command(command)
    with pytest.raises(ValueError, match="NUL"):
        base.validate_command(("sh", "a\0b"))
    with pytest.raises(ValueError, match="NUL"):
        base.validate_environment({"A": "a\0b"})
    with pytest.raises(ValueError, match=r"command is not UTF-8 text: 'a\\udce4'"):
        base.validate_command(("sh", "a\udce4"))
    with pytest.raises(ValueError, match=r"A: a value .* is not UTF-8 text"):
        base.validate_environment({"A": "\udce4"})


@pytest.mark.parametrize("user", ["", "a\nb", "\udce4"])
def test_what_no_user_is_called(user: str) -> None:
    with pytest.raises(ValueError, match="is no name of a user"):
        base.validate_user(user)


@pytest.mark.parametrize("key", ["OPTIND", "PPID", "UID", "EUID", "SHELLOPTS", "BASHOPTS"])
def test_what_a_shell_keeps_to_itself_is_in_no_environment_it_sets(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is the shell's own"):
        base.refuse_shells_own({key: "x"})
    assert base.validate_environment({key: "x"}) == {key: "x"}


@pytest.mark.parametrize("fd", [-1, 0, 1, 2, 1024])
def test_a_descriptor_that_nobody_can_be_told_on(fd: int) -> None:
    with pytest.raises(ValueError, match="a descriptor from 3 to 1023"):
        base.validate_notify(fd)


def host(root: Path, comm: str, *folders: str) -> str:
    """A root directory whose first process is `comm`."""
    (root / "proc/1").mkdir(parents=True)
    (root / "proc/1/comm").write_text(f"{comm}\n")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return str(root)


S6, SYSTEMD, OPENRC = "run/s6/basedir", "run/systemd/system", "run/openrc"


@pytest.mark.parametrize(
    ("comm", "folders", "platform", "kind"),
    [
        ("s6-svscan", (S6, SYSTEMD, OPENRC), "linux", "s6"),
        ("s6-svscan", (SYSTEMD,), "linux", "systemd"),
        ("s6-svscan-x", (S6,), "linux", "none"),
        ("bash", (S6, OPENRC), "linux", "openrc"),
        ("systemd", (SYSTEMD, OPENRC), "linux", "systemd"),
        ("bash", (), "linux", "none"),
        ("launchd", (SYSTEMD,), "darwin", "launchd"),
        ("", (SYSTEMD,), "win32", "windows"),
    ],
)
def test_which_service_manager_there_is(
    comm: str, folders: tuple[str, ...], platform: str, kind: str, tmp_path: Path
) -> None:
    assert base.detect_service_manager(host(tmp_path, comm, *folders), platform) == kind


def test_a_machine_without_one_is_not_fit(tmp_path: Path) -> None:
    assert base.detect_service_manager(str(tmp_path), "linux") == "none"
    with pytest.raises(RuntimeError, match=r"^no supported service manager detected$") as caught:
        base.get_service_manager("none")
    assert isinstance(caught.value, HostError)


@pytest.mark.parametrize(
    ("kind", "registers"),
    [("s6", True), ("systemd", False), ("openrc", False), ("launchd", False), ("windows", True)],
)
def test_each_kind_has_a_registrar(kind: base.ServiceManagerKind, registers: bool) -> None:
    manager = base.get_service_manager(kind)
    assert isinstance(manager, base.Registrar)
    assert (manager.kind, manager.supports_runtime_registration()) == (kind, registers)


def test_settings_of_a_service_manager_are_changed_by_name() -> None:
    manager = base.get_service_manager("openrc", directory="/nowhere")
    assert (manager.supports_runtime_registration(), manager.list()) == (True, ())


def test_each_error_knows_its_service_and_its_exit_code() -> None:
    error = NotRegisteredError("web")
    assert (error.service, error.profile, error.exit_code) == ("web", "web", ExitCode.BAD_INPUT)
    failed = CommandError("web", "start", 111, "s6-svc: fatal:\nno\x1b")
    assert str(failed) == "web: start failed with status 111: s6-svc: fatal: no\ufffd"
    assert (failed.action, failed.returncode, failed.exit_code) == ("start", 111, ExitCode.FAILED)
    assert CommandError("web", "start", None, "").exit_code == ExitCode.TIMED_OUT
    assert CommandError("web", "start", 127, "").exit_code == ExitCode.HOST_NOT_FIT
    assert isinstance(base.AlreadyRegisteredError("web"), ValueError)
    unable = base.RegistrationNotSupportedError("windows", "install a task")
    assert isinstance(unable, NotImplementedError)


def test_a_program_is_run_to_its_end_or_to_its_limit() -> None:
    done = programs.run(("sh", "-c", "echo a; echo b >&2; exit 3"), 60)
    assert done == (3, "a\n", "b\n")
    assert programs.run(("sleep", "1000"), 0.01).returncode is None
    assert programs.run(("no-such-program",), 1).returncode == programs.MISSING


@pytest.mark.parametrize("value", ["", "it's", '"$HOME" `id` \\', "two\nlines", "-n", "\u00e4"])
def test_a_shell_reads_back_what_the_script_quotes(value: str) -> None:
    command = ("printf", "%s|", value, "end")
    script = SCRIPT._replace(command=command, env={"A": value})
    text = s6_tree.run_text(script, TOOLS)
    assert subprocess.run(["sh", "-c", text], check=True, stdout=subprocess.PIPE).stdout == (
        f"{value}|end|".encode()
    )
    assert f"export A={shlex.quote(value)}\n" in text


def test_only_roots_process_becomes_another_user() -> None:
    text = s6_tree.run_text(SCRIPT._replace(account="web"), TOOLS)
    assert '[ "$(id -u)" != 0 ] || account=web\n' in text
    assert text.endswith('exec /bin/s6-setuidgid "$1" cmd\n')


def tool(path: Path, name: str, text: str) -> str:
    """A program in the place of one of s6's."""
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)
    return str(path / name)


def test_no_variable_decides_who_a_service_runs_as(tmp_path: Path) -> None:
    setuidgid = tool(tmp_path, "s6-setuidgid", 'echo "as $1, account=$account"; shift; exec "$@"')
    tool(tmp_path, "id", "echo 0")
    script = SCRIPT._replace(
        account="web", env={"account": "root", "logs": "/etc"}, command=("echo", "$1")
    )
    text = s6_tree.run_text(script, TOOLS._replace(setuidgid=setuidgid))
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", text], env={"PATH": path}, check=True, stdout=subprocess.PIPE
    )
    assert done.stdout == b"as web, account=root\n$1\n"


def logged(path: Path, logs: Path, account: str | None) -> list[str]:
    """What log/run does: which programs it calls, with which words."""
    tools = TOOLS._replace(
        setuidgid=tool(path, "s6-setuidgid", f'echo "become $1" >>{path}/said; shift; exec "$@"'),
        log=tool(path, "s6-log", f'echo "log $*" >>{path}/said'),
    )
    tool(path, "id", "echo 0")
    tool(path, "chown", f'echo "chown $2" >>{path}/said')
    text = s6_tree.log_text(SCRIPT._replace(account=account, logs=str(logs)), tools)
    environment = {"PATH": f"{path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", text], env=environment, check=True, stdin=subprocess.DEVNULL)
    return (path / "said").read_text().splitlines()


def test_a_log_directory_is_given_to_the_user_only_by_who_made_it(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    keep = f"log 1 n10 s1000000 T {logs}/pika-web"
    become = ["become web", "become web"]
    assert logged(tmp_path, logs, "web") == ["chown web", *become, keep]
    (tmp_path / "said").unlink()
    assert logged(tmp_path, logs, "web") == [*become, keep]


def test_where_no_log_can_be_kept_it_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/pika-web").touch()
    assert logged(tmp_path, tmp_path / "logs", None) == ["log 1"]


@pytest.mark.parametrize(("code", "ends"), [(0, 125), (78, 125), (1, 0), (256, 0), (7, 0)])
def test_which_ends_are_for_good(code: int, ends: int) -> None:
    done = subprocess.run(["sh", "-c", s6_tree.finish_text(), "finish", str(code)], check=False)
    assert done.returncode == ends


def test_what_s6_says_of_a_service() -> None:
    up = s6_calls.parse_state("true true false 42 -1 -1 7\n")
    assert up == (True, True, False, 42, None, None, 7)
    assert s6_calls.parse_state("false true true -1 -1 9 0\n") == (
        *(False, True, False, None, None, 9, 0),
    )
    assert s6_calls.has_begun(s6_calls.parse_state("true true false 42 -1 -1 7"))
    assert not s6_calls.has_begun(s6_calls.parse_state("false true true -1 0 -1 0"))
    assert s6_calls.has_begun(s6_calls.parse_state("false false true -1 0 -1 0"))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = desired.Desired(str(tmp_path / "new/place"))
    service = desired.Service(["a", "b"], {"A": "\n"}, 3, "--profile", "root", "running")
    assert (kept.profiles(), kept.read("web"), kept.is_ours()) == ((), None, False)
    with kept.held():
        kept.write("web", service)
    kept.want("web", "stopped")
    assert (kept.profiles(), kept.read("web")) == (("web",), service._replace(wanted="stopped"))
    assert (tmp_path / "new/place/web.json").stat().st_mode & 0o777 == 0o600
    kept.forget("web")
    kept.forget("web")
    assert kept.profiles() == ()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"command": 1}', '{"a": 1}', '"x"', "\xff", "{" * 10]
)
def test_a_damaged_record_says_so(content: str) -> None:
    with pytest.raises(ServiceError, match=r"^web: what is kept of it is damaged"):
        desired.parse("web", content.encode("latin-1"))


def test_settings_are_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_SCAN_DIRECTORY", "/scan")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    settings = s6.default_settings()
    assert settings[:3] == ("/scan", "/state/osbuild-pika/services", "/state/osbuild-pika/logs")
