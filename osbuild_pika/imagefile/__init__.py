"""Reads image files for the linter, without unpacking them to disk.

    look(path)                 a unified image, or one part of a split one
    look_split(metadata, root) both parts of a split one
    look_directory(path)       an image that lies unpacked: metadata.yaml, templates/, rootfs/

All are untrusted: what is read is limited in bytes and time, the programs that decompress write
into a pipe, and no name of an archive becomes a path. What is wrong with the files is a finding.
"""

from __future__ import annotations

import os

from osbuild_pika.errors import InputError
from osbuild_pika.imagefile import squashfs, tarball
from osbuild_pika.imagefile.magic import DISKS, SQUASHFS, kind_of
from osbuild_pika.imagefile.yamltext import parse
from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint import Image, View, of_directory, unpacked
from osbuild_pika.inside.lint.finding import Finding, error, warning
from osbuild_pika.inside.lint.view import DIRECTORY, Entry
from osbuild_pika.text import one_line

__all__ = ["kind_of", "likeness_to_root", "look", "look_directory", "look_split", "view_of"]


def view_of(path: str) -> View:
    """Look at a guest's tree. Raises InputError."""
    try:
        return of_directory(path)
    except OSError as problem:
        raise InputError(f"{one_line(path)}: {problem.strerror or problem}") from None


def look(path: str) -> Image:
    """Look at a unified image, or at one part of a split one. Raises InputError, HostError."""
    kind = _kind(path)
    if isinstance(kind, Finding):
        return Image(False, faults=(kind,))
    if kind == SQUASHFS or kind in DISKS:
        text = "is the second part of a split image; name both: METADATA ROOTFS"
        return Image(False, faults=(error("metadata", _name(path), text),))
    found = tarball.read(path, kind)
    files, root = _parts(found.view)
    has_disk = form.DISK in found.view.entries
    image = unpacked.look(files, root, parse, has_disk)
    faults = (*image.faults, *found.faults)
    if found.is_metadata_late:
        text = f"comes after {form.ROOTFS}/, so an import reads all of the image; put it first"
        faults = (*faults, warning("member-order", form.FILE, text))
    return image._replace(faults=faults)


def look_split(metadata: str, root: str) -> Image:
    """Look at both parts of a split image. Raises InputError, HostError."""
    faults: list[Finding] = []
    kind = _kind(root)
    view, has_disk = None, False
    if isinstance(kind, Finding):
        faults.append(kind)
    elif kind in DISKS:
        has_disk = kind == DISKS[0]
        if not has_disk:
            text = "is a raw disk, which Incus refuses here; make it a qcow2"
            faults.append(error("compression", _name(root), text))
    else:
        found = squashfs.read(root) if kind == SQUASHFS else tarball.read(root, kind)
        view = found.view
        faults += found.faults
    kind = _kind(metadata)
    if isinstance(kind, Finding) or kind == SQUASHFS or kind in DISKS:
        given = kind if isinstance(kind, Finding) else None
        text = "is no tarball; the first part of a split image is that of metadata.yaml"
        first = given or error("metadata", _name(metadata), text)
        return Image(False, root=view, has_disk=has_disk, faults=(first, *faults))
    archive = tarball.read(metadata, kind)
    image = unpacked.look(archive.view, view, parse, has_disk)
    return image._replace(faults=(*image.faults, *archive.faults, *faults))


def look_directory(path: str) -> Image:
    """Look at an unpacked image. Raises InputError."""
    view = view_of(path)
    files, root = _parts(view)
    return unpacked.look(files, root, parse, form.DISK in view.entries)


def likeness_to_root(path: str) -> tuple[bool, int]:
    """What sorts the two files of a split image: the metadata's is a tarball, and the smaller one,
    for the other holds a whole system. Raises OSError."""
    with open(path, "rb") as file:
        kind = kind_of(file.read(512))
        return kind == SQUASHFS or kind in DISKS, os.fstat(file.fileno()).st_size


def _kind(path: str) -> str | Finding:
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as problem:
        raise InputError(f"{one_line(path)}: {problem.strerror}") from None
    if not head:
        return error("truncated", _name(path), "is empty")
    known = "tar, gzip, bzip2, xz, lzma, zstd, lz4 or squashfs"
    return kind_of(head) or error("compression", _name(path), f"is no image: none of {known}")


def _parts(view: View) -> tuple[View, View | None]:
    """What lies beside rootfs/, and what lies in it."""
    prefix = f"{form.ROOTFS}/"
    outer: dict[str, Entry] = {}
    inner: dict[str, Entry] = {}
    for name, entry in view.entries.items():
        if name.startswith(prefix):
            inner[name[len(prefix) :]] = entry
        elif name != form.ROOTFS:
            outer[name] = entry
    place = view.entries.get(form.ROOTFS)
    is_there = bool(inner) or (place is not None and place.kind == DIRECTORY)
    below = tuple(name[len(prefix) :] for name in view.unreadable if name.startswith(prefix))
    root = View(inner, lambda name: view.read_file(prefix + name), below)
    return View(outer, view.read_file), root if is_there else None


def _name(path: str) -> str:
    return os.path.basename(path)
