"""The build process: `python3 -m osbuild_pika.engine RECORDS_FD`, with an order on its input.

It is a process of its own, so that nothing of it is left however it ends, and its caller never
changes namespaces. Its exit status is the build's. `python3 -m osbuild_pika.engine chore` does
one of the chores of chores.py in the same way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from osbuild_pika import runs
from osbuild_pika.engine import chores, namespace, session
from osbuild_pika.engine.interrupts import Interrupts
from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard
from osbuild_pika.engine.order import Order
from osbuild_pika.engine.owner import Owner
from osbuild_pika.engine.records import Records
from osbuild_pika.engine.reporting import Reporting
from osbuild_pika.errors import ManifestError, PikaError
from osbuild_pika.host import ServiceManager

SERVICE_STOP_S = 15.0


def main() -> int:
    os.umask(0o022)  # what is made for stages is for nobody of the host: they must see it
    if sys.argv[1] == "chore":
        return chores.main()
    fd = int(sys.argv[1])
    order = Order.decode(sys.stdin.buffer.read())

    interrupts = Interrupts()

    records = Records(fd, interrupts)
    try:
        modules = standard(map(Path, order.libdirs))
        manifest = load(order.manifest.encode("utf-8", "surrogateescape"), modules)
        os.environ["OSBUILD_PIKA_RUNS"] = runs.root()  # before we are another root
        ids = namespace.become_root(namespace.find_ids())
        namespace.private_mounts()
        with ServiceManager(stop_timeout_s=SERVICE_STOP_S) as services:
            owner = Owner(services, order.run, {"manifest": order.name})
            out = Reporting(records.emit, owner)
            return session.run(
                session.Session(order, manifest, modules, owner, ids, interrupts), out
            )
    except PikaError as error:
        faults = [
            {"path": fault.path, "message": fault.message, "text": str(fault)}
            for fault in (error.faults if isinstance(error, ManifestError) else ())
        ]
        records.emit({"record": "refused", "message": str(error), "faults": faults})
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
