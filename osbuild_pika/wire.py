"""osbuild's host-service messages: JSON documents in packets, with file descriptors beside them.

Upstream's format (v191): over an AF_UNIX SOCK_SEQPACKET socket go
`{"type": "method", "data": {"name": ..., "args": ...}}`, answered by
`{"type": "reply", "data": {"reply": ...}}` or
`{"type": "exception", "data": {"name": ..., "value": ..., "backtrace": ...}}`, before which any
number of `{"type": "signal", "data": {"reply": ...}}` may come. Descriptors travel by SCM_RIGHTS.
A document too large for a packet goes through a memfd: the packet is `<args-via-fd>` then, and
the memfd is the first descriptor.

First the pure half (bytes <-> values), below it the socket. Also used inside the sandbox, where
only this file, lifecycle.py and inside/ exist: standard library only.
"""

from __future__ import annotations

import _socket as socket  # what the module socket wraps: that one takes 5 ms to load
import array
import errno
import fcntl
import os
import select
import stat
from collections import namedtuple

from osbuild_pika.lifecycle import JsonReader, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

MAX_FDS = 253  # SCM_MAX_FD of the kernel
MAX_PAYLOAD = 64 * 1024 * 1024  # bytes of a document, through a packet or a memfd
VIA_FD = b"<args-via-fd>"
# As plain integers: an operation on the enumeration's members takes longer than a system call.
_PEEK = socket.MSG_PEEK | socket.MSG_TRUNC
_TAKE = socket.MSG_CMSG_CLOEXEC
_TAKE_AND_TELL = socket.MSG_CMSG_CLOEXEC | socket.MSG_TRUNC
_LOST_FDS = socket.MSG_CTRUNC
_NO_SIGNAL = socket.MSG_NOSIGNAL
_NOT_SET = -1.0  # whatever a socket's timeout was before

_READER = JsonReader()

Method = namedtuple("Method", "name args")
Reply = namedtuple("Reply", "value")
Signal = namedtuple("Signal", "value")
Failure = namedtuple("Failure", "name value backtrace")
Unknown = namedtuple("Unknown", "kind")  # of a type that upstream may add: clients skip it
if TYPE_CHECKING:
    Message = Method | Reply | Signal | Failure | Unknown


class ProtocolError(Exception):
    """What the peer sent is no message. The name is upstream's and travels over the wire."""


# --- bytes <-> values ----------------------------------------------------------------------------


def kind_of(message: Message) -> str:
    """The message's type on the wire."""
    if isinstance(message, Unknown):
        return str(message.kind)[:60]
    return "exception" if isinstance(message, Failure) else type(message).__name__.lower()


def encode(message: Message) -> bytes:
    """Encode a message, byte for byte as upstream does.

    Raises TypeError, ValueError or RecursionError if its values are not JSON.
    """
    data = {"reply": message.value} if isinstance(message, (Reply, Signal)) else message._asdict()
    return write_json({"type": kind_of(message), "data": data}).encode("ascii")


def decode(packet: bytes, reader: JsonReader = _READER) -> Message:
    """Decode one message; whatever the bytes are, the only error is ProtocolError.

    JSON is what Python reads: NaN, lone surrogates and keys that are given twice come through, as
    they do upstream. reader: what else it raises is raised.
    """
    try:
        document = reader.read(packet.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}"[:200]) from None
    if not isinstance(document, dict):
        raise ProtocolError("message is not an object")
    kind, data = document.get("type"), document.get("data")
    if not kind:
        raise ProtocolError("'type' field missing")
    if not isinstance(data, dict) or not data:
        raise ProtocolError("'data' field missing")
    if kind == "method":
        name = data.get("name")
        if not isinstance(name, str) or not name:
            raise ProtocolError("'name' field missing")
        return Method(name, data.get("args", []))
    if kind in ("reply", "signal"):
        if "reply" not in data:
            raise ProtocolError("'reply' field missing")
        return Reply(data["reply"]) if kind == "reply" else Signal(data["reply"])
    if kind == "exception":
        for field in Failure._fields:
            if not isinstance(data.get(field), str):
                raise ProtocolError(f"'{field}' field missing")
        return Failure(*(data[field] for field in Failure._fields))
    return Unknown(kind)


def require(method: str, arguments: Any, kinds: Mapping[str, Any]) -> None:
    """Look at a method's arguments. kinds: name -> what isinstance takes.

    Raises ProtocolError if they are no object, or one is missing or of another kind.
    """
    if not isinstance(arguments, dict):
        raise ProtocolError(f"the arguments of {method} are not an object")
    for name, kind in kinds.items():
        if not isinstance(arguments.get(name, ...), kind):
            raise ProtocolError(f"the argument {name} of {method} is missing or of a wrong type")


# --- the socket ----------------------------------------------------------------------------------


