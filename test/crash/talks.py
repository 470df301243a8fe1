"""Scripted conversations with a lifecycle service, and what it acknowledged in them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash import Acked, Asked, Batch, Crashed, Event, Finish, Mark, Result, Status, Work, aftermath
from crash.serving import Owner, Service, answer, call, closing, connect, send
from crash.workers import OWNERS, RUN, STAGES
from osbuild_pika import runs, wire
from osbuild_pika.lifecycle import Journal, LifecycleError

STOPPED_S = 10.0  # in which a signal reaches a process


@dataclass
class Talk:
    """A conversation. marks: of what was asked for and acknowledged so far.

    kind: the state that the run is in, as far as the service said. refused: names of errors.
    """

    service: Service
    directory: Path  # `runs` is below it, and the devices
    marks: list[Mark] = field(default_factory=list)
    kind: str = "requested"
    refused: list[str] = field(default_factory=list)

    def ask(self, connection: wire.Connection, method: str, args: Any, *works: Work) -> Any:
        """Make a call. Returns the reply, None if it is refused. Raises Gone."""
        self.marks += map(Asked, works)
        send(connection, method, args)
        return self.take(connection, *works)

    def take(self, connection: wire.Connection, *works: Work) -> Any:
        try:
            reply = answer(connection)
        except LifecycleError as error:
            self.refused.append(error.name)
            self.marks += map(Crashed, works)
            return None
        if "degraded" in reply:
            self.marks += map(Crashed, works)
            return None
        seq = reply.get("first", reply.get("seq"))
        self.marks += [Acked(work, seq or self.seq_of(work)) for work in works]
        return reply

    def seq_of(self, work: Work) -> int:
        """The seq of what was just acknowledged; 0, which is no event's, if it is not there."""
        first = work.events[0] if isinstance(work, Batch) else work
        event = first.event if isinstance(first, Finish) else first
        if not isinstance(event, Event):
            return 0
        log = aftermath.log_of(self.directory / "runs" / RUN)
        known = [(each["kind"], each["message"], each["seq"]) for each in log]
        return next((seq for *head, seq in known if head == [event.kind, event.message]), 0)

    # --- calls that scripts share ----------------------------------------------------------------

    def manager(self, method: str, args: Any, *works: Work) -> Any:
        return self.ask(self.service.connection, method, args, *works)

    def own(self) -> bool:
        """Own the run; only a new one is accepted, and one without a status gets one."""
        details = {"manifest": "m", "event": "build.accepted", **OWNERS}
        run = self.directory / "runs" / RUN
        works: tuple[Work, ...] = ()
        if not run.exists():
            works = tuple(form("requested", "accepted", details) for form in (Event, Status))
        elif not (run / "status.json").exists():
            works = (Status(aftermath.log_of(run)[-1]["kind"], "going on", OWNERS),)
        args = {"run": RUN, "facts": {"manifest": "m"}}
        return self.manager("own", args, *works) is not None

    def open(self, *works: Work, **options: Any) -> Path | None:
        """Open a device. Returns its socket, None if it is refused."""
        devpath = self.directory / "dev"
        devpath.mkdir()
        stage = {name: STAGES[name] for name in ("pipeline", "stage", "stage_id")}
        args = {"dev": str(devpath), "tree": "/", "parent": None, "options": {**stage, **options}}
        reply = self.manager("open", args, *works)
        return devpath / reply["path"] if reply else None

    def status(self, state: str, message: str) -> None:
        args = {"state": state, "message": message}
        if self.manager("status", args, Status(state, message, OWNERS)) is not None:
            self.kind = state

    def event(self, message: str) -> None:
        args = {"message": message, "kind": self.kind}
        self.manager("event", args, Event(self.kind, message, OWNERS))

    def end(self) -> None:
        """The owner's result. If it is refused, the service writes its own when we leave."""
        details = {**OWNERS, "event": "build.completed"}
        args = {"status": "completed", "message": "all done"}
        if (
            self.manager("result", args, Finish(Result("completed", 0, "all done", details)))
            is None
        ):
            self.marks.append(Asked(aftermath.LEFT))

    def notes(self, connection: wire.Connection, *messages: str) -> tuple[Any, ...]:
        """The call for one or more events of a stage: for `together`, or `ask`."""
        items = [{"message": message} for message in messages]
        events = tuple(Event(self.kind, message, STAGES) for message in messages)
        if len(items) == 1:
            return connection, "event", items[0], events[0]
        return connection, "events", {"items": items}, Batch(events)

    def together(self, *calls: tuple[Any, ...]) -> None:
        """Make calls that the service finds all at once: one batch."""
        for connection, *_ in calls:
            call(connection, "flush", {})  # now it is accepted
        pid = peer_of(calls[0][0])
        wait_for_state(pid, "S")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for_state(pid, "tT")
            for connection, method, args, work in calls:
                self.marks.append(Asked(work))
                send(connection, method, args)
        finally:
            os.kill(pid, signal.SIGCONT)
        for connection, _, _, work in calls:
            self.take(connection, work)

    def stage_result(self, connection: wire.Connection, message: str, *more: Work) -> bool:
        """Whether it is taken."""
        details = {**STAGES, "event": "stage.finished", "exit_code": 0}
        args = {"status": "completed", "message": message}
        works = (Event(self.kind, message, details), *more)
        return self.ask(connection, "result", args, *works) is not None


