"""What is published, over HTTP: read-only, and nothing but regular files below DIR/files.

Starlette's static files do the protocol (ranges, HEAD, ETag, If-Modified-Since), uvicorn the
sockets. What they have no opinion on is here: names that begin with a dot, links, media types.
"""

from __future__ import annotations

import os
import socket
import stat
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from osbuild_pika.errors import HostError, InputError
from osbuild_pika.results import media_type

if TYPE_CHECKING:
    from starlette.applications import Starlette

AT_ONCE = 256  # connections
STOP_S = 3  # for downloads that are under way
_TEXT = {
    ".html": "text/html; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".jsonl": "application/jsonl",
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-cache",  # a log grows
}


def address(text: str) -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT. Raises InputError."""
    try:
        parts = urllib.parse.urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise InputError(f"{ascii(text)[:80]} is no address such as 127.0.0.1:8470")
    return host, port


def find(root: str, path: str) -> tuple[str, os.stat_result | None]:
    """What may be served of a path below `root`, which has no link in it: a regular file or a
    directory that no hidden name and no link leads to. Raises OSError, ValueError."""
    parts = [each for each in path.split("/") if each not in ("", ".")]
    if any(each.startswith(".") for each in parts):
        return "", None
    full = root
    found = os.lstat(full)
    for index, part in enumerate(parts):
        full = os.path.join(full, part)
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return "", None
        is_last = index == len(parts) - 1
        if not stat.S_ISDIR(found.st_mode) and not (is_last and stat.S_ISREG(found.st_mode)):
            return "", None
    return full, found


def type_of(name: str) -> str:
    return _TEXT.get(os.path.splitext(name)[1], media_type(name))


def application(directory: str) -> Starlette:
    """The server of what is below a directory. Raises HostError without Starlette."""
    try:
        from starlette.applications import Starlette
        from starlette.datastructures import Headers
        from starlette.responses import FileResponse, Response
        from starlette.routing import Mount
        from starlette.staticfiles import NotModifiedResponse, StaticFiles
    except ImportError:
        raise missing() from None
    root = os.path.realpath(directory)

    class Published(StaticFiles):
        def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
            return find(root, path)

        def file_response(
            self, full_path: Any, stat_result: os.stat_result, scope: Any, status_code: int = 200
        ) -> Response:
            response = FileResponse(
                full_path, status_code, _HEADERS, type_of(full_path), stat_result=stat_result
            )
            if self.is_not_modified(response.headers, Headers(scope=scope)):
                return NotModifiedResponse(response.headers)
            return response

    return Starlette(routes=[Mount("/", Published(directory=root, html=True))])


def missing() -> HostError:
    return HostError("serving needs starlette and uvicorn: install osbuild-pika[participant]")


def serve(directory: str, listen: str, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. ready: is given the URL once it can be asked.

    Raises InputError for a wrong address, HostError.
    """
    try:
        import uvicorn
    except ImportError:
        raise missing() from None
    host, port = address(listen)
    app = application(directory)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=AT_ONCE)
    except OSError as error:
        raise HostError(f"cannot listen on {listen}: {error.strerror or error}") from None
    with bound:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{bound.getsockname()[1]}")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=AT_ONCE,
            timeout_graceful_shutdown=STOP_S,
        )
        uvicorn.Server(config).run(sockets=[bound])
