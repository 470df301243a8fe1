"""nix/incus and the flake, evaluated, built and run with Debian's nix-bin; nothing is left."""

import functools
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data.nix.private_nix import DATA, ROOT, UNIT, Nix, boot, qcow2

NIX_FILES = sorted([ROOT / "flake.nix", *ROOT.glob("nix/**/*.nix"), *DATA.glob("*.nix")])
Settings = dict[str, Any]

pytestmark = pytest.mark.skipif(
    shutil.which("nix-build") is None, reason="nix-build is missing: install Debian's nix-bin"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where stores can be: their directories are read-only, so pytest could not remove them."""
    place = tmp_path / "nix"
    yield place
    for folder, _, _ in os.walk(place):
        Path(folder).chmod(0o700)
    shutil.rmtree(place)


@pytest.fixture
def nix(place: Path) -> Nix:
    return Nix(place)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the flake consists of."""
    tree = tmp_path / "tree"
    (tree / "osbuild_pika").mkdir(parents=True)
    for name in ("flake.nix", "osbuild_pika/lifecycle.py"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "nix", tree / "nix", symlinks=True)
    return tree


@pytest.mark.parametrize("path", NIX_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_parses(path: Path, nix: Nix) -> None:
    assert nix.run("nix-instantiate", "--parse", path).strip()


# flake.nix


@pytest.mark.parametrize("scheme", ["path", "git+file"])
def test_the_flake_reaches_the_helper_through_its_link(scheme: str, nix: Nix, tree: Path) -> None:
    git = ("git", "-C", tree, "-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        nix.run(*git, *command)
    nix.run("nix", "flake", "check", "--offline", f"{scheme}:{tree}")
    pkgs = '{ python3 = "/py"; writeScriptBin = name: text: { inherit name text; }; }'
    evaluate = ("nix", "eval", "--json", f"{scheme}:{tree}#lib.helper", "--apply", f"f: f {pkgs}")
    helper = json.loads(nix.run(*evaluate))
    rest = (ROOT / "osbuild_pika/lifecycle.py").read_text().partition("\n")[2]
    assert helper == {"name": "pika-cloud-lifecycle", "text": f"#!/py/bin/python3\n{rest}"}


def test_the_flake_has_no_inputs_and_shows_what_it_is_for(nix: Nix, tree: Path) -> None:
    shown = json.loads(nix.run("nix", "flake", "show", "--json", "--offline", f"path:{tree}"))
    assert sorted(shown) == ["lib", "nixosModules", "overlays"]
    assert shown["nixosModules"]["default"]["type"] == "nixos-module"
    assert not (tree / "flake.lock").exists()


# helper.nix


def test_the_built_helper_writes_the_three_artifacts(nix: Nix, tmp_path: Path) -> None:
    helper = nix.build(*nix.file("helper.nix")) / "bin/pika-cloud-lifecycle"
    run = functools.partial(subprocess.run, env={}, cwd=tmp_path, check=True)
    said = ("--message", "up", "--details-json", '{"port": 80}')
    run([helper, "event", "--events-path", "events.jsonl", "--kind", "ready", *said])
    run([helper, "status", "--status-path", "status.json", "--state", "ready", *said])
    end = ("--status", "failed", "--exit-code", "3", "--message", "down")
    run([helper, "result", "--result-path", "result.json", *end])
    assert json.loads((tmp_path / "events.jsonl").read_text())["seq"] == 1
    assert json.loads((tmp_path / "status.json").read_text())["details"] == {"port": 80}
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 3


def test_only_the_first_line_is_a_template(nix: Nix, tree: Path) -> None:
    (tree / "osbuild_pika/lifecycle.py").write_text("#!@python3@\nprint('#!@python3@ ${x}')\n")
    helper = nix.build(*nix.file("helper.nix", source=tree)) / "bin/pika-cloud-lifecycle"
    assert nix.run(helper) == "#!@python3@ ${x}\n"


def test_a_source_without_the_placeholder_is_refused(nix: Nix, tree: Path) -> None:
    (tree / "osbuild_pika/lifecycle.py").write_text("#!/usr/bin/python3\n")
    error = nix.refuse(*nix.file("helper.nix", source=tree))
    assert "the first line must begin with #!@python3@" in error


# module.nix


def test_a_good_configuration_gives_units_a_directory_and_the_command(nix: Nix) -> None:
    settings = {"unit": UNIT, "directory": "/run/x", "timeoutSeconds": 7}
    system = nix.evaluate(*nix.system(**settings), "-A", "system")
    services = system["systemd"]["services"]
    assert sorted(services) == ["pika-cloud-booted", "pika-cloud-failed", "pika-cloud-ready"]
    assert {service["serviceConfig"]["TimeoutStartSec"] for service in services.values()} == {7}
    assert services["pika-cloud-booted"]["wantedBy"] == ["multi-user.target"]
    assert services["pika-cloud-ready"]["bindsTo"] == [UNIT]
    assert system["systemd"]["tmpfiles"]["rules"] == ["d /run/x 0755 root root -"]
    assert "-pika-cloud-lifecycle" in system["environment"]["systemPackages"][0]


def test_without_a_unit_only_the_boot_is_reported(nix: Nix) -> None:
    system = nix.evaluate(*nix.system(), "-A", "system")
    assert list(system["systemd"]["services"]) == ["pika-cloud-booted"]
    assert system["systemd"]["packages"] == []


def test_a_disabled_module_defines_nothing(nix: Nix) -> None:
    assert nix.evaluate(*nix.system(enable=False, unit=UNIT), "-A", "system") == {
        "assertions": [],
        "environment": {"systemPackages": []},
        "systemd": {"packages": [], "services": {}, "tmpfiles": {"rules": []}},
    }


ILL_TYPED: dict[str, list[Any]] = {
    "enable": ["yes", 1, None],
    "package": ["/bin/sh", {}, None],
    "directory": ["run", "/", "/a b", "/a/../b", "/a%t", "/a$b", "/a/", "/a\n/b"],
    "unit": [
        *("", "web", "web@.service", "a.mount", "-a.service", ["a.service"]),
        *(f"a{character}b.service" for character in " \n/;%$'\""),
    ],
    "timeoutSeconds": [0, -1, 1.5, "30", None],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in ILL_TYPED for value in ILL_TYPED[option]]
)
def test_an_ill_typed_setting_is_refused(option: str, value: Any, nix: Nix) -> None:
    error = nix.refuse(*nix.system(**{option: value}), "-A", "system")
    assert f"pika-cloud-lifecycle.{option} is not" in error


def test_a_misspelt_setting_is_refused(nix: Nix) -> None:
    error = nix.refuse(*nix.system(units=UNIT), "-A", "system")
    assert "pika-cloud-lifecycle has no option units" in error


def test_a_unit_that_would_report_itself_is_refused(nix: Nix) -> None:
    (error,) = nix.evaluate(*nix.system(unit="pika-cloud-ready.service"), "-A", "errors")
    assert "pika-cloud-ready.service reports itself" in error


def test_what_the_units_run_records_the_boot_and_the_unit(nix: Nix, tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    units = nix.build(*nix.system(unit=UNIT, directory=str(guest)), "-A", "units")
    states = ["booted", "ready", "failed"]
    for state in states:
        lines = (units / f"pika-cloud-{state}.service").read_text().split("\n")
        for line in [line for line in lines if line.startswith("ExecStart=")]:
            # So systemd reads it, as far as it is used here; the tests below boot a real one.
            command = line.removeprefix("ExecStart=").replace("${MONITOR_SERVICE_RESULT}", "signal")
            subprocess.run(shlex.split(command), env={}, check=True)
        assert json.loads((guest / "status.json").read_text())["state"] == state
    events = [json.loads(line) for line in (guest / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == states
    assert events[2]["details"] == {"event": "unit.failed", "unit": UNIT, "result": "signal"}


@pytest.mark.parametrize(
    ("state", "code"),
    [("failed", 0), ("inactive", 0), ("", 0), ("activating", 1), ("active", 1), ("reloading", 1)],
)
def test_a_unit_that_is_tried_again_has_not_failed(
    state: str, code: int, nix: Nix, tmp_path: Path
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\necho {state}\n')
    systemctl.chmod(0o755)
    nix.provide("systemd", "systemctl", systemctl)
    units = nix.build(*nix.system(unit=UNIT), "-A", "units")
    text = (units / "pika-cloud-failed.service").read_text()
    nix.run(*shlex.split(text.partition("ExecCondition=")[2].splitlines()[0]), code=code)
    assert (tmp_path / "asked").read_text().endswith(f"--\n{UNIT}\n")


# module.nix, run by a real systemd

Boot = Callable[[str, str, str], list[Any]]
DAEMON = "[Service]\nExecStart=/bin/sleep infinity\n"
RESTART = 'reported ready 2; systemctl restart "$app"; reported ready 3; systemctl stop "$app"'
CRASH = 'reported ready 2; systemctl kill --signal=KILL "$app"; reported failed 3'
BROKEN = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
NEEDY = f"[Unit]\nRequires=broken.service\nAfter=broken.service\n{DAEMON}"
LOOP = (
    "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=600\n[Service]\nRestart=always\n"
    "ExecStart=/bin/sh -c 'until rm /run/fail; do sleep 0.05; done; exit 3'\n"
)
FAIL_TWICE = "for n in 2 3; do reported ready $n; touch /run/fail; done; reported failed 4"


@pytest.fixture
def booted(nix: Nix, tmp_path: Path) -> Boot:
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "true")
    if subprocess.run(namespaces, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to make namespaces: run as root")
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is missing")
    return functools.partial(boot, nix, tmp_path)


@pytest.mark.parametrize(
    ("unit", "script", "kinds"),
    [
        (UNIT, "reported ready 2", ["booted", "ready"]),
        ("multi-user.target", "reported ready 2", ["booted", "ready"]),
        (UNIT, RESTART, ["booted", "ready", "ready"]),
    ],
    ids=["service", "target", "restart"],
)
def test_a_unit_is_reported_whenever_it_gets_ready(
    unit: str, script: str, kinds: list[str], booted: Boot
) -> None:
    assert [event["kind"] for event in booted(unit, DAEMON, script)] == kinds


def test_a_unit_is_not_ready_while_it_starts(booted: Boot, tmp_path: Path) -> None:
    look = "sleep 0.3; cp /run/pika-cloud/events.jsonl /run/seen"
    booted(UNIT, f"{DAEMON}ExecStartPre=/bin/sh -c '{look}'\n", "reported ready 2")
    (seen,) = (tmp_path / "run/seen").read_text().splitlines()
    assert json.loads(seen)["kind"] == "booted"


@pytest.mark.parametrize(
    ("app", "script", "kinds", "result"),
    [
        (DAEMON, CRASH, ["booted", "ready", "failed"], "signal"),
        (BROKEN, "reported failed 2", ["booted", "failed"], "exit-code"),
        (LOOP, FAIL_TWICE, ["booted", "ready", "ready", "failed"], "exit-code"),
        (NEEDY, "reported failed 2", ["booted", "failed"], "success"),
    ],
    ids=["crash", "start", "restarts", "requirement"],
)
def test_a_unit_has_failed_once_systemd_gave_it_up(
    app: str, script: str, kinds: list[str], result: str, booted: Boot
) -> None:
    events = booted(UNIT, app, script)
    assert [event["kind"] for event in events] == kinds
    assert events[-1]["details"] == {"event": "unit.failed", "unit": UNIT, "result": result}


# guest-image-package.nix


@pytest.fixture
def image(tmp_path: Path) -> Settings:
    """Good settings for an image, with a disk."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is missing: install Debian's qemu-utils")
    disk = qcow2(tmp_path / "tiny.qcow2")
    return {"name": "tiny", "disk": str(disk), "creation_date": 1_700_000_000}


def test_an_image_is_metadata_and_a_disk(nix: Nix, image: Settings, tmp_path: Path) -> None:
    properties = {"os": "Debian", "description": f"$(touch {tmp_path}/x) `y` '\"; ü ${{out}} \\\n"}
    built = nix.build(*nix.image({**image, "properties": properties}))
    assert sorted(path.name for path in built.iterdir()) == ["disk.qcow2", "metadata.tar.xz"]
    assert (built / "disk.qcow2").read_bytes() == Path(image["disk"]).read_bytes()
    with tarfile.open(built / "metadata.tar.xz") as tar:
        (member,) = tar.getmembers()
        metadata = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
    date = image["creation_date"]
    owner = (member.uid, member.gid, member.uname, member.gname)
    assert (member.name, member.mode, *owner) == ("metadata.yaml", 0o644, 0, 0, "", "")
    assert member.mtime == date
    assert metadata == {"architecture": "x86_64", "creation_date": date, "properties": properties}
    assert not (tmp_path / "x").exists()


def test_two_builds_make_the_same_image(image: Settings, place: Path) -> None:
    first, second = (Nix(place / name) for name in ("first", "second"))
    images = [nix.build(*nix.image(image)) for nix in (first, second)]
    names = ("metadata.tar.xz", "disk.qcow2")
    one, other = ([(path / name).read_bytes() for name in names] for path in images)
    assert one == other
    later = first.build(*first.image({**image, "creation_date": 1_700_000_001}))
    assert (later / names[0]).read_bytes() != one[0]


def test_the_disk_is_found_in_a_directory(nix: Nix, image: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "a disk's output/nested"
    folder.mkdir(parents=True)
    (folder / "nixos.qcow2").symlink_to(image["disk"])
    built = nix.build(*nix.image({**image, "disk": str(folder.parent)}))
    assert (built / "disk.qcow2").read_bytes() == Path(image["disk"]).read_bytes()


@pytest.mark.parametrize(
    ("disk", "error"),
    [
        ("none", "want one .qcow2 below"),
        ("two", "found 2"),
        ("tiny.raw", "is not a qcow2 image"),
        ("missing.qcow2", "is not a qcow2 image"),
        ("overlay.qcow2", "keeps data in another file"),
    ],
)
def test_an_unusable_disk_is_refused(
    disk: str, error: str, nix: Nix, image: Settings, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("two/a.qcow2", "two/b.qcow2"):
        shutil.copy(image["disk"], tmp_path / name)
    overlay = ("-b", image["disk"], "-F", "qcow2", "-f", "qcow2", tmp_path / "overlay.qcow2")
    nix.run("qemu-img", "create", *overlay)
    command = ("nix-build", "--no-out-link", *nix.image({**image, "disk": str(tmp_path / disk)}))
    assert error in nix.run(*command, code=100)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"creation_date": 0}, "creation_date must be"),
        ({"creation_date": "1700000000"}, "creation_date must be"),
        ({"properties": {"release": 12}}, "every property must be a string"),
    ],
)
def test_metadata_that_incus_would_refuse_is_refused(
    settings: Settings, error: str, nix: Nix, image: Settings
) -> None:
    assert error in nix.refuse(*nix.image({**image, **settings}))


def test_a_creation_date_is_required(nix: Nix, image: Settings) -> None:
    image.pop("creation_date")
    assert "creation_date" in nix.refuse(*nix.image(image))
