"""Runs stages in the engine's sandbox, in a process of their own: it leaves namespaces.

As a program: reads a Job (JSON) from its standard input and prints what came of it.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import ctypes
import json
import os
import pwd
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = ROOT / "test/data/osbuild/modules"
BASE = 1_800_000_000  # of the subordinate ids of a user


@dataclass
class Job:
    """directory: of the build; times: how often the stage runs, one after the other.
    stop_at: text in the output; the run is then stopped, `stops` times.
    secret: the name of a key in the engine's session keyring. user: who builds, if not root."""

    directory: str
    stage: str
    options: dict[str, Any] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    source_epoch: int | None = None
    stop_at: str = ""
    stops: int = 1
    times: int = 1
    secret: str = ""
    user: str = ""


@dataclass
class Result:
    status: int
    ended_by: str
    duration_s: float
    started: bool
    exception: dict[str, str] | None
    output: str
    meta: str
    seconds: list[float]


def can_run() -> bool:
    """Whether this machine lets us make the namespaces of a sandbox."""
    if os.geteuid() != 0:
        return False
    command = ["unshare", "--user", "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(command, check=False, capture_output=True)
    return done.returncode == 0


def start(job: Job) -> subprocess.Popen[str]:
    """Start a process that runs the stage; its standard output is a Result, then."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(job)))
    process.stdin.close()
    process.stdin = None
    return process


def run(job: Job) -> Result:
    """Run the stage; raises if that could not be done."""
    with start(job) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return Result(**json.loads(output))


def script(path: Path, text: str) -> str:
    """Write a stage's executable."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def processes(marker: str) -> list[int]:
    """Those that name it in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in command and path.parent.name != str(os.getpid()):
            found.append(int(path.parent.name))
    return found


def main() -> None:
    job = Job(**json.load(sys.stdin))
    directory = Path(job.directory)
    # Now, as the user may have no right to read our Python.
    import shutil  # noqa: F401
    import socket  # noqa: F401
    import tempfile  # noqa: F401

    from osbuild_pika.engine import area, buildroot, namespace, running  # noqa: F401

    if not (directory / "etc").exists():
        directory.mkdir(exist_ok=True)
        directory.chmod(0o700)
        buildroot.prepare_etc(Path("/"), directory / "etc")
        buildroot.prepare_lib(directory / "lib")
    if job.user:
        become_user(job.user, directory)
    ids = namespace.become_root(namespace.find_ids())
    namespace.private_mounts()
    workspace = area.make_workspace()
    if job.secret:
        _keep_in_session_keyring(job.secret)
    for name in ("tree", "var"):
        (directory / name).mkdir(exist_ok=True)
        os.chown(directory / name, ids.base, ids.base)
    parts = area.Parts(
        root=Path("/"),
        etc=directory / "etc",
        lib=directory / "lib",
        stage=Path(job.stage),
        tree=directory / "tree",
        var=directory / "var",
    )
    with namespace.UserNamespace(ids) as users:
        result = [_run(job, parts, workspace / f"stage{n}", users) for n in range(job.times)][-1]
    json.dump(asdict(result), sys.stdout)


SECONDS: list[float] = []


def _run(job: Job, parts: Any, path: Path, users: Any) -> Result:
    import time

    from osbuild_pika.engine import area, running, sandbox

    begin = time.monotonic()
    pieces: list[str] = []
    with contextlib.closing(running.Stop()) as stop, area.prepared(path, parts, users.ids) as place:

        def hear(text: str) -> None:
            pieces.append(text)
            if job.stop_at and job.stop_at in text:
                for turn in range(job.stops):
                    threading.Timer(0.2 * turn, stop.ask).start()

        arguments = {"tree": "/run/osbuild/tree", "options": job.options}
        (place / "api/arguments").write_text(json.dumps(arguments))
        outcome = running.run(
            users,
            sandbox.Sandbox(
                place,
                Path(job.stage).name,
                frozenset(job.capabilities),
                job.source_epoch,
            ),
            hear,
            running.Limits(**job.limits),
            stop,
        )
        meta = base64.b64encode((place / "meta").read_bytes()).decode()
    SECONDS.append(time.monotonic() - begin)
    told = outcome._asdict()
    told["exception"] = outcome.exception._asdict() if outcome.exception else None
    return Result(**told, output="".join(pieces), meta=meta, seconds=SECONDS)


def become_user(name: str, directory: Path) -> None:
    """Become a user who has subordinate ids, for this process only; the directory is its own."""
    from osbuild_pika import libc
    from osbuild_pika.engine import namespace

    codecs.lookup("ascii")  # the user may not be able to read this Python
    namespace.private_mounts()
    for file in ("subuid", "subgid"):
        (directory / file).write_text(f"{name}:{BASE}:65536\n")
        libc.bind(directory / file, Path("/etc") / file)
    facts = pwd.getpwnam(name)
    os.chown(directory, facts.pw_uid, facts.pw_gid)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(*[facts.pw_gid] * 3)
    os.setresuid(*[facts.pw_uid] * 3)
    libc.stay_dumpable()


def _keep_in_session_keyring(secret: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(250), 1, None)
    libc.syscall(ctypes.c_long(248), b"user", secret.encode(), b"x", ctypes.c_size_t(1), -3)


if __name__ == "__main__":
    main()
