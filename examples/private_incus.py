"""An Incus of one's own: for the tests and the demo, apart from any other on the machine.

usage: private_incus.py start DIRECTORY [--group GROUP] [--network]     prints the socket's path
       private_incus.py stop DIRECTORY             ends it with its guests, and deletes DIRECTORY

It needs root, and the packages that .ci/incus installs. The daemon has mount, process and network
namespaces of its own: whatever becomes of it, its guests and its mounts end with the one process
that is its parent, and neither it nor a guest can reach a network, or be reached.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

READY_S = 60
STOP_S = 30
DROP_S = 5
DAEMONS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd")
PRESEED = b"""
storage_pools: [{name: default, driver: dir}]
profiles: [{name: default, devices: {root: {type: disk, path: /, pool: default}}}]
"""
# A /sys of the new network, with the control groups of the old one; and a shell that stays, for
# the first process of a namespace has to take in orphans.
INSIDE = """
mount --rbind /sys/fs/cgroup "$2" && mount -t sysfs sysfs /sys &&
    mount --rbind "$2" /sys/fs/cgroup && umount -l "$2"
ip link set lo up
"$1" --group "$3" & wait
"""
CGROUPS = Path("/sys/fs/cgroup")
BRIDGE = "pika0"
ADDRESS = "10.77.0.1/24"
KINDS = ("payload", "monitor")
STARTED: dict[int, subprocess.Popen[bytes]] = {}  # our children


def why_not() -> str | None:
    """Why there can be no Incus here; None if it can be."""
    if os.geteuid() != 0:
        return "a private Incus needs root"
    if daemon() is None or shutil.which("incus") is None:
        return "Incus is not installed: .ci/incus does it"
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return "this machine gives root no namespaces (CAP_SYS_ADMIN)"
    return None


def daemon() -> str | None:
    found = (path for path in DAEMONS if os.access(path, os.X_OK))
    return next(found, None) or shutil.which("incusd")


def places(directory: Path) -> SimpleNamespace:
    """Where everything lies. A socket's path has to be short: so has `directory`."""
    return SimpleNamespace(
        state=directory / "d",
        config=directory / "c",
        cgroups=directory / "g",
        log=directory / "log",
        pid=directory / "pid",
        socket=directory / "d/unix.socket",
    )


def environment(directory: Path) -> dict[str, str]:
    """For the programs `incus` and `incusd`."""
    at = places(directory)
    return {**os.environ, "INCUS_DIR": str(at.state), "INCUS_CONF": str(at.config)}


def incus(directory: Path, *arguments: str, given: bytes = b"") -> bytes:
    """Run the program incus. Returns its output; raises RuntimeError with its words."""
    done = subprocess.run(
        ["incus", *arguments],
        env=environment(directory),
        input=given,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace")
        raise RuntimeError(f"incus {' '.join(arguments)}: {words}")
    return done.stdout


def inside(directory: Path, *command: str) -> bytes:
    """Run a program in the daemon's network, mounts and processes. Returns its output; raises
    CalledProcessError."""
    parent = int(places(directory).pid.read_text().split()[0])
    first = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]
    entered = ["nsenter", "--target", first, "--mount", "--net", "--pid", *command]
    return subprocess.run(entered, capture_output=True, check=True).stdout


