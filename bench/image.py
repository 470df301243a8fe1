"""From a definition to an importable image: what it costs, beside what others do.

usage: image.py [--quick] [--rounds N] [--json FILE]     as root

All sides install the same packages from one local mirror, each in fresh directories, one after the
other in every round; who begins changes with the round. Needs mmdebstrap, debootstrap, apt-utils
and squashfs-tools. The packages come from this machine's own mirror, once.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import table
from bench.builders import OURS, ROOT, BenchError, Cost, run

ROUNDS = 3
ONE_MORE = "less"
HOOK = "echo {} >/etc/bench"
DEFINITION = """\
name: bench
from: debian/bookworm
packages: [{packages}]
hooks: {{post-packages: "{hook}"}}
outputs: [{output}]
"""
METADATA = '{"architecture": "x86_64", "creation_date": 1700000000}\n'
# What distrobuilder gives mksquashfs (shared/squashfs.go), with its default compression.
SQUASHFS = ("-noappend", "-b", "1M", "-no-exports", "-no-progress", "-no-recovery", "-comp", "xz")
# Without them mmdebstrap takes no packages by file:, and no usr-is-merged.
HOOKS = "--hook-dir={0}/merged-usr --hook-dir={0}/file-mirror-automount".format(
    "/usr/share/mmdebstrap/hooks"
)
LEGEND = """\
osbuild-pika: `build image.yaml --locked`, lifecycle and guest set-up included; its packages come
  from the mirror over HTTP, each verified; a unified image, zstd -9, or a split one (squashfs)
  again: nothing changed. hook: its hook changed. package: one more is installed.
mmdebstrap: in its best mode (file:, force-unsafe-io), then tar and zstd -9: a unified image
debootstrap: from the same mirror, then mksquashfs as distrobuilder does: a split image"""


@dataclass(frozen=True)
class Mirror:
    """directory: with pool/ and dists/. url: the same over HTTP. names: of all its packages."""

    directory: Path
    url: str


@dataclass(frozen=True)
class Turn:
    """What one side's image took, and its size."""

    cost: Cost
    size_bytes: int


