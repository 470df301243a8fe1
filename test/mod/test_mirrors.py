"""Which mirror a definition's packages come from."""

from pathlib import Path

import images
import pytest

from osbuild_pika.errors import InputError
from osbuild_pika.image import definition, mirrors
from osbuild_pika.image.mirrors import Target

A, S = "http://127.0.0.1/debian/", "http://127.0.0.1/security/"


def target(uri: str, release: str, origin: str = "Debian", **more: str) -> Target:
    known = {"codename": release, "suite": "", "component": "main", **more}
    return Target(uri, release, known["codename"], known["suite"], origin, known["component"])


HOST = [
    target(A, "bookworm", suite="oldstable"),
    target(A, "bookworm", suite="oldstable", component="contrib"),
    target(A, "bookworm-updates", suite="oldstable-updates"),
    target(A, "bookworm-backports"),
    target(S, "bookworm-security", suite="oldstable-security"),
    target("http://127.0.0.1/other/", "bookworm", origin="Other"),
    target("cdrom://disc/", "bookworm"),
]
PARTS = ("main", "contrib")


def test_the_hosts_sources_of_a_suite_serve_it() -> None:
    assert mirrors.of_host(HOST, "debian", "bookworm") == [
        (A, ("bookworm", "bookworm-updates"), PARTS),
        (S, ("bookworm-security",), ("main",)),
    ]


def test_a_suite_is_known_by_its_other_name() -> None:
    found = mirrors.of_host(HOST, "debian", "oldstable")
    assert found[0] == (A, ("oldstable", "oldstable-updates"), PARTS)


def test_the_mirror_of_another_suite_serves_this_one() -> None:
    assert mirrors.of_host(HOST, "debian", "trixie")[1] == (S, ("trixie-security",), ("main",))


def test_a_rolling_suite_has_no_pockets() -> None:
    assert mirrors.of_host(HOST, "debian", "sid") == [(A, ("sid",), PARTS)]


def test_another_distribution_is_not_served() -> None:
    assert mirrors.of_host(HOST, "ubuntu", "noble") == []


def test_before_the_first_update_names_are_all_there_is() -> None:
    fresh = [Target(A, "bookworm", "", "", "", "main")]
    assert mirrors.of_host(fresh, "debian", "bookworm") == [(A, ("bookworm",), ("main",))]
    assert mirrors.of_host(fresh, "debian", "trixie") == []


def choose(tmp_path: Path, text: str, **environment: str) -> list[mirrors.AptSource]:
    (tmp_path / "own.gpg").write_bytes(b"key")
    data = f"name: web\nkeyring: own.gpg\n{text}\n".encode()
    asked = definition.parse(data, "image.yaml")
    return mirrors.choose(asked, str(tmp_path / "image.yaml"), environment)


def test_the_definitions_mirror_comes_first(tmp_path: Path) -> None:
    text = "from: debian/bookworm\nmirror: [{url: 'http://127.0.0.1/x', suites: [a, b]}]"
    found = choose(tmp_path, text, OSBUILD_PIKA_MIRROR=A)
    keyring = str(tmp_path / "own.gpg")
    assert found == [mirrors.AptSource("http://127.0.0.1/x", ("a", "b"), ("main",), keyring)]


def test_then_comes_the_environments(tmp_path: Path) -> None:
    found = choose(tmp_path, "from: ubuntu/noble", OSBUILD_PIKA_MIRROR=f"{A} {S}")
    assert [each.uri for each in found] == [A, S]
    assert (found[0].suites, found[0].components) == (("noble",), ("main", "universe"))


def test_a_snapshot_goes_into_the_url(tmp_path: Path) -> None:
    text = "from: debian/bookworm@20261101T000000Z"
    found = choose(tmp_path, text, OSBUILD_PIKA_MIRROR="http://127.0.0.1/{snapshot}/debian")
    assert found[0].uri == "http://127.0.0.1/20261101T000000Z/debian"
    assert found[0].is_snapshot


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "bookworm@20261101T000000Z: which service has snapshots"),
        ({"OSBUILD_PIKA_MIRROR": A}, r"OSBUILD_PIKA_MIRROR: .*it needs \{snapshot\}"),
        ({"OSBUILD_PIKA_MIRROR": "ftp://127.0.0.1/{snapshot}"}, "only http and https"),
    ],
    ids=["none", "no place", "ftp"],
)
def test_a_snapshot_without_a_service_says_what_to_give(
    tmp_path: Path, given: dict[str, str], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        choose(tmp_path, "from: debian/bookworm@20261101T000000Z", **given)


def test_a_keyring_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"keyring 'gone\.gpg': there is no such file"):
        mirrors.choose(images.define("keyring: gone.gpg"), str(tmp_path / "image.yaml"), {})
