"""Stages run in the engine's sandbox: what they see, how they end, and that nothing is left."""

import base64
import json
import os
import pwd
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import staging

RECORDED = Path(__file__).parents[1] / "data/osbuild/dump"
DUMP = staging.MODULES / "org.osbuild.golden.dump"
SYS_RESOURCE = 1 << 24  # the machine that recorded upstream's sandbox did not have it
NOBODY = "65534:65534"
# What upstream's sandbox has and ours has not: the runner, the socket of its remote loop devices,
# and what lay on the machine that recorded it.
NOT_OURS = {"/run/osbuild/runner", "/run/osbuild/api/remoteloop", "/etc/containers"}

pytestmark = pytest.mark.skipif(not staging.can_run(), reason="needs root and user namespaces")


def recorded(run: str, name: str) -> Any:
    return json.loads((RECORDED / run / name).read_text())


def dump(tmp_path: Path, **job: Any) -> Path:
    """Run the stage that writes down what it sees; returns where."""
    result = staging.run(staging.Job(str(tmp_path / "run"), str(DUMP), **job))
    assert (result.status, result.output) == (0, "dumped\n")
    return tmp_path / "run/tree/dump"


def shell(tmp_path: Path, text: str, **job: Any) -> staging.Result:
    stage = staging.script(tmp_path / "stage", f"#!/bin/sh\n{text}\n")
    return staging.run(staging.Job(str(tmp_path / "run"), stage, **job))


def listing(text: str) -> dict[str, list[str]]:
    """Path -> mode, owner and what else ls.txt says of it."""
    lines = [line.split() for line in text.splitlines() if line[:1] in "dlcbsp-" and line]
    paths = [next(word for word in line if word.startswith("/")) for line in lines]
    return {path: line[: line.index(path)] for path, line in zip(paths, lines, strict=True)}


def hexadecimal(status: dict[str, str]) -> dict[str, int]:
    names = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    return {name: int(status[name], 16) for name in names}


def test_capabilities_are_upstreams(tmp_path: Path) -> None:
    seen = json.loads((dump(tmp_path, capabilities=["CAP_NET_ADMIN"]) / "process.json").read_text())
    theirs = recorded("29-dump-capabilities", "process.json")["status"]
    wanted = {name: bits | SYS_RESOURCE for name, bits in hexadecimal(theirs).items()}
    assert hexadecimal(seen["status"]) == wanted
    for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Umask"):
        assert seen["status"][name] == theirs[name], name


def test_a_process_finds_itself_as_upstreams(tmp_path: Path) -> None:
    seen = json.loads((dump(tmp_path) / "process.json").read_text())
    theirs = recorded("29-dump-capabilities", "process.json")
    same = "argv cwd executable sys_path_0 is_session_leader is_group_leader own_cmdline fds"
    for name in [*same.split(), "proc_cmdline", "net_dev"]:
        assert seen[name] == theirs[name], name
    theirs["writable"].update({"/dev": False, "/proc/sys/kernel/hostname": False})
    assert seen["writable"] == theirs["writable"]


def test_namespaces_are_upstreams_and_two_more(tmp_path: Path) -> None:
    seen = json.loads((dump(tmp_path) / "process.json").read_text())["namespaces"]
    theirs = recorded("29-dump-capabilities", "process.json")["namespaces"]
    new = {name for name in seen if seen[name] != os.readlink(f"/proc/self/ns/{name}")}
    assert new == {name for name, what in theirs.items() if what == "new"} | {"user", "uts"}


@pytest.mark.parametrize(
    ("run", "epoch"), [("29-dump-capabilities", None), ("02-dump-everything", 1_700_000_000)]
)
def test_the_environment_is_upstreams(tmp_path: Path, run: str, epoch: int | None) -> None:
    seen = json.loads((dump(tmp_path, source_epoch=epoch) / "env.json").read_text())
    assert seen == recorded(run, "env.json")


def test_files_are_where_upstream_has_them(tmp_path: Path) -> None:
    seen = listing((dump(tmp_path) / "ls.txt").read_text())
    theirs = listing((RECORDED / "29-dump-capabilities/ls.txt").read_text())

    def ours(path: str) -> bool:
        below = ("/etc/", "/run/osbuild/lib/", *(f"{name}/" for name in NOT_OURS))
        return path not in NOT_OURS and not path.startswith(below)

    assert {path for path in seen if ours(path)} == {path for path in theirs if ours(path)}
    modes = {path: words[0] for path, words in theirs.items() if ours(path)}
    # No new nodes in /dev; whoever may make nodes makes /dev/fuse for everybody; our socket.
    modes |= {"/dev": "drwxr-xr-x", "/dev/fuse": "crw-rw-rw-"}
    modes["/run/osbuild/api/osbuild"] = "srw-rw-rw-"
    assert {path: words[0] for path, words in seen.items() if ours(path)} == modes
    of_the_host = {path for path, words in seen.items() if words[1] == NOBODY and ours(path)}
    assert {"/usr", "/dev", "/sys", "/dev/null"} <= of_the_host
    assert not {"/", "/etc", "/var", "/run/osbuild/tree", "/run/osbuild/meta"} & of_the_host


