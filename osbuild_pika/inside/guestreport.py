#!/usr/bin/python3
"""pika-cloud-report: tells the Incus host how far this guest is. Runs in the guest.

    pika-cloud-report boot     booted, starting, and then ready or failed
    pika-cloud-report failed   failed, if the service failed after it was ready

report.json beside it says which init this is and what ready means: the service (a unit, under
systemd) is active and the URL answers, within so many seconds; without a service the whole system
stands for it. The records are written by the helper that lies there, too:
/run/pika-cloud/{status.json,events.jsonl}. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.machinery
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

FOLDER = os.environ.get("PIKA_CLOUD_LIB", "/usr/lib/pika-cloud")
RUN = os.environ.get("PIKA_CLOUD_RUN", "/run/pika-cloud")
GUEST_API = os.environ.get("PIKA_CLOUD_GUEST_API", "/dev/incus/sock")
S6 = os.environ.get("PIKA_CLOUD_S6", "/run/service")
OPENRC = os.environ.get("PIKA_CLOUD_OPENRC", "/run/openrc")
SERVICE = "pika-cloud-report.service"
PROPERTIES = "LoadState,ActiveState,SubState,Result,Type,ActiveEnterTimestampMonotonic"
UNTOLD = ("simple", "exec", "idle")  # types of units that are active from their start on
EX_CONFIG = 78  # s6's services that end so are not started again, nor those that are stopped
SETTLE_S = 1.0  # how long what does not say that it is ready has to run
MAX_FAILED = 20  # names of failed services that are told
PROBE_S = 5.0  # how long one answer may take
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
USAGE = "usage: pika-cloud-report boot|failed"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("custom.socket", timeout=PROBE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PROBE_S)
        self.sock.connect(self._path)


def load_helper() -> Any:
    """The lifecycle helper, as a module."""
    sys.dont_write_bytecode = True  # nothing is to be left beside files of the image
    path = os.path.join(FOLDER, "pika-cloud-lifecycle")
    loader = importlib.machinery.SourceFileLoader("pika_cloud_lifecycle", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


# What is asked of an init. key: what it calls a service, in report.json and details. whole: the
# name of what stands for the whole system. look: of a service's name, None for the whole system,
# and of how long it has to run: "active", "waiting" or "failed", and why. failed: who failed.
Init = namedtuple("Init", "key whole look failed")


def said_by(words: Sequence[str]) -> str:
    """What a program prints; "" if it cannot be run."""
    try:
        said = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.decode("utf-8", "replace")


def judge(unit: Mapping[str, str], settle_s: float) -> tuple[str, str]:
    """What a unit's properties mean: "active", "waiting" or "failed", and why."""
    if unit.get("LoadState") not in ("loaded", None):
        return "failed", f"it is {unit['LoadState']}"
    state = unit.get("ActiveState", "unknown")
    if state in ("active", "reloading"):
        since_s = int(unit.get("ActiveEnterTimestampMonotonic") or 0) / 1_000_000
        is_settled = unit.get("Type") not in UNTOLD or time.monotonic() - since_s >= settle_s
        return ("active", state) if is_settled else ("waiting", "just started")
    if state == "failed":
        return "failed", unit.get("Result") or "it failed"
    return "waiting", f"{state} ({unit.get('SubState', 'unknown')})"


def look_at_unit(name: str | None, settle_s: float) -> tuple[str, str]:
    words = ("systemctl", "show", f"--property={PROPERTIES}", "--")
    said = said_by([*words, name or SYSTEMD.whole])
    lines = [line.partition("=") for line in said.splitlines()]
    return judge({key: value for key, _, value in lines}, settle_s)


def failed_units() -> list[str]:
    words = ("systemctl", "list-units", "--state=failed", "--plain", "--no-legend")
    return [line.split()[0] for line in said_by(words).splitlines() if line.split()]


