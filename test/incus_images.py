"""Small Incus images for tests: a good one, and those that a real Incus was seen to refuse, to
fail to start, or to take in silence (test/data/incus)."""

from __future__ import annotations

import gzip
import io
import platform
import re
import tarfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data/incus"
FOREIGN = "s390x" if platform.machine() != "s390x" else "x86_64"
BASE = f"architecture: {platform.machine()}\ncreation_date: 1763650000\n"
HEAD = BASE.splitlines()[0]
X = "/etc/x"


def template(name: str, more: str = "", path: str = X) -> str:
    return f"{BASE}templates:\n  {path}:\n    when: [start]\n    template: {name}\n{more}"


# Of each image: its metadata.yaml.
METADATA = {
    "archalias": BASE.replace("x86_64", "amd64").replace("aarch64", "arm64"),
    "archforeign": BASE.replace(HEAD, f"architecture: {FOREIGN}"),
    "badarch": BASE.replace(HEAD, "architecture: sparc99"),
    "badyaml": "architecture: [x86_64\n",
    "dotslash": BASE,
    "emptymeta": "",
    "expired": f"{BASE}expiry_date: 1000000000\n",
    "expiry0": f"{BASE}expiry_date: 0\n",
    "floatcreation": f"{HEAD}\ncreation_date: 1763650000.0\n",
    "good": template("x.tpl"),
    "negcreation": f"{HEAD}\ncreation_date: -5\n",
    "noarch": "creation_date: 1763650000\n",
    "nocreation": f"{HEAD}\n",
    "norootfs": BASE,
    "proplist": f"{BASE}properties: [a, b]\n",
    "propnest": f"{BASE}properties: {{a: {{b: c}}}}\n",
    "propnonstr": f"{BASE}properties: {{a: 1, b: true}}\n",
    "strcreation": f'{HEAD}\ncreation_date: "2025-01-01"\n',
    "tplbadmode": template("x.tpl", "    mode: rw-r--r--\n"),
    "tplbadwhen": template("x.tpl").replace("[start]", "[boot]"),
    "tplescape": template("../metadata.yaml"),
    "tplescape2": template("x.tpl", path="/../../../tmp/x"),
    "tpllist": f"{BASE}templates: [a]\n",
    "tplmissing": template("missing.tpl"),
    "tplsyntax": template("bad.tpl"),
    "tplwhenstr": template("x.tpl").replace("[start]", "start"),
    "unknownkey": f"{BASE}colour: blue\n",
    "zerocreation": f"{HEAD}\ncreation_date: 0\n",
    "trunc": BASE,
}
TEMPLATES = {"x.tpl": "{{ container.name }}\n", "bad.tpl": "{{ container.name\n"}
# Of each defect: its code, and what is said of it, with file and key.
SAID = {
    "archforeign": ("foreign-architecture", "metadata.yaml: architecture: "),
    "badarch": ("architecture", "metadata.yaml: architecture: 'sparc99' is unknown"),
    "badyaml": ("metadata", "metadata.yaml: line 2: is no YAML: did not find expected ',' or ']'"),
    "empty": ("truncated", "empty.tar.gz: is empty"),
    "emptymeta": ("metadata", "metadata.yaml: is empty"),
    "expired": ("expired", "metadata.yaml: expiry_date: 1000000000 has passed"),
    "floatcreation": ("creation-date", "metadata.yaml: creation_date: 1763650000.0 has a"),
    "junk": ("compression", "junk.tar.gz: is no image"),
    "negcreation": ("creation-date", "metadata.yaml: creation_date: -5 is before 1970"),
    "noarch": ("architecture", "metadata.yaml: architecture: is missing"),
    "nocreation": ("creation-date", "metadata.yaml: creation_date: is missing"),
    "nometa": ("metadata", "metadata.yaml: is not in the image"),
    "norootfs": ("rootfs", "rootfs: neither rootfs/ nor rootfs.img is in the image"),
    "onlysquash": ("metadata", "onlysquash.squashfs: is the second part of a split image"),
    "proplist": ("property", "metadata.yaml: properties: is no map"),
    "propnest": ("property", "metadata.yaml: properties.a: is a map"),
    "propnonstr": ("property", "metadata.yaml: properties.a: 1 is no text"),
    "strcreation": ("creation-date", "metadata.yaml: creation_date: '2025-01-01' is no number"),
    "tplbadmode": ("template-mode", f"metadata.yaml: templates.{X}.mode: 'rw-r--r--' is no mode"),
    "tplbadwhen": ("template-when", f"metadata.yaml: templates.{X}.when: 'boot' is never"),
    "tplescape": ("template-file", f"metadata.yaml: templates.{X}.template: '../metadata.yaml' le"),
    "tplescape2": ("template-path", "metadata.yaml: templates./../../../tmp/x: the path leaves"),
    "tpllist": ("templates", "metadata.yaml: templates: is no map"),
    "tplmissing": (
        "template-missing",
        f"metadata.yaml: templates.{X}.template: templates/missing.tpl is not in the image",
    ),
    "tplsyntax": ("template-syntax", "templates/bad.tpl: line 1: '{{' is not closed"),
    "tplwhenstr": ("template-when", f"metadata.yaml: templates.{X}.when: is no list"),
    "trunc": ("truncated", "trunc.tar.gz: is cut short or damaged"),
    "unknownkey": ("unknown-key", "metadata.yaml: colour: Incus ignores this key"),
    "zerocreation": ("creation-date", "metadata.yaml: creation_date: is 0"),
}


