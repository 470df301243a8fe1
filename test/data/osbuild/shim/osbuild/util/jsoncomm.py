"""JSON over a seqpacket socket."""

from __future__ import annotations

import json
import socket
from typing import Any


class Socket:
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)

    def send(self, payload: Any, *, fds: list[int] | None = None) -> None:
        socket.send_fds(self._socket, [json.dumps(payload).encode()], fds or [])

    def recv(self) -> tuple[Any, list[int], None]:
        data, fds, _, _ = socket.recv_fds(self._socket, 1 << 20, 16)
        return json.loads(data), fds, None
