"""What the tree of a virtual machine needs to boot under Incus."""

from __future__ import annotations

import re

from osbuild_pika.inside.lint.finding import error, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.lint.view import View

BY_ID = ("UUID=", "PARTUUID=", "LABEL=", "PARTLABEL=", "/dev/disk/by-")
LOADERS = ("boot/efi/EFI/BOOT", "efi/EFI/BOOT", "boot/EFI/BOOT", "EFI/BOOT")
CONSOLES = (
    "etc/default/grub",
    "etc/kernel/cmdline",
    "boot/grub/grub.cfg",
    "usr/lib/kernel/cmdline",
)
UNITS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def lint_vm(view: View) -> Iterator[Finding]:
    yield from _fstab(view)
    if not any(view.children(place) for place in LOADERS):
        yield error(
            "esp", "boot/efi", "has no EFI/BOOT, so no firmware starts it; install a loader"
        )
    parts = view.children("etc/default/grub.d") + view.children("boot/loader/entries")
    if not any("console=ttyS0" in view.text(name) for name in (*CONSOLES, *parts)):
        text = "no kernel is told console=ttyS0, so `incus console` shows nothing"
        yield error("console", "etc/default/grub", text)
    if not _has_module(view, "virtio_scsi"):
        text = "no kernel has virtio_scsi, so the root disk is not found; install another kernel"
        yield error("virtio-scsi", "usr/lib/modules", text)
    if not (view.has("usr/bin/growpart") or view.has("usr/bin/systemd-repart")):
        text = "nothing grows the root partition; install cloud-guest-utils"
        yield warning("growpart", "usr/bin/growpart", text)
    units = (f"{place}/{name}.service" for place in UNITS for name in ("incus-agent", "lxd-agent"))
    if not any(view.has(name) for name in units):
        text = "is missing, so `incus exec` finds nobody; install the agent's unit"
        yield error("agent", f"{UNITS[0]}/incus-agent.service", text)


def _fstab(view: View) -> Iterator[Finding]:
    lines = [line.split() for line in view.text("etc/fstab").splitlines()]
    mounts = [words for words in lines if len(words) > 1 and not words[0].startswith("#")]
    roots = [words[0] for words in mounts if words[1] == "/"]
    if not roots:
        yield error("fstab", "etc/fstab", "mounts no /; write it by UUID")
    for name in roots:
        if not name.startswith(BY_ID):
            yield error("fstab", "etc/fstab", f"mounts / from '{name}'; write it by UUID")


def _has_module(view: View, name: str) -> bool:
    file_name = re.compile(rf"/{name.replace('_', '[-_]')}\.ko(\.(xz|zst|gz))?$")
    places = ("usr/lib/modules", "lib/modules")
    for place in places:
        for kernel in view.children(place):
            if re.search(rf"/{name}\.ko", view.text(f"{kernel}/modules.builtin")):
                return True
            if any(file_name.search(each) for each in view.below(f"{kernel}/kernel")):
                return True
    return False
