"""What the tests of the lifecycle writer share: how a directory looks, and systems that fail."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from osbuild_pika import lifecycle

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")


def line(seq: int, kind: str = "ready", message: str = "m", **more: Any) -> bytes:
    """One good line of an event log."""
    fields = {"schema_version": 1, "kind": kind, "timestamp": "t", "message": message, **more}
    return json.dumps({**fields, "seq": seq}).encode() + b"\n"


def events(directory: Path, name: str = "events.jsonl") -> list[dict[str, Any]]:
    """All events of a log; every line must be one, as the strictest reader wants it."""
    log = (directory / name).read_bytes()
    assert log[-1:] in (b"", b"\n"), "the last line is torn"
    lines = log.split(b"\n")[:-1]
    return [lifecycle.decode("event", text) for text in lines if text.strip()]


def seqs(directory: Path) -> list[int]:
    return [event["seq"] for event in events(directory)]


def messages(directory: Path) -> list[str]:
    return [event["message"] for event in events(directory)]


def document(directory: Path, kind: str) -> dict[str, Any]:
    """The decoded status.json or result.json."""
    return lifecycle.decode(kind, (directory / f"{kind}.json").read_bytes())


def mask(data: bytes) -> str:
    """A record with its time and boot id, which nobody can foresee, replaced."""
    return TIME.sub("<time>", data.decode("ascii")).replace(str(lifecycle.boot_id()), "<boot>")


def snapshot(directory: Path) -> dict[str, bytes]:
    """Everything below a directory: names, kinds, and what is in the regular files."""
    found = {}
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b"%o" % stat.S_IFMT(mode)
        found[str(path.relative_to(directory))] = content
    return found


def raises(code: int) -> Callable[..., Any]:
    """A function that fails with this errno, whatever it is called with."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


CHANGES = ("write", "pwrite", "ftruncate", "fsync", "fdatasync", "replace", "unlink")


class System:
    """The module os, but for the functions that are given."""

    def __init__(self, **instead: Callable[..., Any]) -> None:
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


UNSYNCED = System(fsync=lambda _: None, fdatasync=lambda _: None)  # for many quick appends


class Watched:
    """The module os; `look(name, arguments)` is called before each call of one of these names."""

    def __init__(self, names: Collection[str], look: Callable[[str, Any], object]) -> None:
        self._names = names
        self._look = look

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self._names:
                self._look(name, arguments)
            return getattr(os, name)(*arguments)

        return call


class FailsAt:
    """The module os, whose call number `left` (from 0) of one name, or of any, raises `error`.

    Its syncs are none: it is made for many tries, and no power goes out.
    is_done: it is done nevertheless, as when a signal comes right after it. left: the calls
    that are still well; negative when none will fail, or none any more.
    """

    def __init__(
        self, name: str, error: BaseException, left: int = 0, is_done: bool = False
    ) -> None:
        self.left = left
        self._name = name
        self._error = error
        self._is_done = is_done

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            is_counted = self.left >= 0 and self._name in (name, "any")
            self.left -= is_counted
            fails = is_counted and self.left < 0
            if fails and not self._is_done:
                raise self._error
            value = getattr(UNSYNCED, name)(*arguments)
            if fails:
                raise self._error
            return value

        return call


def helper(*arguments: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command line of the guest helper, as bare as Python goes."""
    command = [sys.executable, "-I", "-S", str(lifecycle.__file__), *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=60, **options)


def call(*arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
    """The same in this process: quicker by far, for tables of input. A bug raises here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = lifecycle.main([os.fsdecode(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    said = [text.getvalue().encode("utf-8", "backslashreplace") for text in (out, err)]
    return subprocess.CompletedProcess(arguments, code, *said)


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a failed call says, without its newline."""
    assert done.returncode in (1, 2), done
    assert done.stdout == b""
    said = done.stderr.decode()
    assert said.endswith("\n")
    assert said[:-1].isprintable(), said
    assert "Traceback" not in said
    assert said.startswith("pika-cloud-lifecycle")
    return said[:-1]
