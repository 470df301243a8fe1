"""image.yaml: every fault with its place, all at once, and never anything but a fault."""

import os
from pathlib import Path

import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, lock, reading
from osbuild_pika.image.reading import DefinitionError
from osbuild_pika.image.values import Definition, Mirror, Ready, Service

HEAD = "name: web\nfrom: debian/bookworm\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbmVsZXZlbg ops"


def faults(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(DefinitionError) as caught:
        definition.parse(data, "image.yaml")
    return [line.removeprefix("image.yaml:") for line in caught.value.lines]


def made(text: str) -> Definition:
    return definition.parse(f"{HEAD}{text}".encode(), "image.yaml")


def test_the_smallest_definition_has_the_defaults() -> None:
    found = made("")
    assert (found.distribution, found.suite, found.snapshot) == ("debian", "bookworm", None)
    assert (found.base, found.init, found.lifecycle) == ("minbase", "systemd", True)
    assert (found.outputs, found.compression) == (("incus-unified",), "zstd")


def test_without_a_base_there_is_no_init_and_no_lifecycle() -> None:
    found = made("base: none\npackages: [busybox-static]")
    assert (found.init, found.lifecycle) == ("none", False)


def test_every_key_is_read() -> None:
    found = definition.parse(
        b"""
name: web
from: ubuntu/noble@20261101T000000Z
packages: [g++, libc6.1]
files:
- {path: /etc/a, content: "", mode: "755", user: ops, group: 10}
- {path: /etc/b, link: a}
hooks: {last: "#!/bin/bash\\ntrue", post-packages: "true"}
ready: {unit: nginx.service, http: "http://127.0.0.1/", within: 2m}
compression: xz
mirror: [{url: "http://127.0.0.1/{snapshot}/", suites: [noble, noble-updates]}]
services: {enabled: [a@b.service], disabled: [c.timer]}
lint: {allow: [machine-id]}
""",
        "image.yaml",
    )
    assert (found.suite, found.snapshot) == ("noble", "20261101T000000Z")
    first = found.files[0]
    assert (first.mode, first.user, first.group) == ("0755", "ops", 10)
    assert [(each.name, each.interpreter) for each in found.hooks] == [
        ("post-packages", "/bin/sh"),
        ("last", "/bin/bash"),
    ]
    assert found.ready == Ready("nginx.service", None, "http://127.0.0.1/", 120)
    assert found.mirrors == (Mirror("http://127.0.0.1/{snapshot}/", ("noble", "noble-updates")),)
    assert (found.enabled, found.disabled) == (("a@b.service",), ("c.timer",))
    assert found.allowed == ("machine-id",)


def test_a_service_that_runs_is_read_under_each_init() -> None:
    given = "{command: [a, -b], env: {D: d, C: c}, user: u, log: /var/log/x, notify: 3}"
    text = f"name: web\nfrom: debian/bookworm\ninit: s6\nservices: {{run: {{w: {given}}}}}\n"
    found = definition.parse(f"{text}ready: {{service: w}}\n".encode(), "image.yaml")
    assert found.services == (
        Service("w", ("a", "-b"), {"C": "c", "D": "d"}, "u", "/var/log/x", 3),
    )
    assert (found.init, found.ready) == ("s6", Ready(None, "w", None, 60))


def test_a_user_has_keys_and_shows_no_password() -> None:
    found = made(f"users: [{{name: ops, password: secret, ssh_keys: ['{KEY}']}}]")
    assert found.users[0].password == "secret"  # noqa: S105
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("'10m'", 600), ("1h", 3600), ("1.0", 1)]
)
def test_a_time_is_seconds(text: str, seconds: int) -> None:
    ready = made(f"ready: {{unit: a.service, within: {text}}}").ready
    assert ready is not None
    assert ready.within_s == seconds


