"""How a stage reports: events, progress, artifacts and its result, sent to the lifecycle device.

Reporting never fails a build. What the device's service refuses, and its loss, is said once on
standard error and the stage goes on; without the device nothing is sent, which is said once too,
so a stage runs everywhere. report.py is the same for a shell.
"""

from __future__ import annotations

import _socket as socket
import _thread
import errno
import os
import struct
import time

from osbuild_pika import wire
from osbuild_pika.lifecycle import read_json

TYPE_CHECKING = False  # spares a shell stage 5 ms per event
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Union

    StrPath = Union[str, bytes, os.PathLike[str]]
    Number = Union[int, float]

DEVICE = "/dev/osbuild-pika-lifecycle"
TREE = "/run/osbuild/tree"
ARGUMENTS = "/run/osbuild/api/arguments"
NO_DEVICE = "this stage has no lifecycle device: what it reports goes nowhere"
GONE = "the lifecycle service is gone"
MAX_MESSAGE = 16 * 1024  # bytes of UTF-8; what is longer is cut
MAX_PACKET = 128 * 1024
PROGRESS_INTERVAL_S = 0.1
ANSWER_TIMEOUT_S = 60  # an answer means synced: slow disks and the lock of others take time

_monotonic = time.monotonic


class Reporter:
    """Sends what a stage tells to the lifecycle service, one call and one answer at a time.

    When a call returns a seq, the event is durable. None: it was refused or lost (said once per
    error on standard error, never raised) or there is no device. Only a message that is no string
    raises TypeError: that is a bug of the stage. Text is made safe: a lone surrogate becomes
    \\udcxx, and a message longer than 16 KiB is cut.

    May be used by several threads, and by a forked child, which gets its own connection.
    """

    def __init__(self, reply: Mapping[str, Any] | None, tree: str = TREE) -> None:
        """reply: what the device gave for the stage's arguments; None: there is no device."""
        reply = reply or {}
        self.errors: list[str] = []  # names of what went wrong and was said
        self.has_result = False  # whether the stage told its result
        self._path: str | None = reply.get("path")  # None: nothing can be sent (any more)
        self._limit = min(reply.get("limits", {}).get("packet", MAX_PACKET), MAX_PACKET)
        self._tree = tree
        self._connection: wire.Connection | None = None
        self._lock = _thread.RLock()
        self._held: tuple[Any, ...] | None = None  # progress that is not sent yet
        self._next = 0.0  # when progress may be sent again
        os.register_at_fork(after_in_child=self._after_fork)
        if self._path is not None:
            self._open()
        else:
            self._hang_up()
            why = reply.get("degraded")
            note(f"{NO_DEVICE} ({why})" if why else NO_DEVICE)

    @classmethod
    def connect(cls, path: str = DEVICE) -> Reporter:
        """Make a reporter for the device at `path`, which need not be there."""
        return cls({"path": path})

    @classmethod
    def from_devices(cls, devices: Mapping[str, Any], tree: str = TREE) -> Reporter:
        """Make a reporter for the lifecycle device among those of the stage's arguments."""
        for reply in devices.values():
            if (
                isinstance(reply, dict)
                and reply.get("api") == 1
                and ("degraded" in reply or "run" in reply)
            ):
                return cls(reply, tree)
        return cls(None, tree)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what a stage tells ----------------------------------------------------------------------

    def event(self, message: str, details: Any = None, name: str | None = None) -> int | None:
        """Report that something happened. name: its kind, such as "packages.installed"."""
        return _field(self._tell("event", _event(message, details, name)), "seq")

    def events(self, items: Iterable[Mapping[str, Any]]) -> int | None:
        """Report up to 256 events, all or none; returns the last seq. items: as of `event`."""
        return _field(self._tell("events", {"items": [_event(**item) for item in items]}), "last")

    def progress(
        self, done: Number, total: Number | None = None, unit: str = "", message: str | None = None
    ) -> int | None:
        """Report how far the work is; total None: unknown.

        May be called in a tight loop. At most 10 a second are sent, but the first and each with
        done == total at once. What was held back is sent before anything else is told, so the
        last word is true; a stage that works on without a word is shown where it was.
        """
        if _monotonic() < self._next and done != total:
            self._held = (done, total, unit, message)
            return None
        self._held = (done, total, unit, message)
        with self._lock:
            return self._release()

    def artifact(self, path: StrPath, message: str | None = None, **details: Any) -> int | None:
        """Report a file that the stage made. path: relative to the tree, or absolute below it."""
        place = os.fsdecode(path)
        if ".." not in place:  # the service refuses that, and what is not in short form
            place = os.path.normpath(place)
        if place.startswith(f"{self._tree}/"):
            place = place[len(self._tree) + 1 :]
        given = {"path": place, "details": details or None}
        if message is not None:
            given["message"] = clean(message, MAX_MESSAGE)
        return _field(self._tell("artifact", given), "seq")

    def result(
        self, status: str, message: str, exit_code: int | None = None, details: Any = None
    ) -> None:
        """Report how the stage ended: "completed" or "failed". stage.run does it by itself."""
        given: dict[str, Any] = {"status": status, "message": clean(message, MAX_MESSAGE)}
        if exit_code is not None:
            given["exit_code"] = exit_code
        if details is not None:
            given["details"] = details
        self.has_result = self._tell("result", given) is not None or self.has_result

    def flush(self) -> int | None:
        """Send held progress. Returns the last seq that is durable."""
        return _field(self._tell("flush", {}), "durable_seq")

    def close(self) -> None:
        """Send held progress and hang up; what is told later goes nowhere."""
        with self._lock:
            self._release()
            self._hang_up()

    # --- the connection --------------------------------------------------------------------------

    def _tell(self, method: str, args: dict[str, Any]) -> Any:
        with self._lock:
            self._release()
            return self._call(method, args)

    def _release(self) -> int | None:
        """Send the progress that was held back."""
        held, self._held = self._held, None
        if held is None or self._path is None:
            return None
        done, total, unit, message = held
        args = {"done": done, "total": total, "unit": unit}
        if message is not None:
            args["message"] = clean(str(message), MAX_MESSAGE)
        try:
            return _field(self._call("progress", args), "seq")
        finally:
            if self._path is not None:
                self._next = _monotonic() + PROGRESS_INTERVAL_S

    def _after_fork(self) -> None:
        """In a child: what was held back, and the answers that come, are its parent's."""
        self._lock = _thread.RLock()
        self._held = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._path is not None:
            self._next = 0.0

    def _call(self, method: str, args: dict[str, Any]) -> Any:
        """Call the service. Returns its reply; None if it refused, is lost or is not there."""
        if self._path is None:
            return None
        try:
            packet = _encode(method, args)
        except (TypeError, ValueError, RecursionError) as error:
            return self._say("InvalidArgument", f"{method}: {error}")
        if len(packet) > self._limit:
            text = f"{method}: {len(packet)} bytes; at most {self._limit} are taken"
            return self._say("TooLarge", text)
        try:
            answer = self._exchange(packet)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):  # never through a memfd
                return self._say("TooLarge", f"{method}: {error.strerror}")
            return self._lose(_describe(error))
        except wire.ProtocolError as error:
            return self._lose(str(error))
        if isinstance(answer, wire.Failure):
            return self._say(answer.name, f"{method}: {answer.value}")
        return answer.value

    def _exchange(self, packet: bytes) -> wire.Reply | wire.Failure:
        """Send a packet and wait for its answer. Raises OSError, ProtocolError.

        A connection with a call under way is nobody's: if a signal's handler raises here, the
        answer of this call must not be taken for that of the next one, which opens another.
        """
        connection, self._connection = self._connection or self._dial(), None
        try:
            connection.socket.send(packet, socket.MSG_NOSIGNAL)
            answer = _receive(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return answer

    def _open(self) -> None:
        try:
            self._connection = self._dial()
        except FileNotFoundError:
            self._hang_up()
            note(NO_DEVICE)
        except OSError as error:
            self._lose(_describe(error))

    def _dial(self) -> wire.Connection:
        connection = wire.Connection.connect(str(self._path))
        limit = struct.pack("@ll", ANSWER_TIMEOUT_S, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.socket.setsockopt(socket.SOL_SOCKET, option, limit)
        return connection

    def _lose(self, why: str) -> None:
        self._hang_up()
        self._say("Lost", f"{why}; what this stage reports from now on goes nowhere")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._path = None
        self._next = float("inf")

    def _say(self, name: str, text: str) -> None:
        if name not in self.errors:
            self.errors.append(name)
            note(f"{name}: {text}")


def _field(reply: Any, name: str) -> int | None:
    seq: int | None = reply.get(name) if isinstance(reply, dict) else None
    return seq


def _receive(connection: wire.Connection) -> wire.Reply | wire.Failure:
    while True:
        received = connection.receive()
        if received is None:
            raise wire.ProtocolError(GONE)
        wire.close_all(received[1])
        message = wire.decode(received[0])
        if isinstance(message, (wire.Reply, wire.Failure)):
            return message
        if isinstance(message, wire.Method):
            raise wire.ProtocolError("the lifecycle service sent a call")


def _describe(error: OSError) -> str:
    if error.errno == errno.EAGAIN:
        return f"the lifecycle service gave no answer for {ANSWER_TIMEOUT_S} s"
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return GONE
    return f"the lifecycle service cannot be reached: {error.strerror}"


def note(text: str) -> None:
    """Say something on standard error, in one line and one write."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))
    try:
        os.write(2, f"osbuild-pika: {shown[:1000]}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # there is nobody to tell


# --- values that can be sent ---------------------------------------------------------------------


def clean(text: Any, limit: int | None = None) -> str:
    """Text that can be sent: without lone surrogates, of at most `limit` bytes of UTF-8.

    Raises TypeError if it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{ascii(text)[:60]} is a {type(text).__name__}, not a string")
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _encode(method: str, args: Any) -> bytes:
    """Encode a call without lone surrogates. Raises what wire.encode raises."""
    packet = wire.encode(wire.Method(method, args))
    if b"\\ud" not in packet:
        return packet
    plain = read_json(packet.decode())["data"]["args"]  # without tuples, subclasses and cycles
    return wire.encode(wire.Method(method, _clean_all(plain)))


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _clean_all(item) for key, item in value.items()}
    return [_clean_all(item) for item in value] if isinstance(value, list) else value


def _event(message: str, details: Any = None, name: str | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {"message": clean(message, MAX_MESSAGE)}
    if details is not None:
        given["details"] = details
    if name is not None:
        given["name"] = name
    return given
