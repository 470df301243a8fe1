"""metadata.yaml of an Incus image: what is in it, and how we write it. Nothing here reads a file.

    architecture    a name that Incus knows, such as x86_64
    creation_date   Unix seconds, not 0; expiry_date likewise, 0 or absent: never
    properties      texts by name, shown to users
    templates       path in the instance -> {when: [create, copy, rename, start], create_only,
                    template: its file in templates/, properties, uid, gid, mode (texts)}

It is written as JSON, which is YAML.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FILE, TEMPLATES, ROOTFS, DISK = "metadata.yaml", "templates", "rootfs", "rootfs.img"
MAX_METADATA = 1 << 20  # bytes
WHEN = ("create", "copy", "rename", "start")
# Incus's name -> other names that it takes for the same
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "i686": ("i386", "i586", "386", "x86", "generic_32"),
    "x86_64": ("amd64", "generic_64"),
    "armv6l": ("armel", "arm"),
    "armv7l": ("armhf", "armhfp", "armv7a_hardfp", "armv7", "armv7a_vfpv3_hardfp"),
    "armv8l": (),
    "aarch64": ("arm64", "arm64_generic"),
    "ppc": ("powerpc",),
    "ppc64": ("powerpc64",),
    "ppc64le": ("ppc64el",),
    "s390x": (),
    "mips": ("mipsel", "mipsle"),
    "mips64": ("mips64el", "mips64le"),
    "riscv32": (),
    "riscv64": (),
    "loongarch64": ("loong64",),
}
# What a machine of an architecture runs beside its own.
ALSO_RUNS: dict[str, tuple[str, ...]] = {
    "x86_64": ("i686",),
    "armv7l": ("armv6l",),
    "armv8l": ("armv6l", "armv7l"),
    "aarch64": ("armv6l", "armv7l", "armv8l"),
    "ppc64": ("ppc",),
    "mips64": ("mips",),
}
_NAMES = {alias: name for name, aliases in ARCHITECTURES.items() for alias in (name, *aliases)}

HOSTNAME = "{{ container.name }}\n"
HOSTS = """127.0.0.1\tlocalhost
127.0.1.1\t{{ container.name }}

# The following lines are desirable for IPv6 capable hosts
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
# What a Debian container needs: else each instance is called as the image, or not at all.
DEFAULT_TEMPLATES: dict[str, dict[str, Any]] = {
    "/etc/hostname": {"when": ["create", "copy"], "template": "hostname.tpl", "content": HOSTNAME},
    "/etc/hosts": {"when": ["create", "copy"], "template": "hosts.tpl", "content": HOSTS},
}


def architecture(name: str) -> str | None:
    """Incus's own name for an architecture; None if it knows none of this name."""
    return _NAMES.get(name)


def runs_on(image: str, host: str) -> bool:
    """Whether a host runs images of an architecture. Both are Incus's names."""
    return image == host or image in ALSO_RUNS.get(host, ())


def from_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the stage's options mean: metadata, and the files of templates/ by name.

    `templates` missing: DEFAULT_TEMPLATES; a template without content is a file that a stage
    before has put into templates/. `template` may be left out where there is content.
    """
    metadata = {
        "architecture": architecture(options["architecture"]) or options["architecture"],
        "creation_date": options["creation_date"],
    }
    if "expiry_date" in options:
        metadata["expiry_date"] = options["expiry_date"]
    metadata["properties"] = dict(sorted(options.get("properties", {}).items()))
    templates, files = {}, {}
    given = options.get("templates", DEFAULT_TEMPLATES)
    for path, each in sorted(given.items()):
        name = each.get("template") or file_name(path)
        kept = {key: value for key, value in each.items() if key != "content"}
        templates[path] = {**kept, "template": name}
        if "content" in each:
            files[name] = each["content"]
    metadata["templates"] = templates
    return metadata, files


def file_name(path: str) -> str:
    """A name in templates/ for the template of a path: /etc/hosts -> etc-hosts.tpl."""
    return f"{path.strip('/').replace('/', '-')}.tpl"


def to_text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"


def creation_date(tree: str) -> int | None:
    """creation_date of the metadata that we wrote into a tree; None if it says none."""
    try:
        with open(os.path.join(tree, FILE), encoding="utf-8") as file:
            found = json.loads(file.read(MAX_METADATA)).get("creation_date")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None
