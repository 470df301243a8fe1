"""The manifests of definitions are what the modules that they name take."""

import dataclasses
import json

import images
import pytest

from osbuild_pika.engine.load import load
from osbuild_pika.engine.modules import standard
from osbuild_pika.image import manifest
from osbuild_pika.image.local import Local

FULL = """
packages: [nginx-light]
exclude: [vim-tiny, "*-doc"]
groups: [{name: web}, {name: ops, gid: 1000}]
keyring: own.gpg
files:
- {path: /etc/a, content: hi, user: ops, group: 10}
- {path: /etc/b, source: b, mode: "755"}
- {path: /c, link: a}
users:
- {name: ops, groups: [adm], uid: 1000, gid: 1000, home: /srv/ops, shell: /bin/sh, description: O}
hooks:
  post-packages: "true"
  post-files:
  - "#!/bin/bash\\ntrue"
  - {script: x, interpreter: /usr/bin/python3 -u, log: /root/log, may_fail: true}
  last: "false"
ready: {unit: nginx.service, http: "http://127.0.0.1/", within: 90s}
outputs: [incus-unified, incus-split, rootfs-tar, squashfs]
properties: {variant: web}
hostname: web
locale: C.UTF-8
timezone: UTC
services: {enabled: [a.service], disabled: [b.service]}
lint: {allow: [locale, machine-id]}
"""


@pytest.mark.parametrize(
    "text",
    [FULL, f"{FULL}compression: xz", f"{FULL}compression: zstd-3", "", "init: none",
     "lifecycle: false", "base: none\npackages: [a1]"],
    ids=["full", "xz", "zstd-3", "least", "no init", "no lifecycle", "no base"],
)  # fmt: skip
@pytest.mark.parametrize("is_snapshot", [False, True])
def test_a_manifest_is_right(text: str, is_snapshot: bool) -> None:
    asked = images.define(text)
    lock = images.made_lock(asked)
    sources = tuple(dataclasses.replace(each, is_snapshot=is_snapshot) for each in lock.sources)
    given = Local({"b": b"x"}, {"ops": "$6$a"}, b"key" if asked.keyring else None)
    made = manifest.make([manifest.Level(asked, dataclasses.replace(lock, sources=sources), given)])
    loaded = load(json.dumps(made).encode(), standard(()))
    assert [each.name for each in loaded.pipelines] == [each["name"] for each in made["pipelines"]]
