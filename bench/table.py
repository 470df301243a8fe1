"""Aligned plain text, and what there is to know of the machine that was measured on."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path


def render(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right, no trailing newline."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def figure(value: float) -> str:
    """Three digits are what a median of a few rounds is worth."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def file_system(path: Path) -> str:
    """The type of the file system that holds a path: "ext4"."""
    best, kind = "", "unknown"
    place = f"{path.resolve()}/"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, name, *_ = line.split()
        point = point.replace("\\040", " ").rstrip("/") + "/"
        if place.startswith(point) and len(point) >= len(best):  # the last one covers the rest
            best, kind = point, name
    return kind


def machine() -> dict[str, str | int]:
    """Cores that we may use, kernel, interpreter, and how busy the machine is (1 minute)."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "load": f"{os.getloadavg()[0]:.2f}",
    }
