"""Inputs."""

from __future__ import annotations

from . import host


class InputService(host.Service):
    def unmap(self) -> None:
        """Undo `map`."""

    def stop(self) -> None:
        self.unmap()
