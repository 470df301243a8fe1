"""Small services over real sockets, for what runs inside the sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pytest

from osbuild_pika import wire

PACKAGE = Path(__file__).parents[1]
PYTHONS = ["python3.9", sys.executable]
if TYPE_CHECKING:
    Answer = Callable[[wire.Method, int], wire.Message | bytes | None]


def interpreter(name: str) -> str:
    """The path of a Python that runs; skips the test if there is none."""
    found = shutil.which(name)
    if not found or subprocess.run([found, "-c", ""], check=False).returncode:
        pytest.skip(f"{name} is not installed")
    return found


def acknowledge(call: wire.Method, number: int) -> wire.Message:
    """Answer as the lifecycle service does when all is well."""
    replies = {
        "events": {"first": number, "last": number + len(call.args.get("items", [])) - 1},
        "flush": {"durable_seq": number},
        "result": {},
    }
    return wire.Reply(replies.get(call.name, {"seq": number}))


class Peer:
    """A service in threads. `calls` is what it was asked, in order, as (name, args).

    answer: (call, its number from 1) -> a message, raw bytes, or None to hang up.
    """

    def __init__(self, path: Path, answer: Answer = acknowledge) -> None:
        self.path = str(path)
        self.calls: list[tuple[str, Any]] = []
        self.sizes: list[int] = []
        self.connections = 0
        self._answer = answer
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.at_directory(str(path.parent), path.name, self._listener.bind)
        self._listener.listen()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end()
        for thread in self._threads:
            thread.join(10)

    def end(self) -> None:
        """Die: nobody is answered any more."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)

    def named(self, name: str) -> list[Any]:
        """The arguments of all calls of a method."""
        return [args for method, args in self.calls if method == name]

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    sock = self._listener.accept()[0]
                except OSError:
                    return
                self.connections += 1
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        self._open.append(sock)
        connection = wire.Connection(sock, takes_fds=False)
        while self._serve_one(connection):
            pass
        self._open.remove(sock)
        sock.close()

    def _serve_one(self, connection: wire.Connection) -> bool:
        try:
            packet = (connection.receive() or (b"", []))[0]
            if not packet:
                return False
            call = wire.decode(packet)
            assert isinstance(call, wire.Method)
            self.sizes.append(len(packet))
            self.calls.append((call.name, call.args))
            answer = self._answer(call, len(self.calls))
            if answer is None:
                return False
            connection.send(answer if isinstance(answer, bytes) else wire.encode(answer))
        except OSError:
            return False
        return True


class Engine:
    """The engine's API socket: takes packets and never answers."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.at_directory(str(path.parent), path.name, self._listener.bind)
        self._listener.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def packets(self) -> list[Any]:
        """What was sent by processes that have ended."""
        self._listener.settimeout(0)
        found: list[Any] = []
        while True:
            try:
                sock = self._listener.accept()[0]
            except BlockingIOError:
                return found
            with sock:
                found.append(json.loads(sock.recv(1 << 20)))


def environment() -> dict[str, str]:
    """What a stage has of it, with our package instead of the sandbox's."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE), "LC_CTYPE": "C.UTF-8"}