class Connection:
    """One end of a packet socket.

    limit: bytes of the largest document that is taken from the peer.
    takes_fds: whether descriptors are taken from the peer; those that are not are closed.
    buffer: of `limit` bytes, where packets are received; spares asking for the size of each.
    Connections of one thread may share it.
    """

    def __init__(
        self,
        sock: socket.socket,
        limit: int = MAX_PAYLOAD,
        takes_fds: bool = True,
        buffer: bytearray | None = None,
    ) -> None:
        self.socket = sock
        self._limit = limit
        self._takes_fds = takes_fds
        self._buffer = buffer
        self._timeout_s: float | None = _NOT_SET

    @classmethod
    def pair(cls) -> tuple[Connection, Connection]:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def connect(cls, path: str) -> Connection:
        """Connect to a listening socket; the path may have any length. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            at_directory(os.path.dirname(path), os.path.basename(path), sock.connect)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, payload: bytes, fds: Sequence[int] = (), timeout_s: float | None = None) -> None:
        """Send one document. The descriptors stay the caller's.

        Raises BlockingIOError if the peer does not make room in time, OSError (EPIPE or
        ECONNRESET when it is gone).
        """
        if timeout_s != self._timeout_s:
            self._set_timeout(timeout_s)
        if self._fits(payload, fds):
            return
        if len(payload) <= _largest_packet():
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(payload))
            if self._fits(payload, fds):
                return
        memfd = os.memfd_create("jsoncomm/payload", os.MFD_CLOEXEC)
        try:
            with open(memfd, "wb", closefd=False) as file:
                file.write(payload)
            os.lseek(memfd, 0, os.SEEK_SET)  # upstream reads on from here
            self._send(VIA_FD, (memfd, *fds))
        finally:
            os.close(memfd)

    def _set_timeout(self, timeout_s: float | None) -> None:
        seconds, rest = divmod(timeout_s or 0.0, 1.0)  # 0: for ever
        limit = array.array("l", [int(seconds), int(rest * 1e6) + (timeout_s is not None)])
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._timeout_s = timeout_s

    def _fits(self, packet: bytes, fds: Sequence[int]) -> bool:
        """Send the packet; False if it is too large for the socket, or for the kernel."""
        try:
            self._send(packet, fds)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            return False
        return True

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            self.socket.sendmsg([packet], rights, _NO_SIGNAL)
        else:
            self.socket.send(packet, _NO_SIGNAL)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Receive one document and its descriptors, which are the caller's to close.

        Returns None at the end. Raises ProtocolError if it is empty or too large, its memfd is
        none, or descriptors are not taken or were lost; the connection survives that, and no
        descriptor stays open. Raises OSError.
        """
        packet, rights, flags = self._take()
        fds = _descriptors(rights)
        if flags & _LOST_FDS:
            close_all(fds)
            why = "there are too many open here" if self._takes_fds else "they are not taken here"
            raise ProtocolError(f"descriptors were lost: {why}")
        if not packet:
            close_all(fds)
            if fds or not self._has_ended():
                raise ProtocolError("message empty")
            return None
        if packet == VIA_FD:
            return self._read_payload(fds)
        return packet, fds

    def _take(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        """Wait for a packet: (its bytes, control messages, flags); no bytes are also the end."""
        try:
            return self._take_once()
        except ConnectionResetError:  # said once, and before what the peer had sent till then
            return self._take_once()

    def _take_once(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        room = socket.CMSG_SPACE(MAX_FDS * 4) if self._takes_fds else 0
        if self._buffer is None:
            size = self.socket.recv_into(bytearray(1), 1, _PEEK)
            if size > self._limit:
                self.socket.recv(1)
                raise self._too_large(size)
            packet, rights, flags, _ = self.socket.recvmsg(max(size, 1), room, _TAKE)
            return packet, rights, flags
        size, rights, flags, _ = self.socket.recvmsg_into([self._buffer], room, _TAKE_AND_TELL)
        if size > self._limit:
            close_all(_descriptors(rights))
            raise self._too_large(size)
        return bytes(memoryview(self._buffer)[:size]), rights, flags

    def _too_large(self, size: int) -> ProtocolError:
        return ProtocolError(f"packet has {size} bytes; at most {self._limit}")

    def _has_ended(self) -> bool:
        """After an empty packet was read: whether that was the end. Both look the same."""
        import termios  # only here

        poll = select.poll()
        poll.register(self, select.POLLRDHUP)
        waiting = array.array("i", [0])
        fcntl.ioctl(self, termios.FIONREAD, waiting)
        return bool(poll.poll(0)) and waiting[0] == 0

    def _read_payload(self, fds: list[int]) -> tuple[bytes, list[int]]:
        if not fds:
            raise ProtocolError("descriptor of the payload is missing")
        memfd, rest = fds[0], fds[1:]
        try:
            return read_memfd(memfd, self._limit), rest
        except (ProtocolError, OSError) as error:
            close_all(rest)
            raise ProtocolError(f"payload: {error}") from None
        finally:
            os.close(memfd)


def read_memfd(fd: int, limit: int) -> bytes:
    """Read a payload from its start. Raises ProtocolError if it is too large or no file in
    memory, OSError if it cannot be read.

    The peer chose the descriptor: reading a pipe, or a file of a FUSE of its own, may never end.
    """
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        raise ProtocolError("not a memfd")
    fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # only files in memory have any: EINVAL
    if facts.st_size > limit:
        raise ProtocolError(f"{facts.st_size} bytes; at most {limit}")
    return os.pread(fd, facts.st_size, 0)


def at_directory(directory: str, name: str, action: Callable[[str], object]) -> None:
    """Call action(path) with a short path for directory/name: the address of a socket has at
    most 107 bytes, so a name of up to 80 bytes works in every directory. Raises OSError."""
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        action(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def readable(fds: Iterable[int], timeout_s: float | None = None) -> list[int]:
    """Wait until some of these descriptors can be read, or are at their end; returns those.

    timeout_s: None waits for ever. As select, which cannot take descriptors above 1,023.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


def _largest_packet() -> int:
    try:
        with open("/proc/sys/net/core/wmem_max", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 64000


def _descriptors(rights: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors; those that are closed already are left alone."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
