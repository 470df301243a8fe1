"""The way through, one function per arrow.

A manifest -> a plan; an order -> a build's records and end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbuild_pika.engine.order import Order
from osbuild_pika.errors import HostError, describe_status

if TYPE_CHECKING:
    from osbuild_pika.engine.manifest import Manifest

TICK_S = 0.2  # how often who looks on may redraw


@dataclass(frozen=True)
class Wanted:
    """What is asked about a manifest. name: what it is called. runs: the root of earlier runs."""

    name: str
    exports: tuple[str, ...]
    store: str
    runs: str


def plan_of(manifest: Manifest, wanted: Wanted, libdirs: tuple[Path, ...]) -> dict[str, Any]:
    """What a build would do, as engine/reasons.py says it. Reads only. Raises InputError."""
    from osbuild_pika.engine import hostroot, reasons
    from osbuild_pika.engine.modules import standard
    from osbuild_pika.engine.plan import plan
    from osbuild_pika.engine.session import default_exports
    from osbuild_pika.engine.store import lookup

    digests = hostroot.digests(manifest, standard(libdirs).get)
    exports = wanted.exports or default_exports(manifest)
    planned = plan(manifest, exports, digests, lookup(wanted.store))
    return reasons.describe(planned, wanted.name, reasons.earlier(wanted.runs, wanted.name))


def chore(name: str, store: str, **more: Any) -> dict[str, Any]:
    """Have a chore of engine/chores.py done; returns its answer. Raises HostError."""
    command = [sys.executable, "-m", "osbuild_pika.engine", "chore"]
    asked = json.dumps({"chore": name, "store": os.path.abspath(store), **more})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        raise HostError(f"{name}: {last or describe_status(done.returncode)}") from None
    if "error" in answer:
        raise HostError(answer["error"])
    return answer


def build(
    order: Order, take: Callable[[dict[str, Any]], None], tick: Callable[[], None] = lambda: None
) -> int:
    """Build in a process of its own; returns its exit code (errors.ExitCode).

    take: is given each record (see monitor.py). tick: is called several times a second.
    SIGINT and SIGTERM are the build's to handle while it runs: it ends what it does, and says so.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "osbuild_pika.engine", str(writing)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,))
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # A terminal's Ctrl-C reaches the build by itself.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        if process.stdin:
            process.stdin.write(order.encode())
            process.stdin.close()
        with open(reading, "rb", buffering=0) as pipe:
            _relay(pipe.fileno(), take, tick)
        return process.wait()
    except BaseException:
        process.terminate()  # our end of the records is closed, too
        process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _relay(fd: int, take: Callable[[dict[str, Any]], None], tick: Callable[[], None]) -> None:
    rest = b""
    while True:
        if select.select([fd], [], [], TICK_S)[0]:
            data = os.read(fd, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                take(json.loads(line))
        tick()
