"""What is done to a store beside builds: garbage collection, and trying what this host can.

Both need to be root of the store's ids, so both run in a process of their own, as builds do:
`python3 -m osbuild_pika.engine chore`, with {"chore", "store", ...} on its input and one object
on its output: the answer, or {"error"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from osbuild_pika.engine import fetched, layers, namespace
from osbuild_pika.engine.layers import Damaged
from osbuild_pika.engine.namespace import UserNamespace
from osbuild_pika.engine.scratch import Scratch, run_inside, sweep
from osbuild_pika.engine.store import Access, Store
from osbuild_pika.errors import ExitCode, HostError, PikaError

Answer = dict[str, Any]


def main() -> int:
    asked = json.loads(sys.stdin.buffer.read())
    try:
        answer = {"gc": collect, "probe": probe}[asked["chore"]](asked)
    except PikaError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    return ExitCode.HOST_NOT_FIT if "error" in answer else ExitCode.OK


def collect(asked: Answer) -> Answer:
    """Delete what dead runs left, then layers and what was fetched until at most
    asked["max_bytes"] stay."""
    ids = namespace.become_root(namespace.find_ids())
    namespace.private_mounts()
    notes: list[str] = []
    store = Store(asked["store"], Access(ids.base, _inside), notes.append)
    swept = sweep(store)
    sizes = _sizes(store)
    with Scratch(store, f"gc-{os.getpid()}", copies=True) as scratch:
        gone, kept_bytes = scratch.gc(asked["max_bytes"])
    evicted = [
        {"key": key, "size_bytes": sizes.get(key), "is_fetched": fetched.is_fetched(key)}
        for key in gone
    ]
    return {"swept": swept, "evicted": evicted, "kept_bytes": kept_bytes, "notes": notes}


def _sizes(store: Store) -> dict[str, int]:
    """Sizes in bytes of what evict names; of a damaged layer nothing is known."""
    sizes = {name: each.size_bytes for name, each in fetched.content(store.sources).items()}
    for key in filter(layers.is_key, os.listdir(store.layers)):
        with contextlib.suppress(Damaged):
            info = store.look(key)
            if info is not None:
                sizes[key] = info.size_bytes
    return sizes


def probe(asked: Answer) -> Answer:
    """Try what a build needs, one thing after another, until one cannot be had.

    The answer has a word for each that was tried: "" if it works, else why not; and `overlay`, if
    that could be tried. A store that is not there is not made.
    """
    found: Answer = {}
    with _told(found, "ids"):
        ids = namespace.find_ids()
        found["base"] = ids.base
    if not found["ids"]:
        with _told(found, "root"):
            ids = namespace.become_root(ids)
            namespace.private_mounts()
    if not found.get("root", "not tried"):
        with _told(found, "namespace"), UserNamespace(ids) as space:
            command = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "true"]
            run_inside([*space.enter_argv(), *namespace.OWN_PROC, *command], "/", ())
    if not found.get("namespace", "not tried") and os.path.isdir(asked["store"]):
        with _told(found, "store"):
            store = Store(asked["store"], Access(ids.base, _inside), lambda _: None)
            with Scratch(store, f"probe-{os.getpid()}") as scratch:
                found["overlay"] = scratch.carries()
    return found


def _inside(argv: Sequence[str], cwd: str, fds: Sequence[int] = ()) -> bytes:
    return run_inside(list(argv), cwd, tuple(fds))


@contextlib.contextmanager
def _told(found: Answer, name: str) -> Iterator[None]:
    try:
        yield
        found[name] = ""
    except HostError as error:
        found[name] = str(error)
