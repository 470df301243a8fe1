"""Where a participant's files are, and by which URLs they are had.

DIR/in, work, out    the spool: see spool.py
DIR/files/PREFIX/IMAGE_ID/    what is published of a request: see request.py
"""

from __future__ import annotations

import os
import urllib.parse
from typing import NamedTuple

from osbuild_pika.errors import HostError, InputError

LISTEN = "127.0.0.1:8470"  # of `participant serve`
BASE_URL = f"http://{LISTEN}"
ISOLATIONS = ("sandbox", "vm")


class Site(NamedTuple):
    """directory: DIR. base_url: what DIR/files is served under. store: of the engine.

    isolation: one of ISOLATIONS. stage_timeout_s: None for no limit. origin: the suite of
    kickstarts that name none, DISTRIBUTION/SUITE; None for the converter's own.
    """

    directory: str
    store: str
    base_url: str = BASE_URL
    isolation: str = "sandbox"
    stage_timeout_s: float | None = None
    origin: str | None = None

    @property
    def files(self) -> str:
        return os.path.join(self.directory, "files")

    def url(self, *parts: str) -> str:
        """The URL of what lies at this path below `files`."""
        return "/".join([self.base_url.rstrip("/"), *map(urllib.parse.quote, parts)])


def check(site: Site) -> None:
    """Refuse what cannot be served. Raises InputError, HostError."""
    check_base_url(site.base_url)
    check_isolation(site.isolation)


def check_base_url(url: str) -> None:
    """Raise InputError for what files cannot be had from."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_good = is_good and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{ascii(url)[:80]} is no base URL such as {BASE_URL}")


def check_isolation(isolation: str) -> None:
    """Raise for an isolation that cannot be had: never is a weaker one taken for it."""
    if isolation == "vm":
        why = "isolation vm is not there yet: a build runs in its sandbox, as nobody on the host"
        raise HostError(f"{why}; take --isolation sandbox, or run the participant in a machine")
    if isolation not in ISOLATIONS:
        raise InputError(f"{ascii(isolation)[:40]} is no isolation: {', '.join(ISOLATIONS)}")