def begin(service: Service) -> list[Mark]:
    """Own a new run and bring it to `ready`, the kind of all that workers.py has written."""
    accepted = Event("requested", "accepted", {**OWNERS, "event": "build.accepted"})
    go = Status("ready", "go", OWNERS)
    seq = service.own()["seq"]
    Owner(service.connection).write_status(go.state, go.message, None)
    return [Asked(accepted), Acked(accepted, seq), Asked(go), Acked(go)]


def peer_of(connection: wire.Connection) -> int:
    raw = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[0])


def wait_for_state(pid: int, wanted: str) -> None:
    """Wait until a process sleeps, or is stopped: the letters of proc(5)."""
    deadline = time.monotonic() + STOPPED_S
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in wanted:
            return
        time.sleep(0.001)
    raise TimeoutError(f"process {pid} is not in a state of {wanted}")


# --- scripts --------------------------------------------------------------------------------------


def driven(talk: Talk) -> None:
    """An engine of ours drives a build of one stage, which has three clients."""
    if not talk.own():
        return
    talk.status("provisioning", "building")
    node = talk.open()
    if node:
        clients = [connect(node) for _ in range(3)]
        with closing(clients):
            one, two, three = clients
            talk.together(
                talk.notes(one, "one"), talk.notes(two, "two", "three"), talk.notes(three, "four")
            )
            talk.ask(*talk.notes(two, "five"))
            talk.stage_result(one, "the stage is done")
        talk.manager("close", {"path": str(node)})
    talk.event("exported")
    talk.end()


def left(talk: Talk) -> None:
    """An engine of ours goes without a result."""
    if talk.own():
        talk.status("provisioning", "building")
        talk.event("exported")
        talk.marks.append(Asked(aftermath.LEFT))


def upstream(talk: Talk) -> None:
    """Nobody owns the run: its final stage gives the result."""
    accepted, started = ({**OWNERS, "event": f"build.{word}"} for word in ("accepted", "started"))
    node = talk.open(
        Event("requested", "accepted", accepted),
        Status("requested", "accepted", accepted),
        Event("provisioning", "building", started),
        Status("provisioning", "building", started),
        Event(
            "provisioning",
            "the stage started",
            {**STAGES, "event": "stage.started", "source": "service"},
        ),
        final=True,
        run=RUN,
    )
    if node is None:
        return
    talk.kind = "provisioning"
    client = connect(node)
    with closing([client]):
        talk.ask(*talk.notes(client, "one"))
        details = {**STAGES, "event": "build.completed"}
        end = Finish(Result("completed", 0, "the stage is done", details))
        if not talk.stage_result(client, "the stage is done", end):
            talk.marks += map(Asked, interrupted(talk.kind))


def interrupted(kind: str) -> tuple[Work, ...]:
    """What the service says when we leave, who are alive: its final stage has no result."""
    message, source = "the stage was interrupted", {"event": "interrupted", "source": "service"}
    return (
        Event(kind, message, {**STAGES, **source, "exit_code": 130}),
        Finish(Result("failed", 130, message, {**OWNERS, **source})),
    )


# --- what a service finds -------------------------------------------------------------------------

TORN = b'{"schema_version": 1, "kind": "rea'
BEFORE = Event("requested", "before", OWNERS)


def nothing(_root: Path) -> list[Mark]:
    return []


def torn(root: Path) -> list[Mark]:
    """A service of this engine died in the middle of a write."""
    run = runs.join(str(root), RUN, runs.engine_of(os.getpid()))
    run.close()
    with Journal(run.directory) as journal:
        seq = journal.append(BEFORE.kind, BEFORE.message, BEFORE.details)
    with (root / RUN / "events.jsonl").open("ab") as log:
        log.write(TORN)
    (root / RUN / "events.jsonl.seq").write_bytes(b"+0000000000000000002\n")
    return [Asked(BEFORE), Acked(BEFORE, seq)]


@dataclass(frozen=True)
class Scene:
    """find: makes what the service finds in the runs' root. script: what is said to it."""

    name: str
    script: Callable[[Talk], None]
    find: Callable[[Path], Sequence[Mark]] = nothing


SCENES = (
    Scene("driven", driven),
    Scene("left", left),
    Scene("upstream", upstream),
    Scene("torn, then left", left, torn),
)
