"""What a file is by its first bytes, as Incus looks at it: its name says nothing."""

from __future__ import annotations

TAR, SQUASHFS = "tar", "squashfs"
DISKS = ("qcow2", "disk")
HEAD_BYTES = 512
# kind -> how it begins
_MAGIC = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ",
    "lzma": b"\x5d\x00\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    SQUASHFS: b"hsqs",
    DISKS[0]: b"QFI\xfb",
}
# Names that only an image has: what is in them is one, whatever it begins with.
_SUFFIXES = (
    *(".tar", ".tgz", ".txz", ".tzst", ".squashfs", ".qcow2"),
    *(f".tar.{each}" for each in ("gz", "bz2", "xz", "lzma", "zst", "lz4")),
)


def kind_of(head: bytes) -> str | None:
    """The kind of a file that begins with these (512 or more) bytes; None: no image."""
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return TAR
    return DISKS[1] if head[510:512] == b"\x55\xaa" else None


def is_image(path: str) -> bool:
    """Whether a regular file is an image, or called like one. Raises OSError."""
    if path.lower().endswith(_SUFFIXES):
        return True
    with open(path, "rb") as file:
        return kind_of(file.read(HEAD_BYTES)) is not None