def test_etc_is_what_a_runner_prepares(tmp_path: Path) -> None:
    seen = listing((dump(tmp_path) / "ls.txt").read_text())
    for name in ("ld.so.cache", "passwd", "group", "nsswitch.conf", "resolv.conf", "hosts"):
        assert seen[f"/etc/{name}"] == ["-rw-r--r--", "0:0"]
    assert seen["/etc/alternatives"][0] == "drwxr-xr-x"


def test_mounts_are_upstreams(tmp_path: Path) -> None:
    text = (dump(tmp_path) / "mountinfo").read_text()
    seen = {line.split()[4]: set(line.split()[5].split(",")) for line in text.splitlines()}
    theirs = {
        mount["mount_point"]: set(mount["options"].split(","))
        for mount in recorded("29-dump-capabilities", "mounts.json")
    }
    recorder = {"/usr/bin/bwrap", "/run/osbuild/runner/org.osbuild.debian12"}
    # Whoever may make nodes needs no binds; files below /proc that nobody may write need no cover.
    other = recorder | NOT_OURS | {path for path in theirs if path.startswith(("/dev/", "/sys/"))}
    other |= {"/proc/irq", "/proc/bus"}
    for path in theirs.keys() - other:
        assert seen[path] >= theirs[path] & {"ro", "rw", "nosuid", "nodev", "noexec"}, path
    extra = {path for path in seen if not path.startswith(("/dev/", "/sys/", "/etc", "/usr/"))}
    assert extra <= theirs.keys()


def test_output_is_text_whatever_it_is(tmp_path: Path) -> None:
    body = "printf 'a\\303'; sleep 0.2; printf '\\274\\377'; printf '\\303' >&2"
    assert shell(tmp_path, body).output == "a\u00fc\ufffd\ufffd"


