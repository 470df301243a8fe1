"""How far a stage is, from what it says to the run's lifecycle service while it runs."""

from collections.abc import Iterator
from typing import Any

from osbuild_pika.follow import Event, Follower
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.monitor import Record

FIELDS = ("pipeline", "stage", "done", "total", "unit")


class LiveProgress:
    """Gives the last that each stage said since the last look, as stage.progress records."""

    def __init__(self, directory: str) -> None:
        """directory: the run's; it need not be there yet."""
        self._follower = Follower(directory)

    def poll(self) -> list[Record]:
        """Never waits, and never raises: progress that cannot be read is not worth a build."""
        try:
            return list({each.get("id"): each for each in _records(self._follower.poll())}.values())
        except LifecycleError:
            return []

    def close(self) -> None:
        self._follower.close()


def _records(events: list[Event]) -> Iterator[Record]:
    for event in events:
        details: Any = event.details
        if not isinstance(details, dict) or details.get("source") != "stage":
            continue
        if details.get("event") != "stage.progress":
            continue
        told = {name: details[name] for name in FIELDS if details.get(name) is not None}
        if "stage_id" in details:
            told["id"] = details["stage_id"]
        yield {"record": "stage.progress", "message": event.message, "seq": event.seq, **told}
