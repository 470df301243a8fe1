"""The process of one workitem: `python3 -m osbuild_pika.participant RECORDS_FD`.

Its input is one line, an order ({"site": ..., "workitem": ...}), and then nothing until its end:
when whoever started it is gone, so is its work. It writes a line a record: {"status", "fields"},
and at the end {"workitem", "code"}. SIGTERM cancels the request; SIGINT ends the process alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from osbuild_pika.errors import ExitCode
from osbuild_pika.participant import workitem as workitems
from osbuild_pika.participant.build import (
    CancelledError,
    Convert,
    StoppedError,
    convert,
    perform,
)
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Outcome


def main(fd: int, front_end: Convert = convert) -> int:
    """Do the order on stdin. Returns the exit code: 0 if there is an answer."""
    os.umask(0o022)  # what is published is for everybody
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(signal.SIGINT, _stop)
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_input, daemon=True).start()

    def write(record: dict[str, Any]) -> None:
        os.write(fd, json.dumps(record).encode() + b"\n")

    def tell(status: str, fields: dict[str, Any]) -> None:
        write({"status": status, "fields": fields})

    workitem = order["workitem"]
    try:
        outcome = perform(workitem, Site(**order["site"]), tell, front_end)
    except CancelledError:  # before anything was begun
        outcome = Outcome(ExitCode.TERMINATED, "cancelled", lines=("cancelled",))
        tell("ERROR", workitems.told(workitems.answer(workitem, outcome)))
    except StoppedError:
        return ExitCode.INTERRUPTED
    write({"workitem": workitems.answer(workitem, outcome), "code": int(outcome.code)})
    return ExitCode.OK


def _cancel(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what it has to end in order is not disturbed
    raise CancelledError


def _stop(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise StoppedError


def _watch_input() -> None:
    """End this process when its input ends."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
