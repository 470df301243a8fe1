"""Host services."""

from __future__ import annotations

from typing import Any

from osbuild_pika.host import Service as _Service
from osbuild_pika.wire import ProtocolError

__all__ = ["ProtocolError", "Service"]


class Service(_Service):
    """Upstream's names of the same things; a value is returned with descriptors or None."""

    @property
    def id(self) -> str:
        return self.service_id

    def dispatch(self, name: str, args: Any, fds: Any) -> tuple[Any, Any]:
        value, sent = super().dispatch(name, args, fds)
        return value, sent or ()

    def answer(self, packet: bytes, fds: Any) -> tuple[bytes, Any]:
        answer, sent = super().answer(packet, fds)
        return answer, sent or ()
