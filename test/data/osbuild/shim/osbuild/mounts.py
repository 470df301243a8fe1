"""Mounts."""

from __future__ import annotations

from typing import Any

from . import host


class MountService(host.Service):
    def mount(self, args: Any) -> str | None:
        raise NotImplementedError

    def umount(self) -> None:
        """Undo `mount`."""

    def stop(self) -> None:
        self.umount()

    def dispatch(self, name: str, args: Any, fds: Any) -> tuple[Any, Any]:
        if name == "mount":
            return self.mount(args), ()
        return super().dispatch(name, args, fds)
