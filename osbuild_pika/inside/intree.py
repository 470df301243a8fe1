"""How a stage runs a program of its tree: with the tree as /, and nothing left of it afterwards.

bubblewrap makes the surroundings, in namespaces of their own: /proc of the new processes alone, a
/dev of a few nodes, empty /run and /tmp, no way back to the sandbox, and the sandbox's lack of a
network. When the program ends, whatever it left running is killed and all that was mounted is
gone; directories that had to be made for it are removed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = "/usr/sbin/policy-rc.d"
POLICY_SCRIPT = "#!/bin/sh\nexit 101\n"  # Debian policy 9.11: the action is forbidden
# What a maintainer script or a hook has no use for in an image, and an escape might have.
DROPPED = ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_MAC_OVERRIDE", "CAP_SYS_RESOURCE")
MAX_LINE = 64 * 1024  # bytes of output that are taken at once
_MOUNTED = ("dev", "proc", "run", "tmp")


def environment(source_epoch: str | None) -> dict[str, str]:
    """What a program of the tree finds in its environment."""
    variables = {
        "PATH": PATH,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SYSTEMD_OFFLINE": "1",  # systemctl does what can be done without a running systemd
    }
    if source_epoch:
        variables["SOURCE_DATE_EPOCH"] = source_epoch
    return variables


def command(
    tree: Path, words: Sequence[str], shown: Mapping[str, str], variables: Mapping[str, str]
) -> list[str]:
    """The call of bubblewrap. shown: path in the tree -> path in the sandbox, read-only."""
    return [
        *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--hostname", "localhost", "--bind", os.fspath(tree), "/"),
        *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--dir", "/run/lock"),
        *("--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108 - the tree's
        *(word for path, source in shown.items() for word in ("--ro-bind", source, path)),
        *(word for name in DROPPED for word in ("--cap-drop", name)),
        "--clearenv",
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        *("--chdir", "/", "--", *words),
    ]


def run(
    tree: Path,
    words: Sequence[str],
    shown: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> int:
    """Run a program of the tree; what it prints is the stage's output, line by line.

    shown: paths in the tree, below /run or /tmp -> what of the sandbox is seen there, read-only.
    on_line: is given each line that was printed. Returns the exit status, 128 and more for a
    signal. Raises StageError if it cannot be run at all.
    """
    with _surroundings(tree):
        variables = environment(os.environ.get("SOURCE_DATE_EPOCH"))
        return watched(command(tree, words, shown or {}, variables), on_line)


def run_checked(tree: Path, words: Sequence[str], what: str = "") -> None:
    """As `run`. Raises StageError with the last line that was printed if the program fails.

    what: how the message calls the program.
    """
    last = [""]

    def hear(line: str) -> None:
        last[0] = line.strip() or last[0]

    if not has_program(tree, words[0]):
        raise StageError(f"{what or words[0]}: the tree has no {words[0]}")
    status = run(tree, words, on_line=hear)
    if status:
        raise StageError(f"{what or words[0]} exited with status {status}: {last[0]}")


def has_program(tree: Path, name: str) -> bool:
    """Whether the tree has an executable of this name, or at this path."""
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in PATH.split(":")]
    found = (resolve(tree, place) for place in places)
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in found)


def watched(
    words: Sequence[str],
    on_line: Callable[[str], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Run a program of the build root and pass its output on, line by line. Returns its exit
    status, as of a shell. variables: its environment, if not the stage's."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables,
        )
    except FileNotFoundError:
        raise StageError(f"{words[0]} is not installed in the build root") from None
    try:
        output: IO[bytes] = process.stdout  # type: ignore[assignment]  # a pipe was asked for
        for line in iter(lambda: output.readline(MAX_LINE), b""):
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
            if on_line is not None:
                on_line(line.decode("utf-8", "replace").rstrip("\n"))
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _surroundings(tree: Path) -> Iterator[None]:
    """What has to be in the tree while a program runs: mount points, and a policy that keeps
    services from being started. All of it that was not there is gone afterwards."""
    made = []
    policy = resolve(tree, POLICY)
    old = _read(policy)
    try:
        for name in _MOUNTED:
            path = os.path.join(tree, name)
            if os.path.islink(path):
                raise StageError(f"/{name} of the tree is a link: nothing can be mounted there")
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
                made.append(path)
        if os.path.isdir(os.path.dirname(policy)):
            _write(policy, POLICY_SCRIPT.encode())
        yield
    finally:
        if old is not None:
            _write(policy, old)
        elif os.path.lexists(policy):
            os.unlink(policy)
        for path in made:
            os.rmdir(path)


def _read(path: str) -> bytes | None:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o755)  # noqa: S103 - programs are
