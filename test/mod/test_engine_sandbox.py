"""The command of a sandbox, the ids of a user, the /etc of a build root: values, without root."""

import json
import os
from pathlib import Path

import pytest

from osbuild_pika.engine import buildroot, namespace, sandbox, stageapi
from osbuild_pika.engine.sandbox import Sandbox
from osbuild_pika.errors import ExitCode, HostError

RECORDED = Path(__file__).parents[1] / "data/osbuild/dump/29-dump-capabilities/bwrap_argv.json"
ARGUMENTS = {"--cap-add": 1, "--cap-drop": 1, "--chdir": 1, "--dir": 1, "--hostname": 1}
ARGUMENTS |= {"--proc": 1, "--tmpfs": 1, "--setenv": 2, "--symlink": 2}
ARGUMENTS |= dict.fromkeys(("--bind", "--ro-bind", "--ro-bind-try", "--dev-bind"), 2)
AREA = Path("/area")
# Upstream's binds that the area has in its etc/, that belong to a runner, or that /sys holds.
NOT_OURS = ("/etc/", "/run/osbuild/runner", "/run/osbuild/api/remoteloop", "/sys/fs/selinux")


def options(argv: list[str]) -> list[tuple[str, ...]]:
    """A command of bubblewrap as (option, argument...), the sources of binds left out."""
    found: list[tuple[str, ...]] = []
    rest = argv[1 : argv.index("--")]
    while rest:
        name, given = rest[0], rest[1 : 1 + ARGUMENTS.get(rest[0], 0)]
        found.append((name, given[-1]) if "bind" in name else (name, *given))
        rest = rest[1 + len(given) :]
    return found


def test_the_command_is_upstreams() -> None:
    ours = options(sandbox.argv(Sandbox(AREA, "org.osbuild.golden.dump", frozenset())))
    theirs = options(json.loads(RECORDED.read_text())["argv"])
    upstream = {option for option in theirs if not option[-1].startswith(NOT_OURS)}
    added = {("--unshare-uts",), ("--hostname", "localhost"), ("--clearenv",)}
    added |= {("--bind", "/etc"), ("--ro-bind-try", "/boot")}
    upstream -= {("--dir", "/etc"), ("--cap-add", "CAP_NET_ADMIN")}
    assert {option for option in ours if option[0] != "--setenv"} == upstream | added


def test_a_stage_gets_what_it_asks_for() -> None:
    asked = Sandbox(AREA, "x", frozenset({"CAP_SYS_PTRACE"}), 7, "xterm")
    assert ("--cap-add", "CAP_SYS_PTRACE") in options(sandbox.argv(asked))
    assert sandbox.environment(asked)["SOURCE_DATE_EPOCH"] == "7"
    assert sandbox.environment(asked)["TERM"] == "xterm"
    assert sandbox.argv(asked)[-2:] == ["--", "/run/osbuild/bin/x"]


def subordinate(etc: Path, users: str, groups: str) -> Path:
    (etc / "subuid").write_text(users)
    (etc / "subgid").write_text(groups)
    return etc


@pytest.mark.parametrize(
    "lines",
    [
        "{name}:300000:65536",
        "{uid}:300000:65536",
        "somebody:1:65536\n{name}:5:10\n{name}:300000:65537\n",
        "# broken\n{name}:x:y\n{name}:300000:65536:\n{name}:300000:70000",
    ],
)
def test_ids_are_found(tmp_path: Path, lines: str) -> None:
    uid = os.geteuid()
    text = lines.format(name="root" if uid == 0 else os.environ.get("USER", uid), uid=uid)
    assert namespace.find_ids(subordinate(tmp_path, text, text)).base == 300000


@pytest.mark.parametrize(
    ("users", "groups"),
    [
        ("{uid}:300000:65536", "{uid}:400000:65536"),
        ("{uid}:300000:65535", ""),
        ("", "{uid}:1:99999"),
    ],
)
def test_ids_that_do_not_fit_name_the_fix(tmp_path: Path, users: str, groups: str) -> None:
    uid = os.geteuid()
    etc = subordinate(tmp_path, users.format(uid=uid), groups.format(uid=uid))
    if users.endswith("65535") and uid == 0:
        assert namespace.find_ids(etc).base == namespace.ROOT_BASE
        return
    with pytest.raises(HostError, match="usermod --add-subuids") as caught:
        namespace.find_ids(etc)
    assert caught.value.exit_code == ExitCode.HOST_NOT_FIT


def test_the_etc_of_a_build_root_is_read_below_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.write_text("secret")
    (root / "etc/ld.so.cache").symlink_to(outside)
    (root / "etc/ld.so.conf").symlink_to("../../../../../../conf")
    (root / "conf").write_text("of the root")
    os.mkfifo(root / "etc/mime.types")
    (root / "etc/passwd").write_text("root:x:0:0::/:\nme:x:1000:1000::/:\nbad\nd:x:7:7::/:\n")
    buildroot.prepare_etc(root, tmp_path / "etc")
    written = {path.name for path in (tmp_path / "etc").iterdir()}
    always = {"passwd", "group", "nsswitch.conf", "hosts", "resolv.conf"}
    assert written == always | {"ld.so.conf"}
    assert (tmp_path / "etc/ld.so.conf").read_text() == "of the root"
    assert (tmp_path / "etc/passwd").read_text() == "root:x:0:0::/:\nd:x:7:7::/:\n"


def test_an_empty_build_root_has_an_etc_too(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    buildroot.prepare_etc(tmp_path / "root", tmp_path / "etc")
    assert (tmp_path / "etc/passwd").read_text().startswith("root:x:0:0:")


def test_the_modules_of_a_stage_import_nothing_of_the_host(tmp_path: Path) -> None:
    buildroot.prepare_lib(tmp_path / "lib")
    names = {path.name for path in (tmp_path / "lib/osbuild_pika").iterdir()}
    assert {"__init__.py", "wire.py", "lifecycle.py"} <= names <= {*buildroot.INSIDE, "__pycache__"}


EXCEPTION = {"type": "T", "value": "v" * 100_000, "traceback": ""}


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        {"method": "other"},
        {"method": "exception"},
        {"method": "exception", "exception": []},
        {"method": "exception", "exception": {**EXCEPTION, "type": None}},
    ],
)
def test_what_is_no_exception_is_ignored(message: object) -> None:
    assert stageapi.parse_exception(json.dumps(message).encode()) is None
    assert stageapi.parse_exception(b"\xff") is None
    assert stageapi.parse_exception(b"[" * 100_000) is None


def test_an_exception_is_cut_to_size() -> None:
    packet = json.dumps({"method": "exception", "exception": EXCEPTION}).encode()
    said = stageapi.parse_exception(packet)
    assert said is not None
    assert (said.type, len(said.value), said.traceback) == ("T", stageapi.MAX_TEXT, "")
