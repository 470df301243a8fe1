"""Layer L4 for the lifecycle service: power losses while its clients and its owner write.

The same rounds as in powercut.py, in which the engine is the first process of the namespaces, and
the runs' root is on the disk that loses its power.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crash import Crashed, Mark, aftermath, oracle, powercut, talks, workers
from crash.serving import NODE, SERVICE, Client, Owner, Service, variant
from crash.workers import RUN

CLIENTS = tuple(f"client.{number}.0" for number in range(8))
CREWS = ((*CLIENTS, "owner.8.0"), (*CLIENTS, "ender.8.0"))


def lose(
    root: Path, names: Sequence[str], program: Sequence[str]
) -> tuple[list[Mark], powercut.Loss]:
    """Let callers of a service write, and cut the power. Returns what was asked for and acked."""
    with tempfile.TemporaryDirectory() as name:
        devices = Path(name)
        service = Service(root, program)
        try:
            begun = talks.begin(service)
            for each in CLIENTS:
                service.open(devices / each)

            def open_writer(worker: str) -> workers.Writer:
                is_client = workers.role(worker) == "client"
                return Client(devices / worker / NODE) if is_client else Owner(service.connection)

            with workers.Fleet(open_writer) as fleet:
                for each in names:
                    fleet.start(each)
                marks, loss = cut(root, fleet, service, names)
        finally:
            service.kill()
    return [*begun, *marks], loss


def cut(
    root: Path, fleet: workers.Fleet, service: Service, names: Sequence[str]
) -> tuple[list[Mark], powercut.Loss]:
    powercut.moment(fleet, ends=any(workers.role(name) == "ender" for name in names))
    position = fleet.position
    powercut.cut_power(root.parent)
    service.kill()
    for name in fleet.names:
        fleet.kill(name)
    before, after = fleet.report(0, position), fleet.report(position)
    # What was acknowledged behind `position` may have been so before the power went, or after.
    faults = tuple(oracle.Fault(oracle.REFUSED, error) for error in before.errors)
    in_flight = len(before.asked) + len(after.asked) - len(before.acked)
    loss = powercut.Loss(faults, len(before.acked), in_flight, False)
    marks: list[Mark] = [*before.marks, *after.asked]
    return [*marks, Crashed()], loss


def play(directory: Path, file_system: str, option: str, crew: Sequence[str]) -> powercut.Loss:
    """One power loss on a new file system. crew: of workers; or the name of a variant."""
    program = SERVICE if len(crew) > 1 else variant(crew[0])
    names = crew if len(crew) > 1 else CREWS[0]
    image, disk = powercut.new_disk(directory, file_system)
    root = disk / "runs"
    with powercut.mounted(image, disk, option):
        marks, loss = lose(root, names, program)
    with powercut.mounted(image, disk, option):
        log = oracle.look(root / RUN).log or b"\n"
        faults = aftermath.go_on(root, marks)
    return replace(loss, faults=(*loss.faults, *faults), is_torn=not log.endswith(b"\n"))


main = functools.partial(powercut.play_rounds, play, CREWS)
