"""The linter: what is wrong with an image or a guest's tree, before Incus or a user finds it.

    tree(view, kind)         a guest's tree, as a View of names and small files
    image(contents, ...)     an image: its metadata, its templates and its tree

Both only look at values; of_directory makes the View of a directory, osbuild_pika/imagefile that
of an archive. All they are given is foreign: so is all text in what they say. The table of codes
is in docs/reference/images.md.
"""

from __future__ import annotations

from typing import NamedTuple  # not dataclasses: they load inspect, 12 ms

from osbuild_pika.inside import metadata as form
from osbuild_pika.inside.lint import accounts, network, packages, system, vm
from osbuild_pika.inside.lint import image as of_image
from osbuild_pika.inside.lint.finding import Finding, error, has_errors, wanted, warning
from osbuild_pika.inside.lint.view import View, of_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

__all__ = [
    "Finding",
    "Host",
    "Image",
    "View",
    "has_errors",
    "image",
    "of_directory",
    "tree",
    "wanted",
]

CONTAINER, VM = "container", "vm"
_NONE: Mapping[str, bytes | str] = {}


class Host(NamedTuple):
    """Where an image shall run. now_s: Unix seconds. architecture: None: not looked at."""

    now_s: float
    architecture: str | None = None


class Image(NamedTuple):
    """What was found in an image.

    metadata: what metadata.yaml's parser gave; has_metadata: whether there is one. templates: the
    files of templates/ by name; a text says why one cannot be taken. root: the tree of a container.
    faults: what was wrong with the files themselves.
    """

    has_metadata: bool
    metadata: Any = None
    templates: Mapping[str, bytes | str] = _NONE
    root: View | None = None
    has_disk: bool = False
    faults: tuple[Finding, ...] = ()


def image(found: Image, host: Host, allow: Collection[str] = ()) -> tuple[Finding, ...]:
    """All that is wrong with an image, errors first."""
    return wanted(_image(found, host), allow)


def tree(view: View, kind: str = CONTAINER, allow: Collection[str] = ()) -> tuple[Finding, ...]:
    """All that is wrong with a guest's tree, errors first. kind: CONTAINER or VM."""
    return wanted(_tree(view, kind), allow)


def _tree(view: View, kind: str) -> Iterator[Finding]:
    for lint in (
        system.lint_init,
        system.lint_identity,
        system.lint_volatile,
        system.lint_kinds,
        system.lint_leftovers,
        accounts.lint_accounts,
        packages.lint_dpkg,
        packages.lint_apt,
    ):
        yield from lint(view)
    yield from network.lint_network(view, kind)
    yield from vm.lint_vm(view) if kind == VM else system.lint_fstab(view)


def _image(found: Image, host: Host) -> Iterator[Finding]:
    yield from found.faults
    if not found.has_metadata and not found.faults:
        yield error("metadata", form.FILE, "is not in the image; Incus refuses it")
    if found.has_metadata:
        yield from of_image.lint_metadata(
            found.metadata, found.templates, host.now_s, host.architecture
        )
    if found.root is None and not found.has_disk and not found.faults:
        text = f"neither {form.ROOTFS}/ nor {form.DISK} is in the image; Incus refuses it"
        yield error("rootfs", form.ROOTFS, text)
    if found.root is not None:
        yield from _tree(found.root, CONTAINER)
        yield from _names(found)


def _names(found: Image) -> Iterator[Finding]:
    """A guest that has a name of its own in its files gets each instance's by a template."""
    if not isinstance(found.metadata, dict) or found.root is None:
        return
    given = found.metadata.get("templates")
    known = given if isinstance(given, dict) else {}
    if not system.is_systemd(found.root):
        return
    for path in ("/etc/hostname", "/etc/hosts"):
        each = known.get(path)
        when = each.get("when") if isinstance(each, dict) else None
        missing = {"create", "copy"} - set(when if isinstance(when, list) else ())
        if each is None or missing:
            text = "instances do not get their own name: add a template with when [create, copy]"
            yield warning("name-template", form.FILE, text, f"templates.{path}")
