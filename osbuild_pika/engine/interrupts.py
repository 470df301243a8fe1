"""SIGINT and SIGTERM ask a build to stop; the second one, at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from osbuild_pika.engine.running import Stop
from osbuild_pika.errors import ExitCode
from osbuild_pika.host import ServiceManager


class Interrupts:
    """Takes the process's signals. number: of the first that came, 0: none."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.number = 0
        self._ends: list[Callable[[], object]] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))

    def _take(self, number: int, _: object) -> None:
        self.number = self.number or number
        self.stop.ask()
        for end in self._ends:
            end()

    @contextlib.contextmanager
    def calling(self, end: Callable[[], object]) -> Iterator[None]:
        """Inside the block a signal calls `end`; so does one that has come before."""
        self._ends.append(end)
        try:
            if self.number:
                end()
            yield
        finally:
            self._ends.remove(end)

    @contextlib.contextmanager
    def ending(self, services: ServiceManager) -> Iterator[None]:
        """Inside the block a signal kills these services: their answers are not waited for."""

        def kill() -> None:
            for client in services.services.values():
                client.process.kill()

        with self.calling(kill):
            yield

    def ask(self, number: int) -> None:
        """As if this signal had come, unless one has."""
        if not self.number:
            self._take(number, None)

    @property
    def signal_name(self) -> str:
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        return ExitCode.TERMINATED if self.number == signal.SIGTERM else ExitCode.INTERRUPTED
