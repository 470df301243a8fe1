"""Counts faults, in the words in which every layer prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crash import oracle

KINDS = (oracle.LOST, oracle.DUPLICATE, oracle.UNREADABLE, oracle.GAP, oracle.DISAGREE)


def tally(faults: Iterable[oracle.Fault]) -> str:
    """Such as "0 lost, 0 duplicate, 0 unreadable, 0 gap, 0 disagree, 0 refused"."""
    counts = Counter(fault.kind for fault in faults)
    return ", ".join(f"{counts[kind]} {kind}" for kind in (*KINDS, oracle.REFUSED))
