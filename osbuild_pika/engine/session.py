"""From an order to the end of its run: whatever happens in between, the end is told."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from osbuild_pika import lifecycle
from osbuild_pika.engine import area, fetched, hostroot, reasons
from osbuild_pika.engine.build import Build, Export
from osbuild_pika.engine.interrupts import Interrupts
from osbuild_pika.engine.known import Known
from osbuild_pika.engine.manifest import Manifest, runners
from osbuild_pika.engine.modules import Modules
from osbuild_pika.engine.namespace import Ids, UserNamespace
from osbuild_pika.engine.order import Order
from osbuild_pika.engine.owner import Owner
from osbuild_pika.engine.plan import Plan, plan
from osbuild_pika.engine.reporting import Reporting, StageFailed
from osbuild_pika.engine.running import Limits
from osbuild_pika.engine.scratch import Scratch, run_inside, sweep
from osbuild_pika.engine.stagework import Desk
from osbuild_pika.engine.store import Access, Store
from osbuild_pika.errors import ExitCode, PikaError


class Session(NamedTuple):
    """What a build is made of, beside its order."""

    order: Order
    manifest: Manifest
    modules: Modules
    owner: Owner
    ids: Ids
    interrupts: Interrupts
    known: Known


def run(session: Session, out: Reporting) -> int:
    """Build, and end the run. Returns the exit code."""
    exports: list[Export] = []
    try:
        _build(session, out, exports)
        code, message, name = 0, _success(session.order, exports), "build.completed"
    except StageFailed as error:
        code, message, name = error.failure.exit_code, str(error), "build.failed"
        if error.failure.name != "stage.failed":
            name = error.failure.name
    except PikaError as error:
        code, message, name = error.exit_code, str(error), "build.failed"
    except Exception as error:
        out.build_finished(ExitCode.FAILED, f"a fault of osbuild-pika: {error!r}", "build.failed")
        raise
    if session.interrupts.number and code:
        code, name = session.interrupts.exit_code, "interrupted"
        message = f"interrupted by {session.interrupts.signal_name}"
    with contextlib.suppress(OSError):  # the end is told also where the disk is full
        _write_facts(session, out, exports)
    out.build_finished(int(code), message, name)
    return int(code)


def _success(order: Order, exports: Sequence[Export]) -> str:
    places = ", ".join(export.path for export in exports)
    return f"built {order.name}" + (f"; exported to {places}" if places else "")


def _build(session: Session, out: Reporting, exports: list[Export]) -> None:
    """Build. exports: gets those that are done."""
    order, owner = session.order, session.owner
    _write(owner.directory, "manifest.json", order.manifest)
    with contextlib.ExitStack() as stack:
        workspace = area.make_workspace()
        space = stack.enter_context(UserNamespace(session.ids))
        trees = workspace / "trees"
        trees.mkdir()
        access = Access(
            session.ids.base,
            lambda argv, cwd, fds=(): run_inside([*space.enter_argv(), *argv], cwd, tuple(fds)),
            str(trees),
        )
        store = Store(order.store, access, lambda line: out.service_output("store", "", line))
        session.known.keep()
        sweep(store)
        scratch = stack.enter_context(Scratch(store, owner.run, order.is_copied))
        digests = hostroot.digests(session.manifest, session.modules.get)
        wanted = default_exports(session.manifest) if order.exports is None else order.exports
        planned = plan(session.manifest, wanted, digests, scratch.have)
        _write_plan(session, planned)
        desk = _desk(session, space, workspace, out)
        work = Build(session.manifest, planned, scratch, desk, out)
        if order.output is not None:
            work.check_targets(order.output, order.is_forced)
        out.build_started(order.name, planned, _runners(session))
        with fetched.reading(store.sources):
            work.fetch()
            work.make()
        if order.output is not None:
            exports.extend(work.export(order.output, order.is_forced))
        if planned.has_work:  # else the store has not grown
            scratch.gc(order.max_bytes)


def _desk(session: Session, space: UserNamespace, workspace: Path, out: Reporting) -> Desk:
    return Desk(
        space,
        workspace,
        session.owner,
        Limits(session.order.total_s, session.order.idle_s),
        session.interrupts,
        session.order.term,
        session.modules.get,
        out.service_output,
    )


def _runners(session: Session) -> dict[str | None, str]:
    return runners(session.manifest, session.modules.host_runner())


def default_exports(manifest: Manifest) -> tuple[str, ...]:
    """What is built when nobody says: what the manifest's metadata name, else its last pipeline."""
    named = [each["name"] for each in manifest.metadata.get("exports", ())]
    return tuple(named or [each.name for each in manifest.pipelines[-1:]])


def _write_plan(session: Session, planned: Plan) -> None:
    """plan.json: what a later plan is compared with."""
    owner, name = session.owner, session.order.name
    earlier = reasons.earlier(os.path.dirname(owner.directory), name, owner.run)
    reasons.write(owner.directory, reasons.describe(planned, name, earlier))


def _write_facts(session: Session, out: Reporting, exports: Sequence[Export]) -> None:
    """build.json: what results.collect reads."""
    facts = {
        "schema_version": lifecycle.SCHEMA_VERSION,
        "run_id": session.owner.run,
        "manifest": session.order.name,
        "exports": [each._asdict() for each in exports],
        "stages": out.stages,
        "sources": out.sources,
    }
    _write(session.owner.directory, "build.json", json.dumps(facts, indent=2) + "\n")


def _write(directory: str, name: str, text: str) -> None:
    path = Path(directory, name)
    new = path.with_name(f".{name}.tmp")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
