"""A definition and its lock as a manifest: pure, stable, and valid for the engine."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import images
import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import local, manifest
from osbuild_pika.image.local import Local
from osbuild_pika.image.reading import DefinitionError

FULL = """
packages: [nginx-light]
files: [{path: /etc/a, content: hi}, {path: /etc/b, source: b, mode: "755"}, {path: /c, link: a}]
users: [{name: ops, password: secret, groups: [adm]}]
hooks: {post-packages: "true", post-files: "#!/bin/bash\\ntrue", last: "false"}
ready: {unit: nginx.service, within: 90s}
outputs: [incus-unified, incus-split, rootfs-tar, squashfs]
properties: {variant: web}
hostname: web
locale: C.UTF-8
timezone: UTC
services: {enabled: [a.service], disabled: [b.service]}
lint: {allow: [z, a]}
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbg"
B = b"#!/bin/sh\n"


def make(text: str = "", given: Local | None = None) -> Any:
    asked = images.define(text)
    return manifest.make([manifest.Level(asked, images.made_lock(asked), given or Local())])


def stages(document: Any, pipeline: str = "rootfs") -> list[Any]:
    found = next(each for each in document["pipelines"] if each["name"] == pipeline)
    return list(found["stages"])


def options(document: Any, kind: str) -> Any:
    return next(each["options"] for each in stages(document) if each["type"] == kind)


@pytest.fixture
def full() -> Any:
    return make(FULL, Local({"b": B}, {"ops": "$6$hash"}))


def test_the_stages_come_in_their_order(full: Any) -> None:
    assert [each["type"].rpartition("org.osbuild")[2] for each in stages(full)] == [
        "-pika.deb",
        "-pika.deb",
        "-pika.deb.config",
        "-pika.hook",
        ".users",
        "-pika.files",
        ".hostname",
        ".locale",
        ".timezone",
        ".systemd",
        "-pika.hook",
        "-pika.guest",
        "-pika.hook",
        "-pika.clean",
        "-pika.lint",
    ]


def test_the_base_does_not_change_with_the_rest(full: Any) -> None:
    bare = make()
    assert stages(bare)[0] == stages(full)[0]
    assert stages(bare)[0]["options"]["mode"] == "bootstrap"
    assert stages(bare)[1]["options"]["mode"] == "install"


def test_the_same_values_are_the_same_bytes(full: Any) -> None:
    again = make(FULL, Local({"b": B}, {"ops": "$6$hash"}))
    assert json.dumps(again) == json.dumps(full)


def test_packages_are_sources_with_their_checksums(full: Any) -> None:
    items = full["sources"]["org.osbuild.curl"]["items"]
    nginx = images.package("nginx-light", False)
    assert items[f"sha256:{nginx.sha256}"] == {"url": nginx.url}
    assert stages(full)[1]["inputs"]["packages"]["references"] == [f"sha256:{nginx.sha256}"]
    assert stages(full)[1]["options"]["packages"] == [
        {
            "name": "nginx-light",
            "version": "1:1.0-1",
            "arch": "amd64",
            "checksum": f"sha256:{nginx.sha256}",
            "auto": True,
        }
    ]


def test_files_hooks_and_users_are_told_as_they_are(full: Any) -> None:
    owner = {"user": "root", "group": "root"}
    name = f"sha256:{hashlib.sha256(B).hexdigest()}"
    assert options(full, "org.osbuild-pika.files")["files"] == [
        {"path": "/etc/a", "content": "hi", "mode": "0644", **owner},
        {"path": "/etc/b", "checksum": name, "mode": "0755", **owner},
        {"path": "/c", "link": "a", **owner},
    ]
    assert full["sources"]["org.osbuild.inline"]["items"].keys() == {name}
    assert options(full, "org.osbuild.users")["users"] == {
        "ops": {"groups": ["adm"], "password": "$6$hash"}
    }
    hooks = [each["options"] for each in stages(full) if each["type"].endswith("hook")]
    assert [each["interpreter"] for each in hooks] == ["/bin/sh", "/bin/bash", "/bin/sh"]


