"""What is missing on a host is named, with the way to get it."""

from pathlib import Path

import pytest

from osbuild_pika.engine import health


def test_all_programs_that_are_missing_are_named_with_their_packages() -> None:
    (check,) = health.programs(lambda name: None if name in ("bwrap", "tar") else f"/bin/{name}")
    assert (check.text, check.fix) == ("no bwrap, tar", "apt-get install bubblewrap tar")
    assert check.as_document()["state"] == "problem"


def test_a_host_with_all_programs_is_well() -> None:
    (check,) = health.programs(lambda name: f"/bin/{name}")
    assert check.as_document() | {"text": ""} == {
        "name": "programs",
        "state": "ok",
        "text": "",
        "fix": None,
    }


def test_programs_of_debian_images_are_no_problem_for_other_builds() -> None:
    found = health.debian(lambda name: None if name == "apt-ftparchive" else f"/bin/{name}")
    assert (found.text, found.fix) == ("no apt-ftparchive", "apt-get install apt-utils")
    assert found.as_document()["state"] == "note"
    assert health.debian(lambda name: f"/bin/{name}").is_ok


@pytest.mark.parametrize(
    ("switch", "fix"),
    [
        ("user/max_user_namespaces=0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone=0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns=1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone=1", "no sysctl forbids it"),
    ],
)
def test_the_switch_that_forbids_namespaces_is_named(switch: str, fix: str) -> None:
    name, _, value = switch.partition("=")
    answer = {"ids": "", "base": 7, "root": "cannot make a user namespace"}
    ids, root = health.tried(answer, lambda each: value if each == name else "")
    assert (ids.is_ok, ids.text) == (True, "from 7")
    assert root.fix.startswith(fix)


def test_a_store_without_overlay_is_slower_but_no_problem() -> None:
    answer = {"ids": "", "base": 7, "root": "", "namespace": "", "store": "", "overlay": False}
    found = health.tried(answer, lambda _: "")
    assert [check.as_document()["state"] for check in found] == [*["ok"] * 4, "note"]


def test_places_are_looked_at_but_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    named = (("store", str(tmp_path / "a/b")), ("runs", str(tmp_path / "file/c")))
    store, room, runs = health.places(named)
    assert store.is_ok
    assert store.text.endswith("a/b (will be made)")
    assert room.name == "room"
    assert runs.text == f"{tmp_path}/file is no directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_a_kernel_lacks_is_no_problem() -> None:
    states = [check.as_document()["state"] for check in health.kernel(False, "nodev proc")]
    assert states == ["ok", "note", "note"]
    assert all(check.is_ok for check in health.kernel(True, "nodev overlay"))
