"""`osbuild-pika doctor`: can this host build, and if not, what is to be done?"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from osbuild_pika import runs
from osbuild_pika.cli import building
from osbuild_pika.engine.health import Check
from osbuild_pika.errors import ExitCode, HostError
from osbuild_pika.lifecycle_service.processes import Process
from osbuild_pika.text import one_line


@click.command()
@building.store
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def doctor(store: str, is_json: bool) -> None:
    """Look at what a build needs, and name what is missing with the way to get it.

    One line each: ok, note (a build works without it), or problem. What can be tried is tried: a
    user namespace, the sandbox in it, an overlay mount in the store. Runs whose processes are all
    dead get their end.

    Exits 0, 3 if this host cannot build.
    """
    from osbuild_pika.engine import health

    checks = [
        *health.programs(),
        health.debian(),
        *_tried(store),
        *health.places((("--store", store), ("OSBUILD_PIKA_RUNS", runs.root()))),
        *health.kernel(_can_tell_exits(), Path("/proc/filesystems").read_text(encoding="ascii")),
        _sealed(runs.seal_dead(runs.root())),
    ]
    found = [check.as_document() for check in checks]
    if is_json:
        click.echo(json.dumps({"checks": found}))
    else:
        for each in found:
            fix = f"; fix: {each['fix']}" if each["fix"] else ""
            click.echo(one_line(f"{each['state']:<8} {each['name']:<18} {each['text']}{fix}"))
    if any(each["state"] == "problem" for each in found):
        click.get_current_context().exit(ExitCode.HOST_NOT_FIT)


def _tried(store: str) -> list[Check]:
    from osbuild_pika import pipeline
    from osbuild_pika.engine import health

    try:
        answer = pipeline.chore("probe", store)
    except HostError as error:
        answer = {"root": str(error)}
    return health.tried(answer, health.read_switch)


def _sealed(ended: Sequence[str]) -> Check:
    names = f": {', '.join(ended)}" if ended else ""
    return Check("runs", f"{len(ended)} ended that had died{names}")


def _can_tell_exits() -> bool:
    """Whether the kernel tells the exit status of a process that has been reaped."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    process = Process(pid)
    os.waitpid(pid, 0)
    try:
        return process.exit_status() == 7
    finally:
        process.close()
