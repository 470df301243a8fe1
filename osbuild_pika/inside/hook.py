"""A definition's hooks: scripts that run in the tree, once, while the image is made."""

from __future__ import annotations

import os
import tempfile

from osbuild_pika.inside import intree
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "/run/osbuild-pika-hook"
SHELLS = ("sh", "dash", "bash", "ash")


def run(tree: Path, name: str, script: str, interpreter: str) -> None:
    """Run a script in the tree. interpreter: its path in the tree and its arguments; a shell ends
    at the first command that fails. What the script leaves running is killed. Raises StageError.
    """
    words = interpreter.split()
    if not words or not intree.has_program(tree, words[0]):
        raise StageError(f"hook {name}: the tree has no {interpreter or 'interpreter'}")
    if words[1:] == [] and os.path.basename(words[0]) in SHELLS:
        words.append("-e")
    last = [""]

    def hear(line: str) -> None:
        last[0] = line.strip() or last[0]

    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(script if script.endswith("\n") else f"{script}\n")
        file.flush()
        os.chmod(file.name, 0o755)  # noqa: S103 - the script may ask for another user
        status = intree.run(tree, [*words, SCRIPT], {SCRIPT: file.name}, hear)
    if status:
        said = f": {last[0][:300]}" if last[0] else ""
        raise StageError(f"hook {name} exited with status {status}{said}")
