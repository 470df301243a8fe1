"""Runs the lifecycle service with a fault: `variants.py NAME --service-id ID --service-fd N`.

hasty: acknowledges events before they are written. careless: syncs nothing. Both are there to be
caught. torn: is killed in the middle of a write, which no harness can time from outside.
"""

from __future__ import annotations

import functools
import random
import sys

from crash import workers
from osbuild_pika import wire
from osbuild_pika.lifecycle import Journal
from osbuild_pika.lifecycle_service import record
from osbuild_pika.lifecycle_service.service import LifecycleService


class Hasty(LifecycleService):
    """Acknowledges before it writes."""

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        seq = self._record.last_seq
        for each in waiting:
            first, seq = seq + 1, seq + len(each.bodies)
            span = {"first": first, "last": seq} if each.is_many else {"seq": seq}
            self._answer(each.peer, wire.Reply(span))
        for each in waiting:
            self._record.append(each.bodies, each.kinds)


def main(name: str, argv: list[str]) -> None:
    systems = {"careless": workers.Careless, "torn": lambda: workers.Dying(random.randint(2, 12))}
    if name in systems:
        record.Journal = functools.partial(Journal, system=systems[name]())  # type: ignore
    (Hasty if name == "hasty" else LifecycleService).from_args(argv).main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
