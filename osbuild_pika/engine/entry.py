"""What the build process does, from its start to the order that it is given."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import NamedTuple

from osbuild_pika import runs, wire
from osbuild_pika.engine import namespace, owner
from osbuild_pika.engine.interrupts import Interrupts
from osbuild_pika.engine.order import Order
from osbuild_pika.engine.records import Records
from osbuild_pika.errors import ExitCode, ManifestError, PikaError
from osbuild_pika.host import ServiceClient, ServiceManager

SERVICE_STOP_S = 15.0


class Host(NamedTuple):
    """What is there before the manifest is read. service: the lifecycle's."""

    ids: namespace.Ids
    service: ServiceClient


def main() -> int:
    """Do what the arguments say, see __main__.py. Returns the exit status."""
    os.umask(0o022)  # what is made for stages is for nobody of the host: they must see it
    if sys.argv[1] == "chore":
        from osbuild_pika.engine import chores

        gc.enable()
        return chores.main()
    interrupts = Interrupts()
    records = Records(int(sys.argv[1]), interrupts)
    try:
        with ServiceManager(stop_timeout_s=SERVICE_STOP_S) as services:
            return _wait_and_build(services, records, interrupts)
    except PikaError as error:
        faults = [
            {"path": fault.path, "message": fault.message, "text": str(fault)}
            for fault in (error.faults if isinstance(error, ManifestError) else ())
        ]
        records.emit({"record": "refused", "message": str(error), "faults": faults})
        return error.exit_code


def _wait_and_build(services: ServiceManager, records: Records, interrupts: Interrupts) -> int:
    """Get ready, then take the order; without one nobody wants a build any more."""
    unfit: PikaError | None = None
    try:
        host = _prepare(services)
    except PikaError as error:
        unfit = error
    from osbuild_pika.engine import buildroot, schema, session
    from osbuild_pika.engine.known import Known
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.modules import standard
    from osbuild_pika.engine.reporting import Reporting

    if not _is_asked():
        buildroot.library()
    schema.prepare(standard(()).all("sources", "stages"), _is_asked)
    gc.freeze()  # modules stay: no collection, nor that of the exit, need look at them
    gc.enable()
    data = sys.stdin.buffer.read()
    if not data:
        return ExitCode.OK
    order = Order.decode(data)
    modules, known = standard(map(Path, order.libdirs)), Known(order.store)
    text = order.manifest.encode("utf-8", "surrogateescape")
    manifest = load(text, modules, known=known)
    if unfit is not None:  # what is wrong with the manifest came first
        raise unfit
    run = owner.Owner(host.service, order.run, {"manifest": order.name})
    work = session.Session(order, manifest, modules, run, host.ids, interrupts, known)
    return session.run(work, Reporting(records.emit, run))


def _is_asked() -> bool:
    """Whether the order is coming, or nobody is left to give one."""
    return bool(wire.readable([sys.stdin.fileno()], 0))


def _prepare(services: ServiceManager) -> Host:
    """Become root where nobody else sees it, and start the lifecycle service: it needs as long
    as what is still to be imported. Raises PikaError."""
    os.environ["OSBUILD_PIKA_RUNS"] = runs.root()  # before we are another root
    ids = namespace.become_root(namespace.find_ids())
    namespace.private_mounts()
    return Host(ids, owner.start(services))