def start(directory: Path, group: str = "root", dies_with_us: bool = False) -> int:
    """Start a daemon below an empty or missing directory, with a pool and a default profile.

    group: whose members may use it. dies_with_us: also if we are killed. Returns the id of the
    process that all else ends with. Raises RuntimeError with the last words of the daemon's log.
    """
    at = places(directory)
    directory.mkdir(mode=0o711, exist_ok=True)
    directory.chmod(0o711)  # guests pass through it
    for made in (at.state, at.config, at.cgroups):
        made.mkdir(mode=0o711)
    with open(at.log, "wb") as log:
        process = subprocess.Popen(
            [
                *(("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()),
                *("unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"),
                *("sh", "-c", INSIDE, "sh", daemon() or "incusd", str(at.cgroups), group),
            ],
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    STARTED[process.pid] = process
    at.pid.write_text(f"{process.pid} {_started(process.pid)}\n")
    try:
        _await(directory)
        incus(directory, "admin", "init", "--preseed", given=PRESEED)
    except BaseException:
        stop(directory)
        raise
    return process.pid


def add_network(directory: Path, profile: str = "default") -> None:
    """Give the guests of a profile an eth0, with addresses by DHCP, in a network without a way
    out: ADDRESS is the daemon's own. Raises RuntimeError, as where dnsmasq is not installed."""
    options = [f"ipv4.address={ADDRESS}", "ipv4.nat=false", "ipv6.address=none"]
    incus(directory, "network", "create", BRIDGE, *options)
    incus(directory, "profile", "device", "add", profile, "eth0", "nic", f"network={BRIDGE}")


def _await(directory: Path) -> None:
    command = [daemon() or "incusd", "waitready", f"--timeout={READY_S}"]
    done = subprocess.run(command, env=environment(directory), capture_output=True, check=False)
    if done.returncode != 0:
        words = places(directory).log.read_text(errors="replace").strip().split("\n")[-3:]
        raise RuntimeError(f"incusd did not start: {' | '.join(words)}")


def stop(directory: Path) -> None:
    """End the daemon below a directory with all its guests, and delete the directory."""
    at = places(directory)
    with suppress(OSError, ValueError):
        pid, started = map(int, at.pid.read_text().split())
        if _started(pid) == started:
            _shut_down(directory, pid)
    with suppress(OSError):
        _drop_cgroups(os.listdir(at.state / "containers"))
    shutil.rmtree(directory, ignore_errors=True)


def _shut_down(directory: Path, pid: int) -> None:
    with suppress(RuntimeError, ValueError):
        found = json.loads(incus(directory, "query", "/1.0/instances?recursion=1&all-projects=1"))
        for each in found:
            incus(directory, "delete", "--force", "--project", each["project"], each["name"])
    command = [daemon() or "incusd", "shutdown", "--force", f"--timeout={STOP_S}"]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command,
            env=environment(directory),
            capture_output=True,
            check=False,
            timeout=STOP_S,
        )
    deadline = time.monotonic() + STOP_S
    while _is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if _is_there(pid):
        os.kill(pid, signal.SIGKILL)
        while _is_there(pid):
            time.sleep(0.02)


def _is_there(pid: int) -> bool:
    """Whether a process still runs; takes in our child's end."""
    if pid in STARTED:
        return STARTED[pid].poll() is None
    return _started(pid) is not None


def _started(pid: int) -> int | None:
    """When a process began, by which it is known for ever; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _drop_cgroups(instances: list[str]) -> None:
    """Delete the control groups that a killed daemon leaves; those in use stay.

    What was killed may be in them for a moment yet; another Incus may have one of the same name.
    """
    names = [f"lxc.{kind}.{each}" for each in instances for kind in KINDS]
    later = [f"{name}-[0-9]*" for name in names]  # beside one of the same name
    deadline = time.monotonic() + DROP_S
    while _drop(*names, *later) and time.monotonic() < deadline:
        time.sleep(0.05)
    _drop("lxc.pivot")


def _drop(*patterns: str) -> bool:
    """Delete control groups. Returns whether some are left."""
    found = [
        top
        for pattern in patterns
        for top in (*CGROUPS.glob(pattern), *CGROUPS.glob(f"*/{pattern}"))
    ]
    for top in found:
        for path, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(path)
    return any(top.exists() for top in found)


@contextmanager
def running(directory: Path) -> Iterator[Path]:
    """A daemon for the time of a block, which ends also if we are killed. Gives its socket."""
    start(directory, dies_with_us=True)
    try:
        yield places(directory).socket
    finally:
        stop(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="An Incus of one's own.")
    parser.add_argument("verb", choices=["start", "stop"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--group", default="root", help="whose members may use it")
    parser.add_argument("--network", action="store_true", help="guests get addresses by DHCP")
    given = parser.parse_args()
    directory = given.directory.absolute()
    if given.verb == "stop":
        stop(directory)
        return
    problem = why_not()
    if problem:
        sys.exit(f"private_incus: {problem}")
    try:
        start(directory, given.group)
        if given.network:
            add_network(directory)
    except (OSError, RuntimeError) as error:
        sys.exit(f"private_incus: {error}")
    print(places(directory).socket)


if __name__ == "__main__":
    main()
