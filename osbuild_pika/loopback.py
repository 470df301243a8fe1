"""Loop devices: a file, or a part of it, as a block device (Linux loop(4)).

A device is set up with autoclear: it ends with the last who has it open, so with its service, how
ever that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = "/dev/loop-control"
SECTOR = 512
MAJOR = 7
MODE = 0o666  # stages have other ids than the host
_GET_FREE, _CONFIGURE, _CLEAR, _FLUSH = 0x4C82, 0x4C0A, 0x4C01, 0x1261
_READ_ONLY, _AUTOCLEAR, _PARTSCAN = 1, 4, 8
# struct loop_config: file, block size, loop_info64, reserved
_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s QQ 64x")
_TRIES = 64
CLEAR_TIMEOUT_S = 30.0


class Part:
    """Which bytes of a file are shown, and how. size_bytes 0: all to the end."""

    def __init__(
        self, start_bytes: int = 0, size_bytes: int = 0, sector_bytes: int = SECTOR
    ) -> None:
        self.start_bytes = start_bytes
        self.size_bytes = size_bytes
        self.sector_bytes = sector_bytes


class Loop:
    """A loop device that is set up. `name` is that of its node, such as loop0."""

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.name = f"loop{number}"
        self._fd = fd

    @classmethod
    def set_up(cls, file: int, part: Part, read_only: bool, partscan: bool, lock: bool) -> Loop:
        """Show a file, given by a descriptor. lock: keep udev from looking at it.

        Raises OSError, EBUSY if others take each free device first.
        """
        flags = _AUTOCLEAR | _READ_ONLY * read_only | _PARTSCAN * partscan
        config = _config(file, part, flags)
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                number = fcntl.ioctl(control, _GET_FREE)
                mode = os.O_RDONLY if read_only else os.O_RDWR
                fd = os.open(f"/dev/loop{number}", mode | os.O_CLOEXEC)
                try:
                    if lock:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.ioctl(fd, _CONFIGURE, config)
                except OSError as error:
                    os.close(fd)
                    if error.errno not in (errno.EBUSY, errno.EAGAIN):
                        raise
                else:
                    return cls(number, fd)
        finally:
            os.close(control)
        raise OSError(errno.EBUSY, "no free loop device could be taken")

    def make_nodes(self, directory: str) -> None:
        """Make the node, and those of the partitions that the kernel knows."""
        make_node(os.path.join(directory, self.name), os.makedev(MAJOR, self.number))
        for name, device in self._partitions():
            make_node(os.path.join(directory, name), device)

    def _partitions(self) -> Iterator[tuple[str, int]]:
        place = f"/sys/block/{self.name}"
        for name in sorted(os.listdir(place)):
            if name.startswith(f"{self.name}p"):
                with open(f"{place}/{name}/dev", encoding="ascii") as file:
                    major, minor = file.read().split(":")
                yield name, os.makedev(int(major), int(minor))

    def close(self) -> None:
        """Write all to the file and give the device back; who else has it open may be waited for.

        Raises OSError if the content cannot be written, TimeoutError if it stays in use.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.fsync(fd)
            fcntl.ioctl(fd, _FLUSH)  # else what others read before is seen by the next device
            fcntl.ioctl(fd, _CLEAR)
        finally:
            os.close(fd)
        until = time.monotonic() + CLEAR_TIMEOUT_S
        while os.path.exists(f"/sys/block/{self.name}/loop"):
            if time.monotonic() > until:
                raise TimeoutError(f"/dev/{self.name} is still in use")
            time.sleep(0.01)


def _config(file: int, part: Part, flags: int) -> bytes:
    numbers = (0, 0, 0, part.start_bytes, part.size_bytes, 0, 0, 0, flags)
    return _CONFIG.pack(file, part.sector_bytes, *numbers, b"", b"", b"", 0, 0)


def make_node(path: str, device: int) -> None:
    """Make a block device's node that everybody who sees it may use; one that is there is taken
    if it is the same. Raises OSError."""
    try:
        os.mknod(path, stat.S_IFBLK | MODE, device)
    except FileExistsError:
        facts = os.lstat(path)
        if not stat.S_ISBLK(facts.st_mode) or facts.st_rdev != device:
            raise
    os.chmod(path, MODE)  # the umask took something away
