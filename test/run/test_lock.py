"""`osbuild-pika lock` with real apt: small repositories, right ones and all kinds of wrong ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import repositories
from repositories import Key, Repository

from osbuild_pika.image import lock
from osbuild_pika.image.lock import Lock

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")
TINY = ["apt", "dbus", "hello", "hello-lib", "python3", "systemd", "systemd-sysv", "tiny-base",
        "tiny-lib"]  # fmt: skip
CHILD = "name: child\nfrom: image.yaml\n{}\n"


class Place:
    """A directory with a definition, a keyring, and a repository that is served."""

    def __init__(self, path: Path, repository: Repository, url: str) -> None:
        self.path, self.repository, self.url = path, repository, url
        (path / "own.gpg").write_bytes(repository.key.public.read_bytes())
        self.define("packages: [hello]")

    def define(self, text: str, mirror: str | None = None) -> None:
        head = f"name: web\nfrom: debian/{repositories.SUITE}\nkeyring: own.gpg\n"
        (self.path / "image.yaml").write_text(f"{head}mirror: {mirror or self.url}\n{text}\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def refusal(self, code: int) -> str:
        """The one line that `lock` ends with; no lock is written."""
        done = self.run("lock")
        assert done.returncode == code, done.stderr
        assert not (self.path / "image.lock.json").exists()
        return done.stderr.strip().rpartition("\n")[2]

    @property
    def lock(self) -> Lock:
        found = lock.read(str(self.path / "image.lock.json"))
        assert found is not None
        return found


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    repositories.needs_apt()
    with repositories.key() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, key: Key) -> Iterator[Place]:
    (tmp_path / "work").mkdir()
    with repositories.tiny(tmp_path / "repository", key) as (repository, url):
        yield Place(tmp_path / "work", repository, url)


def test_a_lock_has_the_whole_closure_with_checksums(place: Place) -> None:
    done = place.run("lock")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    packages = {each.name: each for each in place.lock.packages}
    assert sorted(packages) == TINY
    files = {each.name: each for each in (place.repository.path / "pool").iterdir()}
    for each in packages.values():
        file = files[each.url.rpartition("/")[2].replace("%3a", ":")]
        sums = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
        assert (sums.stdout.split()[0], file.stat().st_size) == (each.sha256, each.size)
    assert packages["tiny-lib"].version == "1:2.0-1"


def test_a_lock_says_what_is_asked_for_and_what_is_of_the_base(place: Place) -> None:
    place.run("lock")
    flags = {each.name: (each.auto, each.essential, each.base) for each in place.lock.packages}
    assert flags["tiny-base"] == (False, True, True)
    assert flags["tiny-lib"] == (True, False, True)
    assert flags["apt"] == (False, False, True)
    assert flags["hello"] == (False, False, False)
    assert flags["hello-lib"] == (True, False, False)


def test_a_base_whose_usr_is_merged_needs_no_program_for_that(place: Place) -> None:
    add = place.repository.add
    add("tiny-helpers", essential="yes", depends="usrmerge | usr-is-merged")
    add("usrmerge", depends="tiny-perl")
    add("tiny-perl")
    place.repository.publish()
    place.run("lock")
    first = {each.name for each in place.lock.packages}
    add("usr-is-merged")
    place.repository.publish()
    place.run("lock", "--update")
    packages = {each.name: each for each in place.lock.packages}
    assert first - packages.keys() == {"usrmerge", "tiny-perl"}
    assert (packages["usr-is-merged"].auto, packages["usr-is-merged"].base) == (True, True)


def test_a_lock_says_who_signed_and_when(place: Place) -> None:
    place.run("lock")
    found = place.lock
    (release,) = found.releases
    assert (release.origin, release.codename) == ("Test", "tiny")
    assert len(release.signers[0]) == 40
    listed = ["gpg", "--with-colons", "--show-keys", str(place.path / "own.gpg")]
    keys = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert release.signers[0] in keys
    assert found.sources[0].signed_by == "/etc/apt/keyrings/osbuild-pika.gpg"


def test_without_a_base_only_what_is_listed_is_locked(place: Place) -> None:
    place.define("base: none\npackages: [hello]")
    assert place.run("lock").returncode == 0
    assert [(each.name, each.base) for each in place.lock.packages] == [("hello", False)]


def test_an_unchanged_mirror_leaves_the_lock_as_it_is(place: Place) -> None:
    place.run("lock")
    before = (place.path / "image.lock.json").read_bytes()
    place.repository.publish()
    done = place.run("lock", "--update")
    assert (done.returncode, done.stdout) == (0, "")
    assert "unchanged, 9 packages" in done.stderr
    assert (place.path / "image.lock.json").read_bytes() == before


def test_an_update_says_what_changed(place: Place) -> None:
    place.run("lock")
    place.repository.add("hello", "1.1", depends="hello-lib, hello-data")
    place.repository.add("hello-data")
    place.repository.publish()
    assert "answers the definition" in place.run("lock").stderr
    done = place.run("lock", "--update")
    assert done.stdout == "  hello 1.0 -> 1.1\n+ hello-data 1.0\n"


def test_a_changed_definition_is_locked_again(place: Place) -> None:
    place.run("lock")
    place.define("packages: []\nlifecycle: false")
    assert place.run("check", "image.yaml").returncode == 2
    done = place.run("lock")
    assert done.stdout == "- hello 1.0\n- hello-lib 1.0\n- python3 1.0\n"
    assert place.run("check", "image.yaml").returncode == 0


def child(place: Place, text: str = "packages: [hello-data]") -> None:
    """A definition that is made from the other one, and its package."""
    place.repository.add("hello-data", depends="hello-lib")
    place.repository.publish()
    (place.path / "child.yaml").write_text(CHILD.format(text))


def test_what_is_made_from_another_is_locked_beside_its_packages(place: Place) -> None:
    child(place)
    done = place.run("lock", "child.yaml")
    assert done.returncode == 0, done.stderr
    assert "image.yaml has no lock yet" in done.stderr
    assert [each.name for each in place.lock.packages] == TINY
    own = lock.read(str(place.path / "child.lock.json"))
    assert own is not None
    assert [(each.name, each.auto, each.base) for each in own.packages] == [
        ("hello-data", False, False)
    ]
    assert place.run("check", "child.yaml").stdout.startswith("ok: child from debian/tiny, 1 pack")


@pytest.mark.parametrize(
    ("excluded", "told"),
    [
        ("[hello]", "others need them: hello (exclude: hello)"),
        ('["*-lib"]', "others need them: hello-lib (exclude: *-lib)"),
        ("[tiny-base]", "others need them: tiny-base (exclude: tiny-base)"),
    ],
    ids=["of its parent", "needed by its parent", "of the base"],
)
def test_what_a_parent_has_cannot_be_excluded(excluded: str, told: str, place: Place) -> None:
    child(place, f"packages: [hello-data]\nexclude: {excluded}")
    done = place.run("lock", "child.yaml")
    assert done.returncode == 2
    assert told in done.stderr


def test_another_lock_of_its_parent_asks_for_a_new_one(place: Place) -> None:
    child(place, "packages: [hello]")
    assert place.run("lock", "child.yaml").returncode == 0
    for old in (place.repository.path / "pool").glob("hello_*.deb"):
        old.unlink()
    place.repository.add("hello", "1.1", depends="hello-lib")
    place.repository.publish()
    (place.path / "child.yaml").write_text(CHILD.format("packages: [hello-data]"))
    refused = place.run("lock", "child.yaml")
    assert refused.returncode == 2
    assert "the archive has newer packages than the parent's lock" in refused.stderr
    assert place.run("lock", "--update").returncode == 0
    assert "the lock of what it is made from is another" in place.run("check", "child.yaml").stdout
    assert place.run("lock", "child.yaml").returncode == 0
    assert place.run("check", "child.yaml").returncode == 0


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ("helo", "debian/tiny: no package helo; the closest: hello"),
        ("xyzzy", "debian/tiny: no package xyzzy"),
        ("greetings", "debian/tiny: greetings is a virtual package: name one of greeter"),
        ("hello, greeter", "the packages do not go together: apt: greeter : Conflicts: hello"),
    ],
)
def test_packages_that_cannot_be_had_are_told(place: Place, packages: str, told: str) -> None:
    place.define(f"packages: [{packages}]")
    assert place.refusal(2).startswith(f"osbuild-pika: error: {told}")


def test_ubuntu_is_locked_likewise(place: Place) -> None:
    text = (place.path / "image.yaml").read_text().replace("debian/tiny", "ubuntu/tiny")
    parts = f"[{{url: '{place.url}', components: [main]}}]"
    (place.path / "image.yaml").write_text(text.replace(place.url, parts))
    done = place.run("lock")
    assert done.returncode == 0, done.stderr
    assert (place.lock.distribution, len(place.lock.packages)) == ("ubuntu", len(TINY))


def test_a_snapshot_is_taken_however_old_it_is(place: Place) -> None:
    place.repository.publish(valid=timedelta(days=-1))
    (place.repository.path / "20261101T000000Z").symlink_to(".")
    place.define("packages: [hello]", f"{place.url}{{snapshot}}/")
    text = (place.path / "image.yaml").read_text()
    snapshot = text.replace("debian/tiny", "debian/tiny@20261101T000000Z")
    (place.path / "image.yaml").write_text(snapshot)
    done = place.run("lock")
    assert done.returncode == 0, done.stderr
    assert place.lock.sources[0].is_snapshot
    assert {each.url.split("/")[3] for each in place.lock.packages} == {"20261101T000000Z"}


def test_an_unknown_suite_is_told(place: Place) -> None:
    text = (place.path / "image.yaml").read_text().replace("debian/tiny", "debian/tyni")
    (place.path / "image.yaml").write_text(text)
    assert "there is no such suite: apt: The repository" in place.refusal(2)


def test_an_index_that_nobody_signed_is_refused(place: Place) -> None:
    place.repository.publish(is_signed=False)
    assert "it is not signed: apt: The repository" in place.refusal(3)


def test_an_index_that_is_out_of_date_is_refused(place: Place) -> None:
    place.repository.publish(valid=timedelta(days=-1))
    assert "its Release file is out of date: apt: Release file for" in place.refusal(3)


def test_an_index_that_another_signed_is_refused(place: Place) -> None:
    with repositories.key() as other:
        (place.path / "own.gpg").write_bytes(other.public.read_bytes())
    said = place.refusal(3)
    assert "no key of the keyring signed it: install a newer keyring package" in said
    assert "`keyring:`: apt: " in said


def test_an_index_that_was_changed_afterwards_is_refused(place: Place) -> None:
    signed = place.repository.path / "dists/tiny/InRelease"
    signed.write_text(signed.read_text().replace("Origin: Test", "Origin: Evil"))
    assert "its signature is bad: apt: " in place.refusal(3)


def test_packages_that_are_not_those_that_were_signed_are_refused(place: Place) -> None:
    index = place.repository.index
    index.write_text(index.read_text().replace("hello-lib", "hello-bil"))
    assert "what it serves is not what it signed: apt: Failed to fetch" in place.refusal(3)


def test_a_mirror_that_is_down_is_told(place: Place) -> None:
    place.define("packages: [hello]", "http://127.0.0.1:9/")
    assert "http://127.0.0.1:9/" in (told := place.refusal(3))
    assert "it cannot be reached: apt: " in told


def test_a_keyring_that_is_none_is_told(place: Place) -> None:
    (place.path / "own.gpg").write_bytes(b"no key")
    assert place.refusal(3).startswith("osbuild-pika: error: ")


def test_nothing_of_it_stays(place: Place, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o777)
    done = subprocess.run(
        [*COMMAND, "lock"],
        cwd=place.path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert list(temporary.iterdir()) == []
    assert sorted(each.name for each in place.path.iterdir()) == [
        "image.lock.json", "image.yaml", "own.gpg",
    ]  # fmt: skip


def test_what_is_excluded_does_not_come_along(place: Place) -> None:
    place.repository.add("either", depends="greeter | hello-lib")
    place.repository.publish()
    place.define('packages: [either]\nexclude: [greeter, nowhere, "*-doc"]')
    assert place.run("lock").returncode == 0
    names = {each.name for each in place.lock.packages}
    assert {"either", "hello-lib"} <= names
    assert "greeter" not in names
    place.define("packages: [either]")
    assert "exclude is another" in place.run("check", "image.yaml").stdout


@pytest.mark.parametrize(
    ("excluded", "told"),
    [
        ("hello-lib", "the packages do not go together: apt: hello : Depends: hello-lib"),
        ("hello-*", "others need them: hello-lib (exclude: hello-*)"),
        ("tiny-lib", "tiny-lib"),
    ],
)
def test_what_is_needed_cannot_be_excluded(place: Place, excluded: str, told: str) -> None:
    place.define(f"packages: [hello]\nexclude: ['{excluded}']")
    assert told in place.refusal(2)
