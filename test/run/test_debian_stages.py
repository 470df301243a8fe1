"""What stages do to a real Debian tree: tiny packages, accounts; and each way in which it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import build_kills
import builds
import debs
import escapes
import kills
import pytest
from builds import Place, sh
from debs import Deb

EPOCH = 1_760_000_000


@pytest.fixture(name="place")
def fixture_place(tmp_path: Path) -> Place:
    builds.needs_root()
    debs.needs_programs()
    return Place(tmp_path)


@pytest.fixture(name="minimum", scope="module")
def fixture_minimum(pytestconfig: pytest.Config) -> list[Deb]:
    builds.needs_root()
    debs.needs_programs()
    assert pytestconfig.cache is not None
    return debs.fetch(pytestconfig.cache.mkdir("debs"))


@pytest.fixture(name="root", scope="module")
def fixture_root(minimum: list[Deb], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place in whose store is a Debian tree."""
    place = Place(tmp_path_factory.mktemp("root"))
    code, records = build(place, [debs.stage("bootstrap", minimum)], minimum)
    assert code == 0, records[-3:]
    return place


def build(place: Place, stages: list[dict[str, Any]], packages: list[Deb]) -> tuple[int, Any]:
    what = builds.manifest(*stages)
    what["pipelines"][0]["source-epoch"] = EPOCH
    shutil.rmtree(place.path / "runs", ignore_errors=True)
    with debs.served(packages) as sources:
        return place.build({**what, "sources": sources})


def on_root(
    root: Place, minimum: list[Deb], packages: list[Deb], mode: str = "install"
) -> tuple[int, str, str]:
    """Build with packages on the Debian tree. Returns (status, message, all output)."""
    stages = [debs.stage("bootstrap", minimum), debs.stage(mode, packages), sh("ls -a run tmp dev")]
    code, records = build(root, stages, [*minimum, *packages])
    output = "".join(record.get("text", "") for record in records)
    return code, records[-1]["message"], output


