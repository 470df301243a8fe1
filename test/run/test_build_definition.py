"""`osbuild-pika build image.yaml`: from a small repository to an image, as root."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import repositories
from builds import needs_root
from repositories import Repository

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")
TEXT = """
name: little
from: debian/tiny
base: none
keyring: own.gpg
mirror: {url}
packages: [hello, hello-lib]
files: [{{path: /etc/greeting, content: "{greeting}"}}, {{path: /sbin/init, link: /bin/true}}]
compression: zstd-3
outputs: [{outputs}]
lint: {{allow: [init]}}
"""


class Place:
    """A definition with its repository, and a store and runs of its own."""

    def __init__(self, path: Path, repository: Repository, url: str) -> None:
        self.path, self.repository, self.url = path, repository, url
        (path / "own.gpg").write_bytes(repository.key.public.read_bytes())
        self.define()

    def define(self, greeting: str = "hi", outputs: str = "incus-unified, incus-split") -> None:
        text = TEXT.format(url=self.url, greeting=greeting, outputs=outputs)
        (self.path / "image.yaml").write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        store, runs = str(self.path / "store"), str(self.path / "runs")
        places = {"OSBUILD_PIKA_STORE": store, "OSBUILD_PIKA_RUNS": runs}
        return {**os.environ, "PYTHONPATH": str(ROOT), **places}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def build(self, *words: str) -> list[list[str]]:
        """The columns of each line of stdout: name, fingerprint, size, time, files."""
        done = self.run("build", "--progress", "plain", *words)
        assert done.returncode == 0, done.stderr
        return [line.split("  ") for line in done.stdout.splitlines()]

    def pool(self, name: str) -> Path:
        (found,) = (self.repository.path / "pool").glob(f"{name}_*.deb")
        return found


@pytest.fixture(scope="module")
def key() -> Iterator[repositories.Key]:
    needs_root()
    repositories.needs_apt()
    with repositories.key() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, key: repositories.Key) -> Iterator[Place]:
    (tmp_path / "work").mkdir()
    with repositories.tiny(tmp_path / "repository", key) as (repository, url):
        yield Place(tmp_path / "work", repository, url)


def test_a_build_makes_its_lock_and_tells_each_output(place: Place) -> None:
    done = place.run("build", "--progress", "plain")
    assert done.returncode == 0, done.stderr
    assert "there is no image.lock.json yet: making it" in done.stderr
    unified, split = (line.split("  ") for line in done.stdout.splitlines())
    whole = (place.path / "output/incus-unified/little.tar.zst").read_bytes()
    assert unified[:2] == ["little", hashlib.sha256(whole).hexdigest()]
    files = [place.path / each for each in split[4].split(" ")]
    parts = b"".join(each.read_bytes() for each in files)
    assert split[1] == hashlib.sha256(parts).hexdigest()
    assert f"incus image import {split[4]} --alias little" in done.stderr
    assert (place.path / "runs/little/result.json").exists()


def test_a_second_place_makes_the_same_bytes(place: Place) -> None:
    first = place.build("--store", "store-a", "-o", "a")
    second = place.build("--locked", "--store", "store-b", "-o", "b")
    assert [each[1] for each in first] == [each[1] for each in second]


def test_what_is_made_from_another_takes_its_layers_and_adds_to_them(place: Place) -> None:
    place.build()
    child = "name: child\nfrom: image.yaml\nfiles: [{path: /etc/own, content: own}]\n"
    (place.path / "child.yaml").write_text(f"{child}lint: {{allow: [init]}}\n")
    done = place.run("build", "child.yaml", "--progress", "plain", "-o", "child")
    assert done.returncode == 0, done.stderr
    assert "rootfs/deb: started" not in done.stderr
    names = subprocess.check_output(
        ["tar", "-tf", place.path / "child/incus-unified/child.tar.zst"], text=True
    )
    assert {"rootfs/etc/own", "rootfs/etc/greeting"} <= set(names.split())


def test_a_build_again_replaces_its_outputs_only(place: Place) -> None:
    place.build()
    mine = place.path / "output/mine"
    mine.write_text("mine")
    before = (place.path / "output/incus-unified/little.tar.zst").read_bytes()
    place.define("hello", "incus-unified")
    ((name, *_),) = place.build()
    assert name == "little"
    assert (place.path / "output/incus-unified/little.tar.zst").read_bytes() != before
    assert mine.read_text() == "mine"


def test_a_plan_knows_what_is_done_already(place: Place) -> None:
    place.build()
    place.define("hello")
    done = place.run("plan")
    lines = done.stdout.splitlines()
    assert any("org.osbuild-pika.deb " in line and "cached" in line for line in lines), lines
    assert any("org.osbuild-pika.files" in line and "to run" in line for line in lines)


def test_a_mirror_that_fails_in_the_middle_is_gone_on_with(place: Place) -> None:
    place.run("lock")
    package = place.pool("hello-lib")
    aside = package.rename(place.path / "aside")
    failed = place.run("build", "--progress", "plain")
    assert failed.returncode == 3, failed.stderr
    assert "404" in failed.stderr
    aside.rename(package)
    place.pool("hello").unlink()  # it was got already
    place.build()


def test_a_package_that_is_not_the_locked_one_is_refused(place: Place) -> None:
    place.run("lock")
    data = bytearray(place.pool("hello").read_bytes())
    data[-1] ^= 1
    place.pool("hello").write_bytes(data)
    failed = place.run("build", "--progress", "plain")
    assert failed.returncode == 3, failed.stderr
    assert list(place.path.glob("output/*")) == []
    assert "sha256" in failed.stderr


def test_a_password_in_clear_is_kept_nowhere(place: Place) -> None:
    with open(place.path / "image.yaml", "a", encoding="utf-8") as file:
        file.write("users: [{name: root, password: correct-horse}]\n")
    done = place.run("build", "--progress", "plain", "--json")
    assert done.returncode == 1  # the tree has no useradd, and all is kept to look at
    assert "useradd" in done.stderr
    planned = place.run("plan", "--manifest")
    assert "$6$" in planned.stdout
    said = [done.stdout, done.stderr, planned.stdout, place.run("runs", "show", "little").stdout]
    assert not [text for text in said if "correct-horse" in text]
    files = [path for path in place.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path.name for path in files if b"correct-horse" in path.read_bytes()] == ["image.yaml"]
    assert [path for path in files if b"$6$" in path.read_bytes()]  # where it would be


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_goes_on_where_it_was(
    number: signal.Signals, code: int, place: Place
) -> None:
    busybox = Path("/usr/bin/busybox")
    if not busybox.exists() or b"/ld-linux" in busybox.read_bytes():
        pytest.skip("needs busybox-static")
    (place.path / "busybox").write_bytes(busybox.read_bytes())
    path = place.path / "image.yaml"
    tools = "{path: /bin/sh, source: busybox, mode: '0755'}, {path: /bin/sleep, link: sh}"
    text = path.read_text().replace("files: [", f"files: [{tools}, ")
    path.write_text(f"{text}hooks: {{last: 'echo at work; sleep 600'}}\n")
    words = [*COMMAND, "build", "--progress", "plain"]
    with subprocess.Popen(
        words, cwd=place.path, env=place.environment, stderr=subprocess.PIPE, text=True
    ) as build:
        assert build.stderr is not None
        log = iter(build.stderr)
        next(line for line in log if "rootfs/hook: started" in line)
        build.send_signal(number)
        said = "".join(log)
        assert build.wait(60) == code, said
    assert not (place.path / "output").exists() or not os.listdir(place.path / "output")
    path.write_text(path.read_text().replace("sleep 600", "sleep 0"))
    again = place.run("build", "--progress", "plain")
    assert again.returncode == 0, again.stderr
    assert "there is no image.lock.json" not in again.stderr
    assert "rootfs/hook: started" in again.stderr
    assert "rootfs/files: started" not in again.stderr


ON_A_DISK = 'mount -t tmpfs -o "size=$1" none "$2"; shift 2; exec "$@"'


@pytest.mark.parametrize(
    ("size", "code", "where"),
    [("2m", 3, "org.osbuild.inline: "), ("7m", 1, "pika.files: "), ("11m", 1, "incus.pack: ")],
)
def test_a_full_disk_is_told_and_leaves_no_image(
    size: str, code: int, where: str, place: Place
) -> None:
    (place.path / "large").write_bytes(os.urandom(4_000_000))
    path = place.path / "image.yaml"
    text = path.read_text().replace("files: [", "files: [{path: /large, source: large}, ")
    path.write_text(text)
    (place.path / "store").mkdir()
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", ON_A_DISK, "sh", size]
    done = subprocess.run(
        [*words, str(place.path / "store"), *COMMAND, "build", "--progress", "plain"],
        cwd=place.path,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().rpartition("\n")[2]
    assert where in last
    assert "No space left on device" in last
    assert not list(place.path.glob("output/*"))
