"""An engine as small as can be: a process that has one stage run, and can be killed meanwhile.

Without an owner it does what upstream does: it opens the stage's device, and says nothing more.
How far it came stands in `marks` of its directory: what was written there survives its death.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandboxes import ROOT, Sandbox, ending

from osbuild_pika.devices import Device, DeviceManager
from osbuild_pika.host import ServiceClient, ServiceManager

SERVICE = ROOT / "devices/org.osbuild-pika.lifecycle"
STAGES = {name: ROOT / "test/data/stages" / name for name in ("talks", "talks.sh", "silent.sh")}
RUN = "web"
OPTIONS = {"pipeline": "os", "stage": "org.example.stage", "stage_id": "ab" * 32}
PYTHONPATH = f"{ROOT}:{ROOT}/test"


@dataclass(frozen=True)
class Plan:
    """What an engine does. stage: a name of STAGES, "" to wait for its end without one.

    handles: it tears down and says so when it is interrupted or terminated.
    """

    stage: str
    has_owner: bool
    is_final: bool = True
    handles: bool = False


class Stopped(BaseException):
    """A signal came that the engine handles."""


def command(directory: Path, plan: Plan) -> list[str]:
    """What runs this engine, with PYTHONPATH set."""
    return [sys.executable, "-m", "small_engine", str(directory), json.dumps(asdict(plan))]


class Engine:
    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self.sandbox = Sandbox(directory / "sandbox")
        self._marks = os.open(directory / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        runs = {"OSBUILD_PIKA_RUNS": str(directory / "runs")}
        self._environment = {**os.environ, **runs}

    def mark(self, text: str) -> None:
        os.write(self._marks, f"{text}\n".encode())

    def main(self) -> None:
        self.mark(f"begun {time.monotonic()}")
        with ServiceManager(environment=self._environment) as services:
            if self.plan.has_owner:
                self._drive(services)
            else:
                self._follow(services)
        self.mark("done")

    def _drive(self, services: ServiceManager) -> None:
        """As our engine: it owns the run, and says how it ended."""
        service = services.start("device/lifecycle", str(SERVICE))
        self.mark("opening")
        service.call("own", {"run": RUN})
        self.mark("owned")
        paths = {"dev": str(self.sandbox.dev), "tree": str(self.sandbox.tree)}
        reply = service.call("open", {**paths, "parent": None, "options": OPTIONS})
        self.mark("opened")
        try:
            status = self._stage({**reply, "path": f"/dev/{reply['path']}"})
        except Stopped as stopped:
            self._finish(service, 128 + stopped.args[0], "interrupted")
        else:
            self._finish(service, status, "stage.failed")

    def _finish(self, service: ServiceClient, status: int, event: str) -> None:
        result: dict[str, Any] = {"status": "completed", "message": "built"}
        if status:
            result = {"status": "failed", "message": event, "exit_code": status}
            result["details"] = {"event": event}
        self.mark("resulting")
        service.call("result", result)
        self.mark("resulted")

    def _follow(self, services: ServiceManager) -> None:
        """As upstream: devices are opened, the stage runs, the services' sockets are closed."""
        options = {**OPTIONS, "run": RUN, "final": self.plan.is_final}
        device = Device("lifecycle", SERVICE.name, options)
        devices = DeviceManager(services, str(self.sandbox.dev), str(self.sandbox.tree))
        self.mark("opening")
        reply = devices.open(device, str(SERVICE))
        self.mark("opened")
        try:
            self._stage(devices.argument(device, reply), services)
        except Stopped:
            self.mark("stopped")

    def _stage(self, reply: dict[str, Any], services: ServiceManager | None = None) -> int:
        """Run the stage. services: stopped before its sandbox is, when a signal comes."""
        if not self.plan.stage:
            signal.pause()
        stage = STAGES[self.plan.stage]
        with ending(self.sandbox.start(stage, {"lifecycle": reply}, {})) as process:
            self.mark(f"sandbox {process.pid}")
            try:
                process.communicate()
            except Stopped:
                if services is not None:
                    services.stop()
                raise
            self.mark(f"ended {process.returncode}")
            return process.returncode


def main(directory: Path, plan: Plan) -> None:
    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    if plan.handles:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    Engine(directory, plan).main()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Plan(**json.loads(sys.argv[2])))
