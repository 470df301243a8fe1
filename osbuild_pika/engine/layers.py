"""Layers: what a store says of each, how one is found damaged, which ones are thrown away first.

layers/<key>/layer/      what a stage changed (is_whole: its whole tree)
             info.json   Info
             meta.json   what the stage itself said (`Store.meta`)
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

MAX_CHAIN = 100  # layers in one mount: what their descriptors' names take of an option page
_MAX_INFO = 64 * 1024  # bytes of an info.json that are ever read
_KEY = re.compile(r"[0-9a-f]{64}")


class Damaged(Exception):
    """A layer is not what a commit left: it counts as not cached."""


class Info(NamedTuple):
    """What info.json holds. base: the key of the layer below, None for the lowest.

    serial: of this very commit; below: of the layer that it was made on. A layer that was built
    anew has the same key, but what was made on its predecessor need not fit on it.
    """

    key: str
    id: str
    base: str | None
    serial: str
    below: str | None
    type: str
    created: int  # Unix seconds
    size_bytes: int  # on the disk
    duration_s: float
    is_whole: bool  # nothing below is needed to see the tree


class Kept(NamedTuple):
    """A layer, or a download, as garbage collection sees it. base: what it cannot be without."""

    base: str | None
    size_bytes: int
    used_ns: int


def is_key(name: object) -> bool:
    return isinstance(name, str) and _KEY.fullmatch(name) is not None


def encode(info: Info) -> bytes:
    return json.dumps(info._asdict(), indent=2).encode() + b"\n"


def decode(content: bytes, key: str) -> Info:
    """The Info of the layer `key`. Raises Damaged."""
    try:
        found = json.loads(content)
        info = Info(*(found[name] for name in Info._fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Damaged("info.json is torn") from None
    if info.key != key:
        raise Damaged("info.json is another layer's")
    if not _is_sane(info):
        raise Damaged("info.json is not what a commit writes")
    return info


def _is_sane(info: Info) -> bool:
    words = all(isinstance(each, str) for each in (info.id, info.type, info.serial))
    numbers = (info.created, info.size_bytes, info.duration_s)
    good = all(isinstance(each, (int, float)) and each >= 0 for each in numbers)
    base = (info.base, info.below) == (None, None) or (
        is_key(info.base) and info.base != info.key and isinstance(info.below, str)
    )
    return words and good and base and isinstance(info.is_whole, bool)


def read(layers: str, key: str) -> Info | None:
    """What is known of a layer; None if there is none. Raises Damaged."""
    directory = os.path.join(layers, key)
    try:
        fd = os.open(
            os.path.join(directory, "info.json"),
            os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
        )
    except OSError as error:
        if not os.path.lexists(directory):
            return None
        raise Damaged(f"info.json: {error.strerror}") from None
    try:
        with open(fd, "rb") as file:
            info = decode(file.read(_MAX_INFO), key)
    except OSError as error:
        raise Damaged(f"info.json: {error.strerror}") from None
    for part in ("layer", "meta.json"):
        if not os.path.lexists(os.path.join(directory, part)):
            raise Damaged(f"{part} is missing")
    return info


def chain(key: str, look: Callable[[str], Info | None]) -> list[Info]:
    """The layers that make up a tree, lowest first; [] if the highest is not there.

    Raises Damaged if one below it is missing or damaged.
    """
    found: list[Info] = []
    seen: set[str] = set()
    wanted: str | None = key
    while wanted is not None:
        info = look(wanted)
        if info is None:
            if not found:
                return []
            raise Damaged(f"the layer {wanted[:12]} below it is missing")
        if found and found[-1].below != info.serial:
            raise Damaged(f"the layer {wanted[:12]} below it was built anew")
        seen.add(wanted)
        found.append(info)
        wanted = None if info.is_whole else info.base
        if wanted in seen:
            raise Damaged("it lies below itself")
    return found[::-1]


def victims(kept: Mapping[str, Kept], pinned: Collection[str], max_bytes: int) -> Sequence[str]:
    """What to delete, in this order, so that the rest takes at most max_bytes.

    Least recently used first, never one that another needs, never a pinned one. All that can go
    is returned if that is not enough.
    """
    needed_by: dict[Any, int] = dict.fromkeys(kept, 0)
    for each in kept.values():
        if each.base in needed_by:
            needed_by[each.base] += 1
    total = sum(each.size_bytes for each in kept.values())
    leaves = [(kept[key].used_ns, key) for key, count in needed_by.items() if count == 0]
    heapq.heapify(leaves)
    chosen: list[str] = []
    while leaves and total > max_bytes:
        _, key = heapq.heappop(leaves)
        if key in pinned:
            continue
        chosen.append(key)
        total -= kept[key].size_bytes
        base = kept[key].base
        if base in needed_by:
            needed_by[base] -= 1
            if needed_by[base] == 0:
                heapq.heappush(leaves, (kept[base].used_ns, base))  # type: ignore[index]
    return chosen
