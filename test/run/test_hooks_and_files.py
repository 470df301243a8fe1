"""Hooks and files of a definition stay in their tree, whatever they try, and say what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import build_kills
import builds
import debs
import escapes
import pytest
from builds import Place, sh

BUSYBOX = """
mkdir -p usr/bin usr/sbin etc root; cp /usr/bin/busybox usr/bin; ln -s usr/bin usr/sbin .
for name in sh ls cat id env mkdir chroot sleep mount ip nc touch rm; do
    ln -s busybox usr/bin/$name; done
echo root:x:0:0:root:/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group
"""
ESCAPE = """
mkdir /jail; chroot /jail /bin/sh -c true && exit 1
cd /jail; chroot . ../../../../bin/sh -c 'ls /run/osbuild' && exit 1
mount -t tmpfs none /root && exit 1
ls /run/osbuild && exit 1
ls /proc/1/root/run/osbuild && exit 1
ls /dev/osbuild-pika-lifecycle && exit 1
for path in ../../../../run/osbuild /proc/self/root/../run/osbuild; do ls $path && exit 1; done
rm -r /jail
exit 0
"""


@pytest.fixture(name="place")
def fixture_place(tmp_path: Path) -> Place:
    builds.needs_root()
    busybox = Path("/usr/bin/busybox")
    if not busybox.exists() or b"/ld-linux" in busybox.read_bytes():
        pytest.skip("needs busybox-static")
    return Place(tmp_path)


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"type": "org.osbuild-pika.hook", "options": {"name": "last", "script": script, **more}}


def files(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "org.osbuild-pika.files", "options": {"files": list(items)}, **more}


def build(place: Place, *stages: dict[str, Any]) -> tuple[int, str, str]:
    """Build on a small tree. Returns (status, message, output of the last stage)."""
    shutil.rmtree(place.path / "runs", ignore_errors=True)
    code, records = place.build(builds.manifest(sh(BUSYBOX), *stages))
    ends = builds.named(records, "stage.finished")
    return code, records[-1]["message"], ends[-1]["output"] if ends else ""


def test_a_hook_runs_in_the_tree_and_its_output_is_the_log(place: Place) -> None:
    code, message, output = build(
        place, hook("id -u; cat /proc/self/comm; echo x > /etc/made; env")
    )
    assert code == 0, message
    assert output.splitlines()[:2] == ["0", "cat"]
    assert "HOME=/root" in output
    assert "DEBIAN_FRONTEND=noninteractive" in output
    assert (place.output / "etc/made").read_text() == "x\n"
    assert sorted(os.listdir(place.output)) == ["bin", "etc", "root", "sbin", "usr"]
    assert not (place.output / "usr/sbin/policy-rc.d").exists()


def test_no_service_is_started_while_a_hook_runs(place: Place) -> None:
    code, message, output = build(place, hook("/usr/sbin/policy-rc.d x start || echo refused $?"))
    assert (code, output) == (0, "refused 101\n"), message


def test_a_hook_that_fails_is_named_with_its_status_and_last_words(place: Place) -> None:
    code, message, _ = build(place, hook("echo no such thing >&2; sh -c 'exit 7'; echo not seen"))
    assert code == 1
    assert message.endswith("StageError: hook last exited with status 7: no such thing")


def test_a_hook_that_may_fail_is_told_and_its_log_lies_in_the_image(place: Place) -> None:
    first = hook("echo one; echo two >&2; exit 7", may_fail=True, log="/root/a/log")
    code, message, output = build(place, first, hook("cat /root/a/log; stat -c %a /root/a/log"))
    assert code == 0, message
    assert output.split("\n")[:3] == ["one", "two", "600"]


def test_a_log_never_lies_out_of_the_tree(place: Place) -> None:
    code, message, _ = build(place, hook("true", log="/root/../../x"))
    assert (code, "has a `..` in it" in message) == (1, True)


def test_a_hook_that_is_killed_is_named(place: Place) -> None:
    assert build(place, hook("kill -9 $$"))[1].endswith("hook last exited with status 137")


def test_an_interpreter_that_is_not_in_the_tree_is_named(place: Place) -> None:
    code, message, _ = build(place, hook("x", interpreter="/usr/bin/python3"))
    assert (code, "hook last: the tree has no /usr/bin/python3" in message) == (1, True)


def test_a_hook_has_no_network(place: Place) -> None:
    code, message, output = build(place, hook("nc -w 2 192.0.2.1 80 </dev/null"))
    assert code == 1
    assert "unreachable" in message + output


def test_a_hook_gets_nowhere_out_of_its_tree(place: Place) -> None:
    code, message, output = build(place, hook(ESCAPE))
    assert code == 0, message + output
    assert not (place.output / "jail").exists()


def test_a_hook_fails_at_all_that_a_stage_fails_at(place: Place, tmp_path: Path) -> None:
    escapes.need()
    with escapes.targets(tmp_path) as options:
        bundle = escapes.package(tmp_path, options)
        what = builds.manifest(sh(BUSYBOX), debs.stage("extract", [bundle]), hook(escapes.SCRIPT))
        with debs.served([bundle]) as sources:
            code, records = place.build({**what, "sources": sources})
    assert code == 0, records[-3:]
    attempts = json.loads((place.output / "attempts.json").read_text())
    assert escapes.unexpected(attempts, mount_over_usr=escapes.DENIED) == {}


def test_what_a_hook_leaves_running_is_killed(place: Place) -> None:
    marker = f": {place.path}/"
    code, message, _ = build(place, hook(f"(sleep 600; {marker}) & sleep 600 & echo on"))
    assert code == 0, message
    assert not build_kills.left_of(place)


def test_a_tree_whose_own_links_would_be_mounted_over_is_refused(place: Place) -> None:
    code, message, _ = build(place, sh("ln -s /etc proc"), hook("true"))
    assert (code, "/proc of the tree is a link" in message) == (1, True)


def test_files_are_written_with_their_owners_and_modes(place: Place) -> None:
    content = b"\0binary\n"
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    origin = {"type": "org.osbuild.files", "origin": "org.osbuild.source"}
    what = builds.manifest(
        sh(BUSYBOX),
        files(
            {"path": "/srv/a/b", "content": "ü\n", "mode": "4750", "user": "7", "group": "root"},
            {"path": "/srv/bin", "checksum": checksum},
            {"path": "/srv/link", "link": "../nowhere"},
            {"path": "/srv/bin2", "content": "1"},
            {"path": "/srv/bin2", "content": "2"},
            inputs={"files": {**origin, "references": [checksum]}},
        ),
    )
    data = {"encoding": "base64", "data": "AGJpbmFyeQo="}
    what["sources"] = {"org.osbuild.inline": {"items": {checksum: data}}}
    code, records = place.build(what)
    assert code == 0, records[-1]
    srv = place.output / "srv"
    assert (srv / "a/b").read_text() == "ü\n"
    facts = (srv / "a/b").stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o4750, 7, 0)
    assert (srv / "bin").read_bytes() == content
    assert os.readlink(srv / "link") == "../nowhere"
    assert (srv / "bin2").read_text() == "2"
    assert (srv / "a").stat().st_mode & 0o7777 == 0o755


TRAPS: list[tuple[str, dict[str, Any], str]] = [
    ("true", {"path": "/a/../../etc/x", "content": ""}, "has a `..` in it"),
    ("true", {"path": "/usr/bin", "content": ""}, "is a directory of the image"),
    ("true", {"path": "/etc/passwd/x", "content": ""}, "is no directory of the image"),
    ("true", {"path": "/x", "content": "", "link": "y"}, "one of content, checksum and link"),
    ("true", {"path": "/x"}, "one of content, checksum and link"),
    ("true", {"path": "/x", "link": "y", "mode": "0644"}, "a link has no mode"),
    ("true", {"path": "/x", "content": "", "user": "nobody-here"}, "has no user 'nobody-here'"),
    ("true", {"path": "/x", "content": "", "group": "70000"}, "the last id of an image"),
    ("true", {"path": "/x", "checksum": "sha256:" + "0" * 64}, "no input is sha256:"),
    ("ln -s loop loop", {"path": "/loop/x", "content": ""}, "too many links"),
]


@pytest.mark.parametrize(("before", "item", "why"), TRAPS)
def test_a_file_that_cannot_be_is_named(
    place: Place, before: str, item: dict[str, Any], why: str
) -> None:
    code, message, _ = build(place, sh(before), files(item))
    assert (code, why in message) == (1, True), message


LINKS = [
    "ln -s /tmp/out srv",
    "ln -s ../../../../../../tmp/out srv",
    "ln -s /run/osbuild/tree/../../../tmp/out srv",
    "mkdir srv; ln -s /tmp/out/index srv/index",
    "mkdir srv; ln -s /dev/null srv/index",
    "mkdir srv; echo other > other; ln other srv/index",
]


@pytest.mark.parametrize("before", LINKS)
def test_a_link_of_the_tree_never_leads_out_of_it(place: Place, before: str) -> None:
    check = sh(f"{before}; mkdir -p /tmp/out; test -e /tmp/out")
    code, message, _ = build(place, check, files({"path": "/srv/index", "content": "mine"}))
    assert code == 0, message
    written = [path for path in place.output.rglob("index") if not path.is_symlink()]
    assert [path.read_text() for path in written] == ["mine"]
    assert not [path for path in place.output.rglob("other") if path.read_text() != "other\n"]