def recorded_imports() -> dict[str, str]:
    """What `incus image import` said, by the file's name."""
    text = (DATA / "bad_import.txt").read_text()
    return dict(re.findall(r"^IMPORT (\S+) => (.*)", text, re.MULTILINE))


def recorded_launches() -> dict[str, str]:
    """How instances were after `incus launch`, by the image's name: RUNNING or STOPPED."""
    text = (DATA / "bad_launch.txt").read_text()
    return dict(re.findall(r"^LAUNCH (\S+) => \[([A-Z]+)\]", text, re.MULTILINE))


def member(name: str, content: bytes | None = None, **facts: Any) -> tuple[tarfile.TarInfo, Any]:
    """A member of a tarball: a file with content, else a directory."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode = 0o755 if content is None else 0o644
    info.size = len(content or b"")
    for key, value in facts.items():
        setattr(info, key, value)
    return info, io.BytesIO(content or b"")


def tarball(*members: tuple[tarfile.TarInfo, Any]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, content)
    return made.getvalue()


def image_bytes(metadata: str | None, prefix: str = "", has_root: bool = True) -> bytes:
    """A gzipped unified image; its guest is a program that is init."""
    members = []
    if metadata is not None:
        members.append(member(f"{prefix}metadata.yaml", metadata.encode()))
        members += [member(f"{prefix}templates/{k}", v.encode()) for k, v in TEMPLATES.items()]
    if has_root:
        members += [member(f"{prefix}{name}") for name in ("rootfs", "rootfs/sbin", "rootfs/etc")]
        members.append(member(f"{prefix}rootfs/sbin/init", b"#!/bin/sh\n", mode=0o755))
    return gzip.compress(tarball(*members), mtime=0)


def write_image(place: Path, file_name: str) -> Path:
    """Make the image that is called so in bad_import.txt."""
    name = file_name.partition(".")[0]
    path = place / file_name
    special = {"empty": b"", "junk": b"junk, and nothing but junk\n" * 100}
    special["onlysquash"] = b"hsqs" + bytes(4092)
    if name in special:
        content = special[name]
    else:
        prefix = "./" if name == "dotslash" else ""
        metadata = None if name == "nometa" else METADATA[name]
        content = image_bytes(metadata, prefix, name != "norootfs")
    path.write_bytes(content[:-100] if name == "trunc" else content)
    return path