def judge_s6(said: str, tells: bool, settle_s: float) -> tuple[str, str]:
    """What s6-svstat says of a service: up, wantedup, ready, exitcode, signum, updownfor. tells:
    whether the service says that it is ready."""
    words = said.split()
    if len(words) != 6:
        return "waiting", "not supervised yet"
    is_up, is_wanted, is_ready = (word == "true" for word in words[:3])
    code, signal, since_s = (int(word) for word in words[3:])
    if is_up:
        if is_ready if tells else since_s >= settle_s:
            return "active", "active"
        return "waiting", "up, and not ready yet" if tells else "just started"
    how = f"killed by signal {signal}" if signal > 0 else f"exited with status {max(code, 0)}"
    if is_wanted:
        return "waiting", f"down ({how}), to be started again"
    return ("failed", how) if code == EX_CONFIG else ("waiting", f"down ({how})")


def look_at_s6(name: str | None, settle_s: float) -> tuple[str, str]:
    if name is None:
        return "active", "active"  # who asks is one of its services
    place = os.path.join(S6, name)
    if not os.path.isdir(place):
        return "failed", "there is no such service"
    said = said_by(["s6-svstat", "-o", "up,wantedup,ready,exitcode,signum,updownfor", place])
    return judge_s6(said, os.path.exists(os.path.join(place, "notification-fd")), settle_s)


def failed_s6() -> list[str]:
    names = sorted(name for name in os.listdir(S6) if not name.startswith("."))
    return [name for name in names if look_at_s6(name, 0)[0] == "failed"]


def look_at_openrc(name: str | None, settle_s: float) -> tuple[str, str]:
    """OpenRC keeps a link for each service in the directory of its state."""
    if name is None:
        level = _content(os.path.join(OPENRC, "softlevel"))
        is_done = level == "default" and not os.path.exists(os.path.join(OPENRC, "rc.starting"))
        return ("active", "active") if is_done else ("waiting", f"at {level or 'its start'}")
    states = ("failed", "starting", "inactive", "stopping", "started")
    found = [each for each in states if os.path.lexists(os.path.join(OPENRC, each, name))]
    if found == ["failed"]:
        return "failed", "it could not be started"
    if found != ["started"]:
        return "waiting", found[0] if found else "stopped"
    child = _content(os.path.join(OPENRC, "options", name, "child_pid"))
    age_s = _age_s(child) if child else settle_s
    if age_s is None:
        return "waiting", "down, to be started again"
    return ("active", "active") if age_s >= settle_s else ("waiting", "just started")


def failed_openrc() -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(os.path.join(OPENRC, "failed")))
    return []


def _age_s(pid: str) -> float | None:
    """How long a process runs; None if there is none."""
    fields = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_s


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""


SYSTEMD = Init("unit", "multi-user.target", look_at_unit, failed_units)
INITS = {
    "systemd": SYSTEMD,
    "s6": Init("service", "s6-svscan", look_at_s6, failed_s6),
    "openrc": Init("service", "runlevel default", look_at_openrc, failed_openrc),
}


def probe(url: str) -> str:
    """Ask for a URL; "" if it answers with 2xx or 3xx, else why not."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    try:
        with contextlib.closing(_connection(scheme, host)) as connection:
            headers = {"User-Agent": "pika-cloud-report"}
            connection.request("GET", slash + path or "/", headers=headers)
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{url}: {str(error) or type(error).__name__}"
    return "" if 200 <= status < 400 else f"{url}: status {status}"


def _connection(scheme: str, host: str) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, timeout=PROBE_S)
    import ssl

    # It is this machine that is asked: who signed its certificate does not matter.
    context = ssl._create_unverified_context()  # noqa: S323
    return http.client.HTTPSConnection(host, timeout=PROBE_S, context=context)


def tell_incus(state: str) -> None:
    """Tell Incus "Ready" or "Started". An Incus that is not there, or refuses, is no failure."""
    connection = UnixConnection(GUEST_API)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("PATCH", "/1.0", json.dumps({"state": state}))
        connection.getresponse().read()


def notify_systemd() -> None:
    """Let systemd start what waits for `booted`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            sock.send(b"READY=1")


