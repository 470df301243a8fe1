"""image.extra_opts: what of a build a workitem may choose. Nothing of it is ever passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from osbuild_pika.text import one_line

MOST = 32  # options of a workitem
COMPRESSIONS = ("zstd", "zstd-3", "xz")
KNOWN = ("--allow-unsupported=COMMAND", "--compression=METHOD", "--no-lifecycle")
_COMMAND = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-%@ ")  # "%post --nochroot"


@dataclass(frozen=True)
class Options:
    """compression: None for the definition's own. allowed: kickstart commands that are not
    supported and only warned of. lifecycle: whether the image has the guest's helper."""

    compression: str | None = None
    allowed: frozenset[str] = frozenset()
    lifecycle: bool = True


def read(given: Sequence[object]) -> tuple[Options, list[str]]:
    """The options that the texts ask for, and what is wrong with them."""
    compression, allowed, lifecycle = None, set(), True
    faults = []
    for each in given[:MOST]:
        name, _, value = each.partition("=") if isinstance(each, str) else ("", "", "")
        if each == "--no-lifecycle":
            lifecycle = False
        elif name == "--compression" and value in COMPRESSIONS:
            compression = value
        elif name == "--compression":
            faults.append(f"{shown(value)} is no compression: {', '.join(COMPRESSIONS)}")
        elif name == "--allow-unsupported" and 0 < len(value) <= 64 and set(value) <= _COMMAND:
            allowed.add(value)
        else:
            faults.append(f"{shown(each)} is no option here; there are {', '.join(KNOWN)}")
    if len(given) > MOST:
        faults.append(f"has {len(given)} options, at most {MOST}")
    return Options(compression, frozenset(allowed), lifecycle), faults


def shown(value: object) -> str:
    """A foreign value as a message shows it: short, in quotes, on one line."""
    if not isinstance(value, str):
        return one_line(f"a value of the kind {type(value).__name__}")
    return ascii(value if len(value) <= 60 else value[:57] + "...")
