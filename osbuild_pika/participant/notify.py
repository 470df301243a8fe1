"""Who is told of a status: a command, which is given JSON on its input, and a URL.

A status that nobody could be told of is said in a line, and changes nothing in a build.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from osbuild_pika.errors import HostError, InputError, describe_status

TIMEOUT_S = 10.0  # for each call; a build waits for it
STATUSES = ("IN QUEUE", "BUILDING", "DONE", "ERROR")

Notify = Callable[[str, Mapping[str, Any]], None]


def notifier(command: Sequence[str], url: str | None, say: Callable[[str], None]) -> Notify:
    """What tells a status to a command (a list of words, () for none) and to a URL.

    say: is given a line for each call that failed. Raises InputError, HostError.
    """
    post = _poster(url) if url else None

    def notify(status: str, fields: Mapping[str, Any]) -> None:
        body = json.dumps({"status": status, "image": dict(fields)}).encode() + b"\n"
        if command and (fault := _run(command, body)):
            say(f"{command[0]}: {fault}")
        if post and (fault := post(body)):
            say(f"{url}: {fault}")

    return notify


def _run(command: Sequence[str], body: bytes) -> str | None:
    """Run a command with a status on its input. Returns what went wrong."""
    try:
        done = subprocess.run(
            command,
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {TIMEOUT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return describe_status(done.returncode) if done.returncode else None


def _poster(url: str) -> Callable[[bytes], str | None]:
    """What posts a status to a URL and returns what went wrong."""
    try:
        import httpx
    except ImportError:
        why = "a URL for statuses needs httpx: install osbuild-pika[participant]"
        raise HostError(why) from None
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{ascii(url)[:80]} is no URL of http or https")

    def post(body: bytes) -> str | None:
        try:
            headers = {"Content-Type": "application/json"}
            answer = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        return f"answered {answer.status_code}" if answer.status_code >= 300 else None

    return post
