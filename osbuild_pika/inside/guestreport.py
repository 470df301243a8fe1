#!/usr/bin/python3
"""pika-cloud-report: tells the Incus host how far this guest is. Runs in the guest.

    pika-cloud-report boot     booted, starting, and then ready or failed
    pika-cloud-report failed   failed, if the unit failed after it was ready

report.json beside it says what ready means: the unit is active and the URL answers, within so
many seconds; without a unit multi-user.target stands for it. The records are written by the
helper that lies there, too: /run/pika-cloud/{status.json,events.jsonl}. Standard library only,
Python 3.9.
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FOLDER = os.environ.get("PIKA_CLOUD_LIB", "/usr/lib/pika-cloud")
RUN = os.environ.get("PIKA_CLOUD_RUN", "/run/pika-cloud")
GUEST_API = os.environ.get("PIKA_CLOUD_GUEST_API", "/dev/incus/sock")
SERVICE = "pika-cloud-report.service"
DEFAULT_UNIT = "multi-user.target"
PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result")
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


def judge(unit: Mapping[str, str]) -> tuple[str, str]:
    """What a unit's properties mean: "active", "waiting" or "failed", and why."""
    if unit.get("LoadState") not in ("loaded", None):
        return "failed", f"it is {unit['LoadState']}"
    state = unit.get("ActiveState", "unknown")
    if state in ("active", "reloading"):
        return "active", state
    if state == "failed":
        return "failed", unit.get("Result") or "it failed"
    return "waiting", f"{state} ({unit.get('SubState', 'unknown')})"


def properties(unit: str) -> dict[str, str]:
    """A unit's properties, as systemd has them now; {} if it does not say."""
    words = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", unit]
    try:
        said = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = [line.partition("=") for line in said.decode("utf-8", "replace").splitlines()]
    return {name: value for name, _, value in lines}


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


def begin_anew() -> None:
    """Let the unit, if somebody starts it again, have this reported again."""
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


def wait(unit: str, url: str | None, within_s: float) -> tuple[bool, str]:
    """Wait until the unit is active and the URL answers. Returns (whether they do, why)."""
    deadline = time.monotonic() + within_s
    pause_s = FIRST_PAUSE_S
    while True:
        verdict, why = judge(properties(unit))
        if verdict == "failed":
            return False, f"{unit} failed: {why}"
        missing = f"{unit} is {why}"
        if verdict == "active":
            missing = probe(url) if url else ""
        if not missing:
            return True, f"{unit} is active" + (f", {url} answers" if url else "")
        if time.monotonic() >= deadline:
            return False, f"not ready within {within_s:g} s: {missing}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def failed_units() -> list[str]:
    """The units that failed at this boot."""
    words = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend"]
    try:
        said = subprocess.run(words, stdout=subprocess.PIPE, timeout=30, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    lines = said.decode("utf-8", "replace").splitlines()
    return [line.split()[0] for line in lines if line.split()][:20]


def boot(report: Report, rules: Mapping[str, Any]) -> None:
    """Tell how this boot goes."""
    unit, url = rules.get("unit"), rules.get("http")
    if report.state() is None:  # else only the unit was started again
        report.tell("booted", "the guest has booted", "guest.booted")
    notify_systemd()
    shown = unit or DEFAULT_UNIT
    report.tell("starting", f"waiting for {shown}", "guest.starting", unit=unit, http=url)
    is_ready, why = wait(shown, url, float(rules.get("within_s") or 120))
    others = failed_units()
    if is_ready:
        report.tell("ready", why, "guest.ready", unit=unit, http=url, failed_units=others)
        tell_incus("Ready")
    else:
        report.tell("failed", why, "guest.failed", unit=unit, http=url, failed_units=others)
        begin_anew()


def failed(report: Report, rules: Mapping[str, Any]) -> None:
    """Tell that the unit failed, if that is news: before it is ready, `boot` watches it. From
    systemd 254 on this is also called when Restart= is about to try once more: then it waits."""
    unit = rules.get("unit") or DEFAULT_UNIT
    verdict, why = judge(properties(unit))
    if report.state() == "ready" and verdict == "failed":
        report.tell("failed", f"{unit} failed: {why}", "unit.failed", unit=unit)
        tell_incus("Started")
        begin_anew()


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