@pytest.mark.parametrize(
    ("body", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_a_stage_ends_by_itself(tmp_path: Path, body: str, status: int) -> None:
    result = shell(tmp_path, body)
    assert (result.status, result.ended_by, result.started) == (status, "itself", True)


def test_a_stage_that_cannot_start_says_why(tmp_path: Path) -> None:
    stage = staging.script(tmp_path / "stage", "#!/no/such/interpreter\n")
    result = staging.run(staging.Job(str(tmp_path / "run"), stage))
    assert (result.status, result.ended_by, result.started) == (1, "itself", False)
    assert "execvp" in result.output


@pytest.mark.parametrize(
    ("body", "limits", "ended_by"),
    [
        ("while sleep 0.1; do echo .; done", {"total_s": 0.5}, "total timeout"),
        ("echo .; sleep 60", {"idle_s": 0.5, "total_s": 50}, "idle timeout"),
    ],
)
def test_a_limit_ends_a_stage(
    tmp_path: Path, body: str, limits: dict[str, float], ended_by: str
) -> None:
    result = shell(tmp_path, body, limits=limits)
    assert (result.status, result.ended_by) == (143, ended_by)
    assert 0.4 < result.duration_s < 4


def test_a_stop_lets_the_stage_finish_its_sentence(tmp_path: Path) -> None:
    body = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    result = shell(tmp_path, body, stop_at="ready")
    assert (result.status, result.ended_by, result.output) == (3, "stop", "ready\nbye\n")


DEAF = "trap '' TERM; echo ready; sleep 60 & setsid sleep 61 & sleep 62"


def test_a_stage_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    result = shell(tmp_path, DEAF, stop_at="ready", limits={"grace_s": 0.5})
    assert (result.ended_by, result.status) == ("stop", 137)
    assert result.duration_s < 4


def test_a_second_stop_kills_at_once(tmp_path: Path) -> None:
    result = shell(tmp_path, DEAF, stop_at="ready", stops=2, limits={"grace_s": 60.0})
    assert (result.ended_by, result.status) == ("stop", 137)
    assert result.duration_s < 4


def test_who_stays_behind_in_the_sandbox_ends_with_the_stage(tmp_path: Path) -> None:
    result = shell(tmp_path, "setsid sleep 60 & exit 0")
    assert result.duration_s < 2


def test_metadata_and_files_are_the_stages_own(tmp_path: Path) -> None:
    result = shell(tmp_path, "echo '{}' > /run/osbuild/meta; chown 5:6 /run/osbuild/tree; id -u")
    assert (base64.b64decode(result.meta), result.output) == (b"{}\n", "0\n")
    facts = (tmp_path / "run/tree").stat()
    assert facts.st_uid > 65536
    assert facts.st_gid == facts.st_uid + 1


SPEAK = """#!/usr/bin/python3
import json, socket
def speak(*packets):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect("/run/osbuild/api/osbuild")
    for packet in packets:
        client.send(packet)
def said(**exception):
    return json.dumps({"method": "exception", "exception": exception}).encode()
"""


def test_an_exception_is_heard(tmp_path: Path) -> None:
    words = "type='ValueError', value='\u00fc', traceback='at line 1'"
    body = f"{SPEAK}speak(b'x', b'[]', said(type=1), said({words}))\nspeak(said({words}))\n"
    result = staging.run(staging.Job(str(tmp_path), staging.script(tmp_path / "s", body)))
    assert result.exception == {"type": "ValueError", "value": "\u00fc", "traceback": "at line 1"}


def test_a_flood_of_messages_ends_with_the_stage(tmp_path: Path) -> None:
    flood = "try:\n    while True: speak(*[b'x' * 9000] * 5)\nexcept OSError as e: print(e)\n"
    stage = staging.script(tmp_path / "s", f"{SPEAK}import signal\nsignal.alarm(2)\n{flood}")
    result = staging.run(staging.Job(str(tmp_path), stage, limits={"total_s": 20}))
    assert (result.ended_by, result.exception) == ("itself", None)


ROOTLESS = """#!/bin/sh -e
id -u; chown 7:8 /run/osbuild/tree; echo x > /dev/null; mount -t tmpfs x /tmp
cat /proc/self/uid_map
! touch /dev/x /usr/x /run/osbuild/lib/x /proc/sys/kernel/core_pattern
"""


@pytest.mark.skipif(not shutil.which("newuidmap"), reason="needs newuidmap")
@pytest.mark.skipif(not os.path.exists("/etc/subuid"), reason="needs /etc/subuid")
def test_a_user_has_the_same_sandbox(accessible: Path) -> None:
    stage = staging.script(accessible / "stage", ROOTLESS)
    result = staging.run(staging.Job(str(accessible), stage, user="games"))
    lines = result.output.splitlines()
    assert (result.status, lines[0], lines[1].split()) == (0, "0", ["0", "1", "65536"]), lines
    facts = (accessible / "tree").stat()
    assert (facts.st_uid, facts.st_gid) == (staging.BASE + 7, staging.BASE + 8)


@pytest.fixture(name="accessible")
def fixture_accessible() -> Iterator[Path]:
    """A directory whose parents everybody may search; tmp_path has others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)
    shared = Path(f"/tmp/osbuild-pika-{pwd.getpwnam('games').pw_uid}")  # noqa: S108
    assert not list(shared.iterdir())  # it stays: another build of the user's may be at work in it


def test_many_stages_run_in_one_namespace(tmp_path: Path) -> None:
    stage = staging.script(tmp_path / "stage", "#!/bin/sh\nexit 0\n")
    result = staging.run(staging.Job(str(tmp_path / "run"), stage, times=30))
    assert (result.status, result.output) == (0, "")
    assert max(result.seconds) < 1  # 15 ms on an idle machine


@pytest.mark.parametrize("turn", range(20))
def test_nothing_is_left_after_a_kill(tmp_path: Path, turn: int) -> None:
    """Bubblewrap alone leaves a stage behind one time in eight, when it is killed as it starts."""
    marker = f"60.0{os.getpid()}{turn:02}"  # seconds, that nobody else sleeps
    stage = staging.script(tmp_path / marker, f"#!/bin/sh\n(setsid sleep {marker} &)\nexit 0\n")
    mounts = Path("/proc/self/mountinfo").read_text()
    with staging.start(staging.Job(str(tmp_path / "run"), stage, times=10_000)) as process:
        begin = time.monotonic()
        while not staging.processes(marker) and time.monotonic() < begin + 20:
            time.sleep(0.01)
        time.sleep(random.Random(turn).uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while staging.processes(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not staging.processes(marker)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not os.listdir("/run/osbuild-pika")
