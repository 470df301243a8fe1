"""The engine's side of its run: tells the lifecycle service what happens, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import HostError, PikaError, RemoteError
from osbuild_pika.host import ServiceClient, ServiceManager

DEVICE = "org.osbuild-pika.lifecycle"
CALL_TIMEOUT_S = 60.0  # an answer means synced
MOST = 64  # events of one call: a batch of the lifecycle has 256 KiB at most
MAX_MESSAGE = 4000  # characters


def start(services: ServiceManager) -> ServiceClient:
    """Start the lifecycle service; it does nothing until it is asked. Raises HostError."""
    return services.start(f"device/{DEVICE}", str(data_folder("devices") / DEVICE))


class Owner:
    """One run, owned. service: see start. Raises HostError if the run cannot be had: then nothing
    has run."""

    def __init__(self, service: ServiceClient, name: str, facts: Mapping[str, Any]) -> None:
        self._client = service
        try:
            held = self._call("own", {"run": name, "facts": dict(facts)})
        except RemoteError as error:
            raise HostError(f"the run cannot be recorded: {error.value}") from None
        self.run: str = held["run"]
        self.directory: str = held["directory"]

    def _call(self, method: str, args: Mapping[str, Any]) -> Any:
        return self._client.call(method, dict(args), timeout_s=CALL_TIMEOUT_S)

    def begin(self, message: str) -> None:
        """From now on there is work."""
        self._call("status", {"state": "provisioning", "message": message})

    def tell(self, name: str, message: str, **details: Any) -> None:
        """Report one event, durably."""
        self.tell_all([event(name, message, **details)])

    def tell_all(self, events: list[dict[str, Any]]) -> None:
        """Report events (made by `event`) in one go. None is fine."""
        for first in range(0, len(events), MOST):
            self._call("events", {"items": events[first : first + MOST]})

    def open(self, devpath: str, tree: str, options: Mapping[str, Any]) -> Any:
        """Open the lifecycle device of a stage; returns the service's reply."""
        args = {"dev": devpath, "tree": tree, "parent": None, "options": dict(options)}
        return self._call("open", args)

    def close(self, path: str) -> None:
        """Close a stage's device. What becomes of it then is the end's to tell."""
        with contextlib.suppress(PikaError):
            self._call("close", {"path": path})

    def end(self, exit_code: int, message: str, details: Mapping[str, Any]) -> None:
        """End the run."""
        status = "failed" if exit_code else "completed"
        self._call(
            "result",
            {"status": status, "exit_code": exit_code, "message": message, "details": details},
        )


def event(name: str, message: str, **details: Any) -> dict[str, Any]:
    """One event for `tell_all`; details that are None are left out."""
    known = {key: value for key, value in details.items() if value is not None}
    return {"message": message[:MAX_MESSAGE], "details": {**known, "event": name}}