def test_a_list_of_hooks_runs_in_order_each_as_it_says() -> None:
    second = "{script: b, interpreter: /usr/bin/perl -w, log: /root/log, may_fail: true}"
    made = make(f"hooks: {{last: ['#!/bin/bash', {second}]}}")
    hooks = [each["options"] for each in stages(made) if each["type"].endswith("hook")]
    assert hooks == [
        {"name": "last", "script": "#!/bin/bash", "interpreter": "/bin/bash"},
        {
            "name": "last.2",
            "script": "b",
            "interpreter": "/usr/bin/perl -w",
            "log": "/root/log",
            "may_fail": True,
        },
    ]


def test_groups_come_before_users_and_only_those_without_an_id_may_be_there() -> None:
    made = make("groups: [{name: a}, {name: b, gid: 7}]\nusers: [{name: u, groups: [a, b]}]")
    found = [
        each for each in stages(made) if each["type"] in ("org.osbuild.groups", "org.osbuild.users")
    ]
    assert [each["options"] for each in found] == [
        {"groups": {"a": {}}, "force": True},
        {"groups": {"b": {"gid": 7}}},
        {"users": {"u": {"groups": ["a", "b"]}}},
    ]


def test_the_guest_is_told_what_is_ready(full: Any) -> None:
    assert options(full, "org.osbuild-pika.guest") == {
        "init": "systemd",
        "lifecycle": True,
        "network": "dhcp",
        "ready": {"unit": "nginx.service", "within_s": 90},
    }
    assert options(full, "org.osbuild-pika.lint") == {"type": "container", "allow": ["a", "z"]}


def test_services_come_before_the_guest_and_are_of_its_init() -> None:
    run = "services: {run: {b: {command: [sh, -c, x], env: {A: '1'}}, a: {command: [y]}}}"
    made = make(f"init: openrc\n{run}\nready: {{service: a, within: 9s}}")
    kinds = [each["type"] for each in stages(made)]
    assert kinds[-5:-2] == [*["org.osbuild-pika.service"] * 2, "org.osbuild-pika.guest"]
    found = [each["options"] for each in stages(made)[-5:-2]]
    assert found == [
        {"name": "a", "command": ["y"], "init": "openrc"},
        {"name": "b", "command": ["sh", "-c", "x"], "env": {"A": "1"}, "init": "openrc"},
        {
            "init": "openrc",
            "lifecycle": True,
            "network": "dhcp",
            "ready": {"service": "a", "within_s": 9},
        },
    ]


@pytest.mark.parametrize(
    ("root", "allowed"),
    [
        ("password: x", ["root-password"]),
        (f"ssh_keys: [{KEY}]", ["root-keys"]),
        ("shell: /bin/sh", []),
    ],
)
def test_what_is_asked_of_root_is_no_finding(root: str, allowed: list[str]) -> None:
    definition = images.define(f"users: [{{name: root, {root}}}]")
    stages = manifest.make([manifest.Level(definition, images.made_lock(definition), Local())])[
        "pipelines"
    ][0]
    assert stages["stages"][-1]["options"]["allow"] == allowed


def test_the_metadata_has_the_time_of_the_lock(full: Any) -> None:
    told = stages(full, "metadata")[0]["options"]
    assert (told["architecture"], told["creation_date"]) == ("x86_64", images.EPOCH)
    assert told["properties"]["serial"] == "20261120_0211"
    assert told["properties"]["variant"] == "web"
    assert {each["source-epoch"] for each in full["pipelines"]} == {images.EPOCH}


def test_each_output_is_a_pipeline_that_is_exported(full: Any) -> None:
    names = ["incus-unified", "incus-split", "rootfs-tar", "squashfs"]
    assert [each["name"] for each in full["pipelines"]] == ["rootfs", "metadata", *names]
    assert full["metadata"]["exports"] == [{"name": each} for each in names]
    given = {name: stages(full, name)[0]["options"] for name in names}
    assert given["incus-unified"]["compression"] == {"method": "zstd", "level": 9}
    assert given["incus-unified"]["filename"] == "web.tar.zst"
    assert given["incus-split"]["rootfs"] == "web.squashfs"
    assert given["rootfs-tar"]["filename"] == "web-rootfs.tar.zst"


