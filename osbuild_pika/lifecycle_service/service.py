"""The service's loop: takes calls, groups what they write, and answers when it is durable.

One thread. All sockets that are ready are read, one packet each, until none is or MAX_READY are
read; the events in them are appended with one batch's two syncs; then all are answered. While the
sync runs the next packets collect in the sockets' buffers: a group commit without a timer. Whoever
does not make room for an answer is not read: that is the back-pressure.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import time
from collections import namedtuple

from osbuild_pika import devices, host, lifecycle, wire
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.lifecycle_service import authority, verdict
from osbuild_pika.lifecycle_service.opening import MAX_PACKET, NODE, QUOTA, Opening, Peer
from osbuild_pika.lifecycle_service.processes import engine_of
from osbuild_pika.lifecycle_service.record import Record, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

API = 1
MAX_PEERS = 256
MAX_READY = 64  # packets that are read before their events are written
LIMITS = {
    "packet": MAX_PACKET,
    "message": lifecycle.MAX_MESSAGE,
    "details": lifecycle.MAX_DETAILS,
    "items": authority.MAX_ITEMS,
    "stage": QUOTA,
}
_ENGINE_S = 0.02  # the end of file is seen before the engine's end is
_ENGINE_WITH_STAGE_S = 0.5
_DRAIN_S = 0.5  # for what clients have sent when their device is closed; some never stop

# A call whose events wait for the next batch.
Waiting = namedtuple("Waiting", "peer bodies kinds is_many")


class LifecycleService(host.Service):
    """Answers `open` as a device, and the calls of docs/reference/lifecycle-service.md."""

    def __init__(self, connection: wire.Connection, service_id: str) -> None:
        super().__init__(connection, service_id)
        self._engine = engine_of(connection.socket)
        self._record = Record(self._engine.pid)
        self._manager = Peer(connection, None)
        self._openings: list[Opening] = []
        self._waiting: list[Waiting] = []
        self._epoll = select.epoll()
        self._sources: dict[int, Peer | Opening] = {}

    def main(self) -> None:
        """Serve until the manager closes its end. Only that ends the service, no signal does."""
        import signal

        for number in (signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # we may lead a session already
            os.setsid()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        super().main()

    # --- the loop --------------------------------------------------------------------------------

    def serve(self) -> None:
        self._watch(self._manager)
        is_over = False
        taken = 0
        while not is_over:
            # Who wrote while the others were read is still in time for this batch.
            ready = self._epoll.poll(0 if self._waiting else None, MAX_READY)
            taken += len(ready)
            for fd, _ in ready:
                source = self._sources.get(fd)
                if isinstance(source, Peer) and source.waits:
                    self._commit()  # its answers come in the order of its calls
                if isinstance(source, Opening):
                    self._accept(source)
                elif source is self._manager:
                    is_over = not self._hear(source)
                elif source is not None and source.unsent:
                    self._give(source, source.unsent)
                elif source is not None:
                    self._hear(source)
            is_all = len(self._waiting) >= len(self._sources) - len(self._openings) - 1
            if is_over or not ready or is_all or taken >= MAX_READY:
                self._commit()
                taken = 0

    def _watch(self, source: Peer | Opening) -> None:
        self._sources[source.fileno()] = source
        self._epoll.register(source, select.EPOLLIN)

    def _accept(self, opening: Opening) -> Peer | None:
        peer = opening.accept()
        if peer is None:
            return None
        if len(self._sources) - len(self._openings) > MAX_PEERS:
            peer.connection.close()
            opening.clients.discard(peer)
        else:
            self._watch(peer)
        return peer

    def _part(self, peer: Peer) -> None:
        """Close a client's connection."""
        if peer.opening is not None and peer in peer.opening.clients:
            peer.opening.clients.discard(peer)
            self._epoll.unregister(peer)
            del self._sources[peer.fileno()]
            peer.connection.close()

    def _hear(self, peer: Peer) -> bool:
        """Take one packet. False if there is none: the connection has ended, and is closed."""
        try:
            received = peer.connection.receive()
            if received is None:
                self._part(peer)
                return False
            packet, fds = received
            wire.close_all(fds)
            message = wire.decode(packet, authority.READER)
            if not isinstance(message, wire.Method):
                raise wire.ProtocolError(f"unknown message type: {wire.kind_of(message)}")
            self._call(peer, message)
        except BlockingIOError:
            return False
        except ConnectionError:
            self._part(peer)
            return False
        except Exception as error:
            self._answer(peer, self._failure(error, peer))
        return True

    def _answer(self, peer: Peer, message: wire.Message) -> None:
        peer.waits = False
        self._give(peer, wire.encode(message))

    def _give(self, peer: Peer, packet: bytes) -> None:
        try:
            peer.connection.send(packet)
            is_sent = True
        except BlockingIOError:
            is_sent = False
        except OSError:
            is_sent = True  # it is gone; what it had said before still counts, and then its end
        if is_sent == bool(peer.unsent):
            peer.unsent = b"" if is_sent else packet
            self._epoll.modify(peer, select.EPOLLIN if is_sent else select.EPOLLOUT)

    def _failure(self, error: Exception, peer: Peer) -> wire.Failure:
        """What a peer is told of an error: a stage learns nothing of the host."""
        if isinstance(error, OSError):
            name = f"{lifecycle.printable(str(error.filename))}: " if error.filename else ""
            error = LifecycleError("IOFailed", f"{name}{error.strerror}")
        failure = host.failure_of(error)
        if peer.opening is None:
            return failure
        directory = os.path.join(self._record.run.directory, "")
        return failure._replace(value=failure.value.replace(directory, ""), backtrace="")

    # --- events of many calls, in one batch ------------------------------------------------------

    def _write(self, peer: Peer, call: wire.Method) -> None:
        """Have the events of a call wait for the next batch."""
        record, opening = self._record, peer.opening
        if opening is None:
            events = authority.owner_events(call.name, call.args, record.run.id)
        else:
            events = authority.stage_events(call.name, call.args, opening.stage, record.run.id)
        is_new_kind = opening is None and any(event.kind for event in events)
        if is_new_kind:  # it may be refused for its order: nobody else's events shall be with it
            self._commit()
        bodies, kinds = record.encode(events)
        if opening is not None:
            record.charge(opening, size_of(bodies))
        self._waiting.append(Waiting(peer, bodies, kinds, call.name == "events"))
        peer.waits = True
        if is_new_kind:
            self._commit()

    def _commit(self) -> None:
        """Write what waits, in batches, and answer each call."""
        while self._waiting:
            batch, self._waiting = part_batch(self._waiting)
            try:
                bodies = [body for waiting in batch for body in waiting.bodies]
                kinds = [kind for waiting in batch for kind in waiting.kinds]
                seq = self._record.append(bodies, kinds)
            except Exception as error:
                self._refuse(batch, error)
                continue
            for waiting in batch:
                last = seq + len(waiting.bodies) - 1
                span = {"first": seq, "last": last} if waiting.is_many else {"seq": last}
                self._answer(waiting.peer, wire.Reply(span))
                seq = last + 1

    def _refuse(self, batch: Sequence[Waiting], error: Exception) -> None:
        for waiting in batch:
            if waiting.peer.opening is not None:
                waiting.peer.opening.used -= size_of(waiting.bodies)
            self._answer(waiting.peer, self._failure(error, waiting.peer))

    # --- calls -----------------------------------------------------------------------------------

    def _call(self, peer: Peer, call: wire.Method) -> None:
        """Answer a call, now or when its events are durable. Raises what becomes its answer."""
        authority.check_method(call.name, peer.opening is None, self._record.has_owner)
        if call.name in authority.WRITING:
            self._write(peer, call)
            return
        self._commit()  # what came before is durable before this is done
        if peer.opening is None:
            reply = self._manager_call(call.name, call.args)
        elif call.name == "result":
            self._record.stage_result(call.args, peer.opening)
            reply = {}
        else:
            reply = {"durable_seq": self._record.last_seq}
        self._answer(peer, wire.Reply(reply))

    def _manager_call(self, name: str, args: Any) -> Any:
        if name == "open":
            return self._open(*devices.open_arguments(args))
        if name == "close":
            return self._close(args)
        if name == "own":
            return self._record.own(args)
        if name == "status":
            self._record.status(*authority.status_of(args))
        if name == "result":
            self._record.finish(*authority.result_of(args))
        return {"durable_seq": self._record.last_seq} if name == "flush" else {}

    def _open(self, devpath: str, parent: str | None, tree: str, options: Any) -> Any:
        """Open a stage's device. Without an owner it must not fail: upstream would crash."""
        try:
            stage = authority.stage_of(options)
            self._record.hold_for(stage)
            opening = Opening(devpath, stage)
        except (LifecycleError, OSError) as error:
            if self._record.has_owner:
                raise
            why = self._failure(error, self._manager).value
            say(f"no lifecycle is kept: {why}")
            return {"api": API, "degraded": why}
        self._openings.append(opening)
        self._watch(opening)
        run = self._record.run
        return {
            "path": NODE,
            "api": API,
            "run": run.id,
            "limits": LIMITS,
            "recovered": run.recovered,
        }

    def _close(self, args: Any) -> dict[str, Any]:
        """Close the device whose socket is named, or all; what was sent to it still counts."""
        (path,) = authority.take("close", args or {}, (), ("path",))
        result = None
        for opening in [each for each in self._openings if path in (None, each.path)]:
            self._drain(opening, time.monotonic() + _DRAIN_S)
            result = opening.result
            self._remove(opening)
        return {"seq": self._record.last_seq, "result": result}

    def _drain(self, opening: Opening, deadline: float) -> None:
        """Take what clients have sent before now, up to a limit for who never stops."""
        while time.monotonic() < deadline and self._accept(opening) is not None:
            pass
        for peer in list(opening.clients):
            while not peer.unsent and time.monotonic() < deadline and self._hear(peer):
                pass
        self._commit()

    def _remove(self, opening: Opening) -> None:
        for peer in list(opening.clients):
            self._part(peer)
        self._epoll.unregister(opening)
        del self._sources[opening.fileno()]
        self._openings.remove(opening)
        opening.close()

    # --- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """The manager has closed its end, or is dead: write what only we are left to say."""
        deadline = time.monotonic() + _DRAIN_S  # for all: the run's end waits for it
        for opening in self._openings:
            self._drain(opening, deadline)
        if not self._record.has_ended():
            self._last_words()
        for opening in list(self._openings):
            self._remove(opening)

    def _last_words(self) -> None:
        stages = [opening.seen() for opening in self._openings]
        is_stage_alive = any(seen.sandbox == "alive" for seen in stages)
        is_ending = self._engine.is_ending()
        wait_s = _ENGINE_WITH_STAGE_S if is_ending or is_stage_alive else _ENGINE_S
        has_ended = self._engine.has_ended(wait_s) or is_ending
        status = self._engine.exit_status() if has_ended else None
        words, end = verdict.judge(self._record.has_owner, has_ended, status, stages)
        for word in words:
            self._try(self._record.word, self._openings[word.index].stage, *word[1:])
        if end is not None:
            self._try(self._record.end, end)
            say(end.message)

    def _try(self, action: Callable[..., None], *args: Any) -> None:
        """Do one of the last things; the next is tried whatever becomes of it."""
        try:
            action(*args)
        except (LifecycleError, OSError) as error:
            say(f"the end of the run is not whole: {self._failure(error, self._manager).value}")


def say(line: str) -> None:
    """Print a whole line with one write; there may be nobody left to read it."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode(errors="replace"))


def part_batch(waiting: Sequence[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Part what waits into the next batch, of MAX_BATCH bytes or less, and the rest."""
    size = 0
    for index, each in enumerate(waiting):
        size += size_of(each.bodies)
        if size > lifecycle.MAX_BATCH and index:
            return list(waiting[:index]), list(waiting[index:])
    return list(waiting), []