BAD = {
    "packages: [ab]\nexclude: [ab]": "4:11: 'ab' stands in packages, too",
    "exclude: ['a b']": "3:11: 'a b' is not a package's name, or a pattern: "
    "lower-case letters, digits, + - . and * for any",
    "groups: [{name: a}, {name: a}]": "3:28: 'a' stands in groups[0] already",
    "hooks: {last: []}": "3:15: is empty; leave it out or write a script, or a list of scripts",
    "hooks: {last: [{script: x, log: a}]}": "3:33: 'a' is not a path in the image: "
    "absolute, without .. and without / at its end",
    "hooks: {last: [{script: x, interpreter: sh}]}": "3:41: 'sh' is not an interpreter: "
    "a path in the image, and arguments",
    "packges: [a]": "3:1: unknown key 'packges', did you mean 'packages'?",
    "packages: [Nginx]": "3:12: 'Nginx' is not a package's name: "
    "two or more lower-case letters, digits, + - .",
    "packages: [nginx, nginx]": "3:19: 'nginx' stands here twice",
    "packages: nginx": "3:11: should be a list, not 'nginx'",
    "packages:": "3:10: is empty; write a list",
    "packages:\n  - a b": "4:5: 'a b' is not a package's name: "
    "two or more lower-case letters, digits, + - .",
    "name: two": "3:1: the key 'name' stands here twice",
    "base: min": "3:7: 'min' is none of: minbase, none, did you mean 'minbase'?",
    "outputs: []": "3:10: is empty; leave it out or write a list",
    "outputs: [squashfs, incus]": "3:21: 'incus' is none of: incus-unified, incus-split, "
    "rootfs-tar, squashfs, did you mean 'incus-split'?",
    "hooks: {last: '#!python3'}": "3:15: 'python3' is no path of a program in the image, "
    "such as /bin/bash",
    "lifecycle: maybe": "3:12: should be true or false, not 'maybe'",
    "hostname: 12": "3:11: '12' is no text in YAML: write it in quotes, \"12\"",
    "properties: {version: 12.10}": "3:23: '12.10' is no text in YAML: write it in quotes, "
    '"12.10"',
    "properties: {date: 2026-11-21}": "3:20: '2026-11-21' is no text in YAML: write it in "
    'quotes, "2026-11-21"',
    "properties: {on: yes}": "3:18: 'yes' is no text in YAML: write it in quotes, \"yes\"",
    "files: [{path: /a/../b, content: x}]": "3:16: '/a/../b' is not a path in the image: "
    "absolute, without .. and without / at its end",
    "files: [{path: etc/a, content: x}]": "3:16: 'etc/a' is not a path in the image: "
    "absolute, without .. and without / at its end",
    "files: [{path: /a, mode: 0644, content: x}]": "3:26: '0644' is no text in YAML: write it "
    'in quotes, "0644"',
    "files: [{path: /a, mode: '0844', content: x}]": "3:26: '0844' is not a file's mode: three "
    'or four octal digits in quotes, such as "0644"',
    "files: [{path: /a}]": "3:9: has nothing; write one of content, source, link",
    "files: [{path: /a, content: x, link: y}]": "3:9: has content and link; write one of "
    "content, source, link",
    "files: [{content: x}]": "3:9: the key 'path' is missing",
    "files: [{path: /proc/a, content: x}]": "3:16: '/proc/a': /proc is empty in an image",
    "files: [{path: /a, link: b, mode: '0644'}]": "3:29: a symbolic link has no mode of its own",
    "files: [{path: /a, source: ../b}]": "3:28: '../b' is not a file beside the definition: a "
    "relative path without ..",
    "files: [{path: /a, source: /b}]": "3:28: '/b' is not a file beside the definition: a "
    "relative path without ..",
    "files:\n- {path: /a, content: x}\n- {path: /a, content: y}": "5:10: '/a' stands in "
    "files[0] already",
    "users: [{name: Ops}]": "3:16: 'Ops' is not a user's name: at most 32 lower-case letters, "
    "digits, _ and -, the first no digit and no -",
    "users: [{name: a}, {name: a}]": "3:27: 'a' stands in users[0] already",
    "users: [{name: a, uid: 65536}]": "3:24: '65536' is not a user's id",
    "users: [{name: a, ssh_keys: [ssh-ed25519 x]}]": "3:30: 'ssh-ed25519 x' is not a public ssh "
    "key: one line of an authorized_keys file",
    "hooks: {pre: x}": "3:9: unknown key 'pre'; there are: post-packages, post-files, last",
    "hooks: {last: ''}": "3:15: is empty; leave it out or write a script, or a list of scripts",
    "ready: {within: 60x}": "3:17: '60x' is not a time: a number of seconds, or 90s, 10m, 1h",
    "ready: {unit: a.service, within: 0s}": "3:34: no guest is ready after no time",
    "ready: {http: 'http://127.0.0.1/'}\ninit: none": "3:1: is told by a service of the "
    "init: leave it out, or write init: systemd",
    "ready: {within: 60s}": "3:8: needs `service` (or `unit`), `http` or both: what makes the "
    "guest ready",
    "ready: {unit: a.service, service: a}": "3:9: stands beside `service`: leave one out",
    "ready: {unit: a.service}\ninit: s6": "3:9: is systemd's, and init is s6: write "
    "`service: NAME`",
    "init: runit": "3:7: 'runit' is none of: systemd, s6, openrc, none",
    "base: none\ninit: s6": "4:1: s6 needs base: minbase",
    "init: openrc\nservices: {disabled: [a.service]}": "4:12: lists units of systemd, and init is "
    "openrc: see `run`, or use a hook",
    "init: none\nservices: {run: {a: {command: [b]}}}": "4:1: need an init: systemd, s6 or openrc",
    "services: {run: {pika-cloud-a: {command: [b]}}}": "3:17: 'pika-cloud-a' is not a "
    "service's name: lower-case letters, digits, _ and -, at most 200; pika-cloud- is ours",
    "services: {run: {a: {command: []}}}": "3:31: is empty; leave it out or write a program and "
    "its arguments",
    "services: {run: {a: {command: ['']}}}": "3:32: is empty: it is a program of the image",
    "services: {run: {a: {command: [b], log: /run}}}": "3:41: '/run': /run is empty in an image",
    "init: s6\nservices: {run: {a: {command: [b], env: {UID: '1'}}}}": "4:42: UID is the shell's "
    "own",
    "init: openrc\nservices: {run: {a: {command: [b], env: {RC_A: '1'}}}}": "4:42: RC_A is "
    "OpenRC's own",
    "services: {run: {a: {command: [8080]}}}": "3:32: '8080' is no text in YAML: write it in "
    'quotes, "8080"',
    "services: {run: {a: {}}}": "3:21: the key 'command' is missing",
    "services: {run: {a: {command: [b], env: {'1': c}}}}": "3:41: '1' is not a variable's "
    "name: letters, digits and _, no digit first",
    "services: {run: {a: {command: [b], notify: 3}}}": "3:44: with init systemd it takes "
    "`systemd`",
    "init: s6\nservices: {run: {a: {command: [b], notify: systemd}}}": "4:44: with init s6 it "
    "takes the number of a descriptor",
    "init: openrc\nservices: {run: {a: {command: [b], notify: 3}}}": "4:44: with init openrc it "
    "cannot be used: leave it out",
    "ready: {unit: nginx}": "3:15: 'nginx' is not a systemd unit: with its suffix, such as "
    "nginx.service",
    "ready: {unit: a.service}\nlifecycle: false": "3:1: is told by the lifecycle helper: leave "
    "it out, or write lifecycle: true",
    "base: none\nlifecycle: true": "4:1: needs python3 as it is configured by its maintainer "
    "scripts: base: minbase",
    "base: none\ninit: systemd": "4:1: systemd needs base: minbase",
    "init: none\nservices: {enabled: [a.service]}": "4:1: need an init: systemd, s6 or openrc",
    "mirror: ftp://a/": "3:9: 'ftp://a/' is not a mirror's URL, or a list of mirrors",
    "mirror: http://u:p@127.0.0.1/": "3:9: 'http://u:p@127.0.0.1/': a mirror's URL has no "
    "password in it",
    "mirror: ['http://127.0.0.1/{snapshot}']": "3:10: 'http://127.0.0.1/{snapshot}': has "
    "{snapshot}, but `from` asks for none: write SUITE@20261101T000000Z",
    "mirror: [{url: 'http://[::1'}]": "3:16: 'http://[::1': Invalid IPv6 URL",
    "timezone: ../etc/passwd": "3:11: '../etc/passwd' is not a time zone: such as Europe/Berlin "
    "or UTC",
    "hostname: a_b": "3:11: 'a_b' is not a host name: words of letters, digits and -, with dots "
    "between them, at most 64",
    "properties: {a: &x b, c: *x}": "3:26: an alias: write the value itself",
    "properties: !!map {a: b}": "3:13: a tag, 'tag:yaml.org,2002:map': leave it out",
    "? [a]\n: b": "3:3: a key that is no plain text",
    "---\nname: b": "3:1: a second document begins here",
    "hostname: 'a": "3:13: is not YAML: while scanning a quoted scalar, found unexpected end of "
    "stream",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_fault_has_its_place(text: str) -> None:
    assert faults(f"{HEAD}{text}") == [BAD[text]]


def test_all_faults_are_told_at_once_in_order() -> None:
    assert faults("from: bookworm\nlifecycle: 3\npackges: []\n") == [
        "1:1: the key 'name' is missing",
        "1:7: 'bookworm' is not a distribution and its suite, or another definition: "
        "debian/bookworm or ubuntu/noble, with @20261101T000000Z for a snapshot, or a file such as "
        "base.yaml",
        "2:12: should be true or false, not '3'",
        "3:1: unknown key 'packges', did you mean 'packages'?",
    ]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "1:1: the key 'from' is missing"),
        (b"- a", "1:1: should be an image definition (a mapping of keys to values), not a list"),
        (b"a: \xff", "1:4: is not UTF-8 text"),
        (b"a: \x00", "1:4: is not YAML: control characters are not allowed"),
        (b"#" * (reading.MAX_BYTES + 1), "1:1: is larger than 1048576 bytes"),
        (b"[" * 1_000_000, "1:21: is nested deeper than 20 lists and mappings"),
        (b"{a: " * 200_000, "1:81: is nested deeper than 20 lists and mappings"),
        (b"files: [" + b"a, " * 10_000, "1:30003: has more than 10000 values"),
        (b'a: "\\ud800"', "1:7: is not YAML: while parsing a quoted scalar, found invalid Unicode "
         "character escape code"),
    ],
    ids=["empty", "list", "latin-1", "null", "large", "deep", "deep maps", "long", "surrogate"],
)  # fmt: skip
def test_what_is_no_definition_at_all(data: bytes, fault: str) -> None:
    assert fault in faults(data)


@pytest.mark.parametrize(
    ("first", "interpreter"),
    [
        ("#!/usr/bin/env python3", "/usr/bin/env python3"),
        ("#! /bin/bash  -eu", "/bin/bash -eu"),
        ("#!", "/bin/sh"),
        ("# !/bin/bash", "/bin/sh"),
    ],
)
def test_a_hooks_first_line_names_what_runs_it(first: str, interpreter: str) -> None:
    (hook,) = made(f'hooks: {{last: "{first}\\ntrue"}}').hooks
    assert hook.interpreter == interpreter


def test_a_newline_at_the_end_of_a_value_counts() -> None:
    assert faults('name: "web\\n"\nfrom: debian/bookworm') == [
        "1:7: 'web\\n' is not an image's name: lower-case letters, digits, . and -, at most 63"
    ]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        definition.load(str(tmp_path / "image.yaml"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("image.yaml", "image.lock.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"image\.yaml: is no regular file"):
        definition.load(str(tmp_path / "image.yaml"))
    with pytest.raises(InputError, match=r"image\.lock\.json: is no regular file"):
        lock.read(str(tmp_path / "image.lock.json"))
