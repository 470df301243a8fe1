"""Mounts: host services that mount what lies on a stage's devices.

`MountService` is the base of the executables in mounts/. Calls are upstream osbuild's (v191).
A mount ends with its service; who is killed leaves it to the end of the engine's mount namespace.
"""

from __future__ import annotations

import os

from osbuild_pika import host, libc, wire
from osbuild_pika.errors import PikaError
from osbuild_pika.inside.places import resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple
else:
    from collections import namedtuple

# Names the user namespace, such as /proc/PID/ns/user, whose ids the mounted files shall have.
NAMESPACE = "OSBUILD_PIKA_USER_NAMESPACE"
_ARGUMENTS = {
    "source": str | None,
    "target": str | None,
    "root": str,
    "tree": str,
    "options": dict | None,
}

if TYPE_CHECKING:

    class Request(NamedTuple):
        """What is to be mounted. source: a device's node. target: below root, where all mounts of
        the stage are. tree: the stage's."""

        source: str | None
        target: str
        root: str
        tree: str
        options: Mapping[str, Any]

else:
    Request = namedtuple("Request", "source target root tree options")


class MountService(host.Service):
    """Base of a mount's executable: implement `mount`, and `unmount` if there is something to
    undo."""

    def mount(self, request: Request) -> str | None:
        """Mount, and return where: a path below request.root, or None if it is none."""
        raise NotImplementedError

    def unmount(self) -> None:
        """Undo `mount`; called once at the end."""

    def stop(self) -> None:
        self.unmount()

    def dispatch(self, name: str, args: Any, fds: Sequence[int]) -> tuple[Any, Sequence[int]]:
        if name != "mount":
            return super().dispatch(name, args, fds)
        wire.require(name, args, _ARGUMENTS)
        options = args["options"] or {}
        request = Request(
            args["source"], args["target"] or "/", args["root"], args["tree"], options
        )
        return self.mount(request), ()


def directory_below(root: str, path: str) -> str:
    """Make the directory `path` below root, as if that were /. Raises PikaError, OSError.

    Another mount of the stage may lie on the way, and its links lead nowhere else. Nothing of the
    stage runs while its mounts are made.
    """
    try:
        directory = resolve(root, path)
    except StageError as error:
        raise PikaError(str(error)) from None
    os.makedirs(directory, exist_ok=True)
    return directory


class FileSystemMount(MountService):
    """Base for a file system on a device: set `kind`, and `data` for more options."""

    kind = ""
    mounted = ""

    def data(self, options: Mapping[str, Any]) -> str:
        """The file system's own options, with commas between them."""
        return ""

    def mount(self, request: Request) -> str:
        if request.source is None:
            raise PikaError(f"a mount of {self.kind} needs a source, a device of the stage")
        target = directory_below(request.root, request.target)
        print(f"mounting {request.source} at {request.target}", flush=True)
        flags = libc.MS_NOSUID | libc.MS_NODEV
        if request.options.get("readonly"):
            flags |= libc.MS_RDONLY
        try:
            libc.mount(request.source, target, self.kind, flags, self.data(request.options))
        except OSError as error:
            what = f"{request.source} cannot be mounted as {self.kind} at {request.target}"
            raise PikaError(f"{what}: {error.strerror}") from None
        self.mounted = target
        if os.environ.get(NAMESPACE):
            namespace = os.open(os.environ[NAMESPACE], os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc.map_ids(target, namespace)
            finally:
                os.close(namespace)
        return target

    def unmount(self) -> None:
        if self.mounted and os.path.ismount(self.mounted):
            libc.sync_file_system(self.mounted)
            libc.unmount(self.mounted)
        self.mounted = ""