@pytest.mark.parametrize(
    ("text", "suffix", "level"),
    [("zstd-3", "zst", {"method": "zstd", "level": 3}), ("xz", "xz", {"method": "xz"})],
)
def test_the_compression_is_the_wanted_one(text: str, suffix: str, level: Any) -> None:
    packed = stages(make(f"compression: {text}"), "incus-unified")[0]["options"]
    assert (packed["filename"], packed["compression"]) == (f"web.tar.{suffix}", level)


def test_without_a_base_packages_are_unpacked_only() -> None:
    kinds = [each["type"] for each in stages(make("base: none\npackages: [busybox-static]"))]
    assert kinds == [
        "org.osbuild-pika.deb",
        "org.osbuild-pika.guest",
        "org.osbuild-pika.clean",
        "org.osbuild-pika.lint",
    ]


def test_an_own_keyring_lies_in_the_image_before_it_is_named(full: Any) -> None:
    found = [each["type"] for each in stages(make("keyring: own.gpg", Local(keyring=b"key")))]
    assert found[:4] == [*[each["type"] for each in stages(full)[:2]], "org.osbuild-pika.files",
                         "org.osbuild-pika.deb.config"]  # fmt: skip


def test_another_keyring_than_the_locks_is_refused() -> None:
    with pytest.raises(InputError, match="the keyring is not the lock's any more"):
        make("keyring: own.gpg", Local(keyring=b"other"))


# --- what comes from the definition's directory --------------------------------------------------


def gather(tmp_path: Path, *sources: str) -> Local:
    files = "".join(f"- {{path: /f{n}, source: {each}}}\n" for n, each in enumerate(sources))
    return local.gather(images.define(f"files:\n{files}"), str(tmp_path / "a/image.yaml"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "a/sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a/sub/b").write_bytes(B)
    (tmp_path / "a/link").symlink_to("sub/b")
    (tmp_path / "a/out").symlink_to("../secret")
    (tmp_path / "a/above").symlink_to("..")
    (tmp_path / "a/loop").symlink_to("loop")
    return tmp_path


def test_sources_are_read_also_through_links_that_stay(directory: Path) -> None:
    assert gather(directory, "sub/b", "link").contents == {"sub/b": B, "link": B}


def test_all_sources_that_cannot_be_taken_are_told_with_their_places(directory: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        gather(directory, "gone", "sub", "out", "above/secret", "link", "loop")
    assert caught.value.lines == [
        "image.yaml:4:23: 'gone': No such file or directory",
        "image.yaml:5:23: 'sub': Is a directory",
        "image.yaml:6:23: 'out' leads out of the definition's directory",
        "image.yaml:7:23: 'above/secret' leads out of the definition's directory",
        "image.yaml:9:23: 'loop': Too many levels of symbolic links",
    ]


def test_a_keyring_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"keyring 'own\.gpg': No such file"):
        local.gather(images.define("keyring: own.gpg"), str(tmp_path / "image.yaml"))


@pytest.mark.parametrize(
    ("keyring", "why"), [("/dev/zero", "is no regular file"), ("pipe", "is no regular file")]
)
def test_a_keyring_without_an_end_is_not_read(keyring: str, why: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=why):
        local.gather(images.define(f"keyring: {keyring}"), str(tmp_path / "image.yaml"))


def test_a_password_is_hashed_the_same_each_time_and_never_kept() -> None:
    first, again = (local.hashed("secret", "web ops") for _ in range(2))
    assert first == again
    assert first.startswith("$6$")
    assert local.hashed("secret", "web root") != first
    document = json.dumps(make(FULL, Local({"b": B}, {"ops": first})))
    assert '"secret"' not in document


@pytest.mark.parametrize("given", ["", "!", "*", "$6$salt$hash", "$y$j9T$salt$hash"])
def test_a_hash_none_and_locked_stay_as_they_are(given: str) -> None:
    assert local.hashed(given, "web ops") == given
