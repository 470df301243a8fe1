"""Holds processes by pidfd: their end can be seen whenever it was, and no pid is mistaken."""

from __future__ import annotations

import _socket as socket
import contextlib
import fcntl
import os
import select
import struct
import time

# _IOWR(0xFF, 11, struct pidfd_info), linux/pidfd.h: mask, cgroupid, 11 ids, exit_code.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_SO_PEERPIDFD = 77  # asm-generic/socket.h
_PF_EXITING = 0x4  # linux/sched.h
_REAPED_S = 0.25  # the exit status is there when the parent has reaped: a little after the end


class Process:
    """A process, alive or not. pid 0, or of nobody any more: one that has ended long ago."""

    def __init__(self, pid: int, fd: int = -1) -> None:
        """fd: a pidfd of it, which is ours from now on."""
        self.pid = pid
        self._fd = fd
        if fd < 0:
            with contextlib.suppress(OSError, OverflowError):
                self._fd = os.pidfd_open(pid)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended; waits for it so long."""
        if self._fd < 0:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def is_ending(self) -> bool:
        """Whether it has begun to end: its sockets are closed before it can be seen as ended.

        On a loaded machine its last thread may not get there for long.
        """
        if self.has_ended():
            return True
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                flags = int(file.read().rpartition(b")")[2].split()[6])
        except (OSError, ValueError, IndexError):
            return self.has_ended()
        return bool(flags & _PF_EXITING)

    def exit_status(self) -> int | None:
        """Its exit status in subprocess's form; None if the kernel (before 6.15) cannot tell."""
        deadline = time.monotonic() + _REAPED_S
        while self._fd >= 0:
            info = bytearray(struct.pack("=Q56x", _PIDFD_INFO_EXIT))
            try:
                fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
            except OSError:
                info = bytearray(64)
            mask, code = struct.unpack("=Q52xi", info)
            if mask & _PIDFD_INFO_EXIT:
                return os.waitstatus_to_exitcode(code)
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        return None


def peer_of(sock: socket.socket) -> int:
    """The pid of the process that made the other end; 0 if it is not in our pid namespace."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])


def engine_of(sock: socket.socket) -> Process:
    """The process that made the other end, or our parent if that is not in our pid namespace.

    It may have ended before we began: since Linux 6.16 its exit status is known even so.
    """
    pid = peer_of(sock)
    if not pid:
        return Process(os.getppid())
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, struct.calcsize("i"))
    except OSError:  # before Linux 6.5; ESRCH, EINVAL: before 6.16, and it has ended
        return Process(pid)
    return Process(pid, *struct.unpack("i", raw))


class Sandbox:
    """The pid namespace of a stage, held by the stage and by the namespace's first process.

    The stage's own exit status is what counts. That of the first process is worth little: who
    waits for it may be told of the stage's end, and gone, before it has ended itself.
    """

    def __init__(self, pid: int) -> None:
        """pid: any process in it."""
        first, stage = _ancestors(pid)
        self._first = Process(first)
        self._stage = Process(stage)

    @property
    def is_held(self) -> bool:
        """Whether its processes were found: who asks may be dead before it is looked for."""
        return self._first.is_held and self._stage.is_held

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        return self._stage.has_ended(timeout_s) or self._first.has_ended()

    def exit_status(self) -> int | None:
        """The stage's; None if it cannot be known."""
        return self._stage.exit_status()

    def close(self) -> None:
        self._first.close()
        self._stage.close()


def _ancestors(pid: int) -> tuple[int, int]:
    """The first process of the namespace below ours that `pid` is in, and its child above `pid`.

    Both are `pid` if that is in our namespace, or gone. A stage may make namespaces of its own,
    and a shell stage's clients are gone after each call: these two outlive all that.
    """
    above = child = pid
    while above > 1:
        parent, ids = _status(above)
        if len(ids) < 2:
            break
        if ids[1] == 1:
            return above, child
        above, child = parent, above
    return pid, pid


def _status(pid: int) -> tuple[int, list[int]]:
    """A process's parent, and its pids in its pid namespaces from ours inward."""
    parent, ids = 0, [pid]
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "PPid":
                    parent = int(value)
                elif name == "NSpid":
                    ids = [int(each) for each in value.split()]
    except OSError:
        return 0, [pid]
    return parent, ids
