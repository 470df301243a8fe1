"""The original helper's algorithm, written anew from its description: test code, never shipped.

Guests with an old helper write to the same files as we do, so our writer must live with these
steps, and a crash harness that finds no fault in them is blind.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Original:
    """Writes as the original does; its methods have the names and arguments of our Journal's.

    directory: where the files are; it must exist.
    system: the module os or what stands in for it, so that the steps can be recorded, killed
    or delayed.
    Known faults, all kept: the sequence file is empty between its truncate and its write, a torn
    line is not repaired, nothing syncs the directory.
    """

    directory: str | os.PathLike[str]
    system: Any = os
    boot_id: str | None = None

    def append(self, kind: str, message: str, details: Any = None) -> int:
        """Append one event. Returns its seq.

        Raises ValueError if the sequence file holds no number, and OSError.
        """
        events = str(Path(self.directory) / "events.jsonl")
        flags = os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        counter = self.system.open(f"{events}.seq", os.O_RDWR | flags, 0o666)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            seq = self._next_seq(counter)
            head = {"kind": kind, "timestamp": _now(), "message": message}
            fields = self._fields(head, details) | {"seq": seq}
            log = self.system.open(events, os.O_WRONLY | flags, 0o666)
            try:
                self.system.write(log, json.dumps(fields).encode() + b"\n")
                self.system.fsync(log)
            finally:
                self.system.close(log)
        finally:
            self.system.close(counter)
        return seq

    def write_status(self, state: str, message: str, details: Any = None) -> None:
        """Replace status.json."""
        head = {"state": state, "updated_at": _now(), "message": message}
        self._replace("status.json", self._fields(head, details))

    def write_result(self, status: str, exit_code: int, message: str, details: Any = None) -> None:
        """Replace result.json."""
        fields = {"schema_version": 1, "status": status, "exit_code": exit_code}
        fields |= {"finished_at": _now(), "message": message}
        self._replace("result.json", fields if details is None else fields | {"details": details})

    def _next_seq(self, counter: int) -> int:
        text = self.system.pread(counter, 4096, 0).decode().strip()
        seq = (int(text) if text else 0) + 1
        self.system.ftruncate(counter, 0)
        self.system.write(counter, f"{seq}\n".encode())
        self.system.fsync(counter)
        return seq

    def _fields(self, head: dict[str, Any], details: Any) -> dict[str, Any]:
        fields = {"schema_version": 1, **head}
        if self.boot_id is not None:
            fields["boot_id"] = self.boot_id
        if details is not None:
            fields["details"] = details
        return fields

    def _replace(self, name: str, fields: dict[str, Any]) -> None:
        temporary = str(Path(self.directory) / f"tmp{secrets.token_hex(4)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = self.system.open(temporary, flags, 0o600)
        try:
            self.system.write(fd, json.dumps(fields, indent=2).encode() + b"\n")
            self.system.fsync(fd)
        finally:
            self.system.close(fd)
        self.system.replace(temporary, str(Path(self.directory) / name))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