def test_packages_are_installed_into_a_tree(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    scripts = (
        "#!/bin/sh\nset -e\ntest -x /usr/sbin/policy-rc.d\ninvoke-rc.d x start || test $? = 101\n"
    )
    needed = debs.make(tmp_path, "pika-data", usr__share__pika__data="data\n")
    asked = debs.make(tmp_path, "pika", "Depends: pika-data\n", postinst=scripts, usr__bin__pika="")
    needed = Deb(needed.name, needed.version, needed.arch, needed.path, auto=True)
    code, message, _ = on_root(root, minimum, [asked, needed])
    assert code == 0, message
    assert (root.output / "usr/share/pika/data").read_text() == "data\n"
    marks = (root.output / "var/lib/apt/extended_states").read_text()
    assert "Package: pika-data\nArchitecture: amd64\nAuto-Installed: 1\n" in marks
    assert "Package: pika\n" not in marks
    assert not (root.output / "usr/sbin/policy-rc.d").exists()
    assert "pika_1.0-1_all.deb" not in str(list((root.output / "var").rglob("*")))


def test_a_maintainer_script_that_fails_is_named_and_its_words_are_shown(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    script = "#!/bin/sh\necho the frobnicator is cold\nexit 3\n"
    bad = debs.make(tmp_path, "pika-bad", postinst=script)
    code, message, output = on_root(root, minimum, [bad])
    assert code == 1
    assert "package pika-bad: installed pika-bad package post-installation script" in message
    assert "  | the frobnicator is cold\n" in output


def test_a_package_whose_needs_are_not_locked_is_refused(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    lonely = debs.make(tmp_path, "pika-lonely", "Depends: no-such-package\n")
    code, message, output = on_root(root, minimum, [lonely])
    assert code == 1
    assert "no-such-package" in output
    assert "StageError: " in message


def test_a_script_finds_no_network_and_leaves_no_process(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    script = "#!/bin/bash\n(sleep 600 &)\n! (exec 3<>/dev/tcp/192.0.2.1/80) 2>/dev/null\n"
    busy = debs.make(tmp_path, "pika-busy", postinst=script)
    code, message, _ = on_root(root, minimum, [busy])
    assert code == 0, message


def test_a_script_fails_at_all_that_a_stage_fails_at(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    escapes.need()
    with escapes.targets(tmp_path) as options:
        bundle = escapes.package(tmp_path, options, postinst=escapes.SCRIPT)
        code, message, output = on_root(root, minimum, [bundle])
    assert code == 0, message + output[-2000:]
    attempts = json.loads((root.output / "attempts.json").read_text())
    assert escapes.unexpected(attempts, mount_over_usr=escapes.DENIED) == {}


def test_a_script_of_the_first_tree_fails_likewise(
    place: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    """mmdebstrap's chroot holds nobody who may mount; what is around it must."""
    escapes.need()
    with escapes.targets(tmp_path) as options:
        bundle = escapes.package(tmp_path, options, postinst=escapes.SCRIPT)
        packages = [*minimum, bundle]
        code, records = build(place, [debs.stage("bootstrap", packages)], packages)
    assert code == 0, records[-6:]
    attempts = json.loads((place.output / "attempts.json").read_text())
    assert escapes.unexpected(attempts, remount_usr={"EINVAL"}) == {}  # it is no mount there


def test_a_kill_in_the_middle_leaves_nothing(
    root: Place, minimum: list[Deb], tmp_path: Path
) -> None:
    script = f"#!/bin/sh\necho at work\nexec sh -c 'sleep 600; : {tmp_path}/'\n"
    packages = [*minimum, debs.make(tmp_path, "pika-slow", postinst=script)]
    what = builds.manifest(debs.stage("bootstrap", packages))
    shutil.rmtree(root.path / "runs", ignore_errors=True)
    with debs.served(packages) as sources:
        with root.started(root.order({**what, "sources": sources})) as started:
            started.until(lambda record: "at work" in str(record.get("text")))
            assert kills.processes_of(tmp_path)
            started.process.kill()
        builds.wait_for(lambda: not kills.processes_of(tmp_path))
        builds.wait_for(lambda: not build_kills.left_of(root))
    code, records = build(root, [debs.stage("bootstrap", minimum)], minimum)
    assert (code, len(builds.named(records, "stage.cached"))) == (0, 1)
    assert list((root.path / "store/tmp").iterdir()) == []


def accounts(root: Place, minimum: list[Deb], *stages: dict[str, Any]) -> tuple[int, str]:
    typed = [
        {"type": f"org.osbuild.{kind}", "options": each[kind]} for each in stages for kind in each
    ]
    code, records = build(root, [debs.stage("bootstrap", minimum), *typed], minimum)
    return code, records[-1]["message"]


def test_users_are_made_and_changed(root: Place, minimum: list[Deb]) -> None:
    made = {"ops": {"uid": 1234, "keys": ["key one"], "key": "key two", "description": "O P"}}
    changed = {
        "ops": {"shell": "/bin/bash", "groups": ["users"], "password": "$6$x"},
        "root": {"password": ""},
    }
    groups = {"groups": {"groups": {"web": {"gid": 2000.0}}}}
    code, message = accounts(
        root, minimum, groups, {"users": {"users": made}}, {"users": {"users": changed}}
    )
    assert code == 0, message
    read = (root.output / "etc/passwd").read_text().splitlines()
    assert read[-1] == "ops:x:1234:1234:O P:/home/ops:/bin/bash"
    assert "web:x:2000:" in (root.output / "etc/group").read_text()
    assert f"ops:$6$x:{EPOCH // 86400}:" in (root.output / "etc/shadow").read_text()
    assert "\nroot::" in "\n" + (root.output / "etc/shadow").read_text()
    keys = root.output / "home/ops/.ssh/authorized_keys"
    assert keys.read_text() == "key one\nkey two\n"
    assert (keys.stat().st_uid, keys.stat().st_mode & 0o777) == (1234, 0o600)
    assert keys.parent.stat().st_mode & 0o777 == 0o700


def test_users_that_cannot_be_made_are_named(root: Place, minimum: list[Deb]) -> None:
    code, message = accounts(root, minimum, {"users": {"users": {"man": {"uid": 99}}}})
    assert (code, "user man: has the uid 6 already, not 99" in message) == (1, True)
    code, message = accounts(root, minimum, {"users": {"users": {"x": {"groups": ["nope"]}}}})
    assert (code, "user x exited with status 6: useradd: group 'nope' does not exist") == (
        1,
        message.partition("StageError: ")[2],
    )


def test_a_keys_home_that_leads_out_of_the_tree_stays_below_it(
    root: Place, minimum: list[Deb]
) -> None:
    stages = [
        debs.stage("bootstrap", minimum),
        sh("mkdir -p outside; ln -s /outside home/ops"),
        {"type": "org.osbuild.users", "options": {"users": {"ops": {"keys": ["a key"]}}}},
    ]
    code, records = build(root, stages, minimum)
    assert code == 0, records[-1]
    assert (root.output / "outside/.ssh/authorized_keys").read_text() == "a key\n"


def test_a_package_that_is_not_what_was_locked_is_refused(place: Place, tmp_path: Path) -> None:
    given = debs.make(tmp_path, "pika", usr__bin__pika="")
    wrong = {
        "version": "2.0-1",
        "arch": "amd64",
        "name": "pikb",
    }
    for field, value in wrong.items():
        stage = debs.stage("extract", [given])
        stage["options"]["packages"][0][field] = value
        code, records = build(place, [stage], [given])
        assert code == 1
        assert f" is {value} in the lock, " in records[-1]["message"]


def test_an_input_that_is_no_package_or_not_there_is_named(place: Place, tmp_path: Path) -> None:
    given = debs.make(tmp_path, "pika", usr__bin__pika="")
    other = debs.make(tmp_path, "other", usr__bin__other="")
    stage = debs.stage("extract", [given, other])
    stage["inputs"]["packages"]["references"].pop()
    code, records = build(place, [stage], [given, other])
    assert (code, "other: no input is sha256:" in records[-1]["message"]) == (1, True)
    (tmp_path / "text.deb").write_text("no package")
    text = Deb("text", "1", "all", tmp_path / "text.deb")
    code, records = build(place, [debs.stage("extract", [text])], [text])
    assert (code, "is no Debian package" in records[-1]["message"]) == (1, True)


def test_files_alone_are_unpacked_without_scripts(place: Place, tmp_path: Path) -> None:
    script = "#!/bin/sh\nexit 1\n"
    package = debs.make(tmp_path, "pika", preinst=script, postinst=script, usr__bin__pika="x")
    code, records = build(place, [debs.stage("extract", [package])], [package])
    assert code == 0, records[-1]
    found = sorted(str(path.relative_to(place.output)) for path in place.output.rglob("*"))
    assert found == ["usr", "usr/bin", "usr/bin/pika"]
    progress = (place.path / "runs/test/events.jsonl").read_text()
    assert "unpacking pika" in progress


def test_a_tree_without_apt_takes_no_more_packages(place: Place, tmp_path: Path) -> None:
    package = debs.make(tmp_path, "pika", usr__bin__pika="x")
    code, records = build(place, [debs.stage("install", [package])], [package])
    assert code == 1
    assert "the tree has no apt-get" in records[-1]["message"]


def test_all_that_a_source_says_is_of_one_step(place: Place, tmp_path: Path) -> None:
    packages = [debs.make(tmp_path, f"pika-{n}", usr__share__pika="x" * n) for n in range(20)]
    code, records = build(place, [debs.stage("extract", packages)], packages)
    assert code == 0, records[-3:]
    said = [each for each in records if each["record"].startswith("source.")]
    assert {each["record"] for each in said} == {
        *("source.started", "source.progress", "source.finished")
    }
    assert len({(each["source"], each["id"]) for each in said}) == 1
