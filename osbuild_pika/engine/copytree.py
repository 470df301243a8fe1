"""Trees as copies: for stores whose file system cannot carry overlay's layers, and for flattening.

A layer made this way holds its whole tree. Reflinks make it cheap where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Inside(Protocol):
    """Runs a command as root of the build's user namespace, the only one that touches trees.

    cwd is entered before the namespace; fds are inherited. Returns its output. Raises HostError
    with its last word if it fails.
    """

    def __call__(self, argv: Sequence[str], cwd: str, fds: Sequence[int] = ()) -> bytes: ...


def copy(inside: Inside, source: int, target: str) -> None:
    """Copy what an open directory holds, and its own attributes, into the directory `target`.

    target: owned by the namespace's root. Keeps owners, times, links, holes, extended attributes.
    """
    argv = ["cp", "-a", "--reflink=auto", "--sparse=auto", "--", f"/proc/self/fd/{source}/.", "."]
    inside(argv, target, (source,))
