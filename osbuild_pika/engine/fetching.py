"""Has sources get what stages will read. Each source is a host service, with the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from osbuild_pika.engine.manifest import Source
from osbuild_pika.errors import HostError, RemoteError
from osbuild_pika.host import ServiceManager


class Fetched(NamedTuple):
    """What a source replied, in upstream's form. results: an item each, {"success", "error",
    "metadata": {"checksum", "cached"}}."""

    source: Source
    is_success: bool
    output: str
    results: Sequence[Any]
    duration_s: float


class SourceError(HostError):
    """A source does not give what is needed."""


def fetch(
    services: ServiceManager,
    source: Source,
    executable: str,
    cache: str,
    on_signal: Callable[[Any], None],
) -> Fetched:
    """Get the items of a source that the cache lacks. Raises PikaError if the service dies.

    cache: a directory that has one directory for each type of content.
    """
    begin = time.monotonic()
    service = services.start(f"source/{source.type}", executable)
    service.on_signal(on_signal)
    asked: dict[str, Any] = {
        "items": source.items,
        "options": source.options,
        "cache": cache,
        "output": None,
        "checksums": [],
    }
    try:
        reply = service.call("download", asked)
    except RemoteError as error:
        reply = {"success": False, "output": f"{error.name}: {error.value}"}
    duration_s = time.monotonic() - begin
    if not isinstance(reply, dict):
        reply = {"success": False, "output": "the source replied no object"}
    results = reply.get("results")
    return Fetched(
        source,
        reply.get("success") is True,
        str(reply.get("output", "")),
        results if isinstance(results, list) else [],
        duration_s,
    )


def first_error(fetched: Fetched) -> str:
    """Why a source failed, in one line."""
    for each in fetched.results:
        if isinstance(each, dict) and not each.get("success") and each.get("error"):
            return str(each["error"])
    return fetched.output or "the source failed and does not say why"
