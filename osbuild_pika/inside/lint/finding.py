"""What the linter says: a frozen value for each thing that is wrong."""

from __future__ import annotations

from typing import NamedTuple  # not dataclasses: they load inspect, 12 ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ERROR, WARNING = "error", "warning"


class Finding(NamedTuple):
    """One thing that is wrong.

    severity: "error": the image cannot be imported, does not start, or should not be given away;
    "warning": it may be meant. code: a stable name, such as "machine-id". path: the file, relative
    to the image or the tree. key: where in the file, "" for all of it. message: what is wrong and
    the fix. path, key and message hold foreign text: show them through osbuild_pika.text only.
    """

    severity: str
    code: str
    path: str
    message: str
    key: str = ""

    def __str__(self) -> str:
        prefix = "" if self.severity == ERROR else f"{self.severity}: "
        where = f"{self.path}: {self.key}" if self.key else self.path
        return f"{prefix}{where}: {self.message} [{self.code}]"


def error(code: str, path: str, message: str, key: str = "") -> Finding:
    return Finding(ERROR, code, path, message, key)


def warning(code: str, path: str, message: str, key: str = "") -> Finding:
    return Finding(WARNING, code, path, message, key)


def wanted(findings: Iterable[Finding], allow: Collection[str] = ()) -> tuple[Finding, ...]:
    """Without those of allowed codes and without repetitions, errors first, then by place."""
    kept = {finding for finding in findings if finding.code not in allow}
    return tuple(sorted(kept, key=lambda each: (each.severity, each.path, each.key, each.message)))


def has_errors(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == ERROR for finding in findings)
