"""A definition's hooks: scripts that run in the tree, once, while the image is made."""

from __future__ import annotations

import os
import tempfile
from collections import namedtuple

from osbuild_pika.inside import files, intree
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "/run/osbuild-pika-hook"
MAX_LOG = 16 * 1024 * 1024  # characters, some more: what a log in the image keeps
SHELLS = ("sh", "dash", "bash", "ash")


class Hook(namedtuple("Hook", "name interpreter log may_fail")):
    """How a script is run. interpreter: its path in the tree, and arguments. log: a path in the
    image that gets what is printed, or None. may_fail: whether a failure is only told."""

    __slots__ = ()


def run(tree: Path, hook: Hook, script: str) -> str:
    """Run a script in the tree. Returns what was done. Raises StageError.

    A shell without arguments ends at the first command that fails. What the script leaves running
    is killed.
    """
    words = hook.interpreter.split()
    if not words or not intree.has_program(tree, words[0]):
        raise StageError(f"hook {hook.name}: the tree has no {hook.interpreter or 'interpreter'}")
    if words[1:] == [] and os.path.basename(words[0]) in SHELLS:
        words.append("-e")
    if hook.log is not None:
        files.place(tree, hook.log)  # a place that will not do is told before anything runs
    last, kept, room = "", [], MAX_LOG

    def hear(line: str) -> None:
        nonlocal last, room
        last = line.strip() or last
        if hook.log is not None and room > 0:
            kept.append(line)
            room -= len(line) + 1

    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(script if script.endswith("\n") else f"{script}\n")
        file.flush()
        os.chmod(file.name, 0o755)  # noqa: S103 - the script may ask for another user
        status = intree.run(tree, [*words, SCRIPT], {SCRIPT: file.name}, hear)
    if hook.log is not None:
        text = "".join(f"{line}\n" for line in kept)
        files.write(tree, hook.log, text.encode("utf-8", "replace"), 0o600)
    if not status:
        return f"hook {hook.name} is done"
    what = f"hook {hook.name} exited with status {status}{f': {last[:300]}' if last else ''}"
    if not hook.may_fail:
        raise StageError(what)
    return f"{what}; it may"