Turns = dict[str, list[Turn]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pika(place: Path, *words: str) -> Cost:
    """One command line of ours, with a store and runs below `place`."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OSBUILD_PIKA_STORE": f"{place}/store",
        "OSBUILD_PIKA_RUNS": f"{place}/runs",
    }
    return run([sys.executable, "-c", OURS, *words], place, env, place)


def write(place: Path, output: str, hook: int = 0, packages: tuple[str, ...] = ()) -> Path:
    path = place / "image.yaml"
    text = DEFINITION.format(packages=", ".join(packages), hook=HOOK.format(hook), output=output)
    path.write_text(text)
    return path


def lock_of(place: Path) -> Path:
    return place / "image.lock.json"


# --- the mirror ----------------------------------------------------------------------------------


def prepare(directory: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Lock both lists of packages, and fill the pool. Returns the locks."""
    locks: dict[tuple[str, ...], dict[str, Any]] = {}
    pool = directory / "pool"
    pool.mkdir(parents=True)
    for packages in ((), (ONE_MORE,)):
        place = directory / f"prepare{len(packages)}"
        place.mkdir()
        image = write(place, "incus-unified", packages=packages)
        say(f"lock and fetch: {len(packages)} packages more than the default")
        pika(place, "build", str(image), "--output", f"{place}/output")
        locks[packages] = json.loads(lock_of(place).read_text())
        for each in locks[packages]["packages"]:
            source = place / "store/sources/org.osbuild.files" / f"sha256:{each['sha256']}"
            shutil.copyfile(source, pool / unquote(name_of(each)))
        shutil.rmtree(place)
    return locks


def index(directory: Path, suite: str, architecture: str) -> None:
    """Make a mirror of the pool."""
    lists = directory / f"dists/{suite}/main/binary-{architecture}"
    lists.mkdir(parents=True)
    found = _output(directory, "apt-ftparchive", "packages", "pool")
    (lists / "Packages").write_bytes(found)
    subprocess.run(["xz", "--keep", str(lists / "Packages")], check=True)
    fields = {"Suite": "stable", "Codename": suite, "Components": "main"}
    fields["Architectures"] = architecture
    words = [f"-oAPT::FTPArchive::Release::{name}={text}" for name, text in fields.items()]
    release = _output(directory, "apt-ftparchive", *words, "release", f"dists/{suite}")
    (directory / f"dists/{suite}/Release").write_bytes(release)


def _output(directory: Path, *command: str) -> bytes:
    return subprocess.run(command, cwd=directory, check=True, capture_output=True).stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a directory for the time of a block."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def name_of(package: dict[str, Any]) -> str:
    """The name of a package's file, as it stands in a URL."""
    return str(package["url"].rpartition("/")[2])


def local(lock: dict[str, Any], url: str) -> str:
    """A lock whose packages come from our mirror."""
    packages = [{**each, "url": f"{url}/pool/{name_of(each)}"} for each in lock["packages"]]
    return json.dumps({**lock, "packages": packages}, indent=2) + "\n"


# --- the sides -----------------------------------------------------------------------------------


def size_of(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths)


class Bench:
    """All sides, with one mirror. Each method measures one image below a fresh directory."""

    def __init__(self, mirror: Path, url: str, locks: dict[tuple[str, ...], Any]) -> None:
        self._mirror = mirror
        self._locks = {packages: local(lock, url) for packages, lock in locks.items()}
        self._first = locks[()]
        self._names = sorted(each["name"] for each in self._first["packages"])
        self._hooks = 0

    def _ours(self, place: Path, output: str, packages: tuple[str, ...] = ()) -> Turn:
        image = write(place, output, self._hooks, packages)
        lock_of(place).write_text(self._locks[packages])
        words = ["build", str(image), "--locked", "--output", f"{place}/output", "--force"]
        cost = pika(place, *words, "--progress", "plain")
        return Turn(cost, size_of(*(place / "output" / output).iterdir()))

    def ours(self, place: Path) -> Turns:
        """Cold, and what the changes after that cost."""
        turns = {"osbuild-pika, unified": [self._ours(place, "incus-unified")]}
        turns["osbuild-pika, again"] = [self._ours(place, "incus-unified")]
        self._hooks += 1
        turns["osbuild-pika, hook"] = [self._ours(place, "incus-unified")]
        turns["osbuild-pika, package"] = [self._ours(place, "incus-unified", (ONE_MORE,))]
        return turns

    def ours_split(self, place: Path) -> Turns:
        return {"osbuild-pika, split": [self._ours(place, "incus-split")]}

    def mmdebstrap(self, place: Path) -> Turns:
        (place / "metadata.yaml").write_text(METADATA)
        names = ",".join(self._names)
        line = f"deb [trusted=yes] file:{self._mirror} {self._first['suite']} main"
        script = (
            f"mmdebstrap --quiet --mode=root --variant=custom --include={names} "
            f"--dpkgopt=force-unsafe-io --aptopt='Apt::Install-Recommends false' "
            f"--skip=check/qemu {HOOKS} '' rootfs '{line}' && "
            "tar --create --numeric-owner --xattrs --xattrs-include='*' metadata.yaml rootfs | "
            "zstd -q -9 -T0 -o image.tar.zst"
        )
        return {"mmdebstrap + tar, zstd": [self._shell(place, script, "image.tar.zst")]}

    def debootstrap(self, place: Path) -> Turns:
        (place / "metadata.yaml").write_text(METADATA)
        names = ",".join(self._names)
        script = (
            f"debootstrap --no-check-gpg --variant=minbase --include={names} "
            f"{self._first['suite']} rootfs file://{self._mirror} && "
            "tar --create --xz --file metadata.tar.xz metadata.yaml && "
            f"mksquashfs rootfs rootfs.squashfs {' '.join(SQUASHFS)}"
        )
        turn = self._shell(place, script, "metadata.tar.xz", "rootfs.squashfs")
        return {"debootstrap + mksquashfs xz": [turn]}

    def _shell(self, place: Path, script: str, *files: str) -> Turn:
        cost = run(["sh", "-euc", script], place, dict(os.environ), place)
        return Turn(cost, size_of(*(place / name for name in files)))


def measure(bench: Bench, directory: Path, rounds: int) -> Turns:
    found: Turns = {}
    sides = [bench.ours, bench.ours_split, bench.mmdebstrap, bench.debootstrap]
    for number in range(rounds):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            say(f"round {number + 1} of {rounds}: {side.__name__}")
            place = directory / f"{number}.{side.__name__}"
            place.mkdir()
            for name, turns in side(place).items():
                found.setdefault(name, []).extend(turns)
            # A deletion makes what follows slower on ext4: it waits for the end.
    return found


def row(name: str, turns: list[Turn], base: float) -> tuple[str, ...]:
    wall = statistics.median(each.cost.seconds for each in turns)
    return (
        name,
        table.figure(wall),
        f"{wall / base:.2f}x",
        table.figure(statistics.median(each.cost.cpu_s for each in turns)),
        table.figure(max(each.cost.peak_mib for each in turns)),
        table.figure(statistics.median(each.size_bytes for each in turns) / 1e6),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/image.py: debootstrap needs root")
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="bench-image.") as text:
        directory = Path(text)
        directory.chmod(0o755)
        mirror = directory / "mirror"
        try:
            locks = prepare(mirror)
            first = locks[()]
            index(mirror, first["suite"], first["architecture"])
            with served(mirror) as url:
                turns = measure(Bench(mirror, url, locks), directory, rounds)
        except BenchError as error:
            sys.exit(f"bench/image.py: {error}")
    base = statistics.median(each.cost.seconds for each in turns["debootstrap + mksquashfs xz"])
    head = ("", "wall s", "ratio", "CPU s", "peak MiB", "MB")
    print(table.render(head, [row(name, found, base) for name, found in turns.items()]))
    facts = ", ".join(f"{name} {text}" for name, text in table.machine().items())
    print(f"\n{LEGEND}\n\nmedians of {rounds} rounds; {facts}")
    if options.json:
        document = {name: [asdict(each) for each in found] for name, found in turns.items()}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