def begin_anew(init: Init) -> None:
    """Let systemd's unit, if somebody starts it again, have this reported again."""
    if init is not SYSTEMD:
        return
    words = ["systemctl", "stop", "--no-block", SERVICE]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(words, stderr=subprocess.DEVNULL, timeout=30, check=False)


class Report:
    """The guest's records. Each is an event, and then the status: who sees a state finds in the
    log how it came about."""

    def __init__(self, helper: Any) -> None:
        self._helper = helper
        self._journal = helper.Journal(RUN)

    def tell(self, state: str, message: str, event: str, **details: Any) -> None:
        said = {"event": event, **{name: each for name, each in details.items() if each}}
        self._journal.append(state, message, said)
        self._journal.write_status(state, message, said)

    def state(self) -> str | None:
        """The state that this boot has told last."""
        try:
            with open(os.path.join(RUN, "status.json"), encoding="utf-8") as file:
                status = json.load(file)
            is_ours = status.get("boot_id") == self._helper.boot_id()
            return status["state"] if is_ours else None
        except (OSError, ValueError, KeyError, AttributeError):
            return None


def wait(
    look: Callable[[], tuple[str, str]], shown: str, url: str | None, within_s: float
) -> tuple[bool, str]:
    """Wait until it is active and the URL answers. Returns (whether they do, why)."""
    deadline = time.monotonic() + within_s
    pause_s = FIRST_PAUSE_S
    while True:
        verdict, why = look()
        if verdict == "failed":
            return False, f"{shown} failed: {why}"
        missing = f"{shown} is {why}"
        if verdict == "active":
            missing = probe(url) if url else ""
        if not missing:
            return True, f"{shown} is active" + (f", {url} answers" if url else "")
        if time.monotonic() >= deadline:
            return False, f"not ready within {within_s:g} s: {missing}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def boot(report: Report, rules: Mapping[str, Any]) -> None:
    """Tell how this boot goes."""
    init, url = INITS[rules.get("init") or "systemd"], rules.get("http")
    name = rules.get(init.key)
    if report.state() is None:  # else only the service was started again
        report.tell("booted", "the guest has booted", "guest.booted")
    notify_systemd()
    shown = name or init.whole
    what = {init.key: name, "http": url}
    report.tell("starting", f"waiting for {shown}", "guest.starting", **what)
    settle_s = 0 if url else SETTLE_S  # who answers runs
    within_s = float(rules.get("within_s") or 120)
    is_ready, why = wait(lambda: init.look(name, settle_s), shown, url, within_s)
    what["failed_units"] = init.failed()[:MAX_FAILED]
    if is_ready:
        report.tell("ready", why, "guest.ready", **what)
        tell_incus("Ready")
    else:
        report.tell("failed", why, "guest.failed", **what)
        begin_anew(init)


def failed(report: Report, rules: Mapping[str, Any]) -> None:
    """Tell that the service failed, if that is news: before it is ready, `boot` watches it. From
    systemd 254 on this is also called when Restart= is about to try once more: then it waits."""
    init = INITS[rules.get("init") or "systemd"]
    name = rules.get(init.key)
    verdict, why = init.look(name, 0)
    if report.state() == "ready" and verdict == "failed":
        shown = name or init.whole
        report.tell("failed", f"{shown} failed: {why}", "unit.failed", **{init.key: name})
        tell_incus("Started")
        begin_anew(init)


def main(argv: list[str]) -> int:
    """The command line. Returns 0; 1 if the records cannot be written; 2 for wrong arguments."""
    verbs = {"boot": boot, "failed": failed}
    if len(argv) != 1 or argv[0] not in verbs:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    helper = load_helper()
    with open(os.path.join(FOLDER, "report.json"), encoding="utf-8") as file:
        rules = json.load(file)
    try:
        verbs[argv[0]](Report(helper), rules)
    except (helper.LifecycleError, OSError) as error:
        sys.stderr.write(f"pika-cloud-report: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
