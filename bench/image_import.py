"""What an image costs Incus: to import, and to create an instance of.

usage: image_import.py [--quick] [--rounds N] IMAGE...   as root; IMAGE: a unified one of ours

The same tree, packed as we and as others pack it; each is imported by `incus image import` into a
daemon of our own, several times, then a container is created of it: all sides in every round, and
who begins changes with the round. The first IMAGE gives the tree; more may be the same definition
with another compression. Needs Incus, zstd, xz and squashfs-tools.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import private_incus

from bench import table
from bench.image import SQUASHFS

ROUNDS = 5
IMPORTS = 3  # of a round: one takes less than what else may happen on the machine
TAR = "tar --create --numeric-owner --xattrs --xattrs-include='*'"
# What is in the archive comes in this order with distrobuilder: metadata last or first is up to
# the file system there, so that it has the better one here.
PEERS = {
    "tar | zstd -9": f"{TAR} metadata.yaml templates rootfs | zstd -q -9 -T0 -o $0",
    "tar | xz, as distrobuilder": f"{TAR} metadata.yaml templates rootfs | xz -T0 >$0",
    "mksquashfs xz, as distrobuilder": "mksquashfs rootfs $0 " + " ".join(SQUASHFS),
}


def shell(script: str, directory: Path, name: Path) -> None:
    subprocess.run(
        ["sh", "-euc", script, str(name)], cwd=directory, check=True, stdout=subprocess.DEVNULL
    )


def pack(images: list[Path], directory: Path) -> dict[str, tuple[Path, ...]]:
    """Each side's files of the same tree."""
    tree = directory / "tree"
    tree.mkdir()
    subprocess.run(
        ["tar", "--extract", "--xattrs", "--file", images[0], "--directory", tree], check=True
    )
    (tree / "templates").mkdir(exist_ok=True)
    found: dict[str, tuple[Path, ...]] = {
        f"osbuild-pika, {image.suffix.removeprefix('.')}": (image,) for image in images
    }
    for number, (name, script) in enumerate(PEERS.items()):
        file = directory / f"peer{number}"
        shell(script, tree, file)
        found[name] = (file,)
        if "squashfs" in name:
            metadata = directory / "metadata.tar.xz"
            shell(f"{TAR} metadata.yaml templates | xz >$0", tree, metadata)
            found[name] = (metadata, file)
    return found


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def one(incus: Path, files: tuple[Path, ...]) -> tuple[float, float]:
    """Seconds to import an image and to create a container of it."""

    def call(*words: str) -> None:
        private_incus.incus(incus, *words)

    paths = [str(each) for each in files]
    imports = []
    for number in range(IMPORTS):
        if number:
            call("image", "delete", "bench")
        imports.append(timed(lambda: call("image", "import", *paths, "--alias", "bench")))
    created = timed(lambda: call("init", "bench", "bench"))
    call("delete", "bench")
    call("image", "delete", "bench")
    return statistics.median(imports), created


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    options = parser.parse_args()
    problem = "needs root" if os.geteuid() != 0 else private_incus.why_not()
    if problem:
        sys.exit(f"bench/image_import.py: {problem}")
    rounds = 1 if options.quick else options.rounds
    costs: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="pi.", dir="/tmp") as text:
        directory = Path(text)
        (directory / "images").mkdir()
        images = [each.resolve() for each in options.images]
        sides = list(pack(images, directory / "images").items())
        (directory / "incus").mkdir()
        with private_incus.running(directory / "incus"):
            for number in range(rounds):
                turn = number % len(sides)
                for name, files in sides[turn:] + sides[:turn]:
                    print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
                    costs.setdefault(name, []).append(one(directory / "incus", files))
        sizes = {name: sum(each.stat().st_size for each in files) for name, files in sides}
    print(render(costs, sizes))
    facts = ", ".join(f"{name} {text}" for name, text in table.machine().items())
    print(f"\nmedians of {rounds} rounds; {facts}")


def render(costs: dict[str, list[tuple[float, float]]], sizes: dict[str, int]) -> str:
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in costs.items()
    }
    base = next(iter(medians.values()))
    rows = [
        (
            name,
            *(
                f"{seconds:.2f}  {seconds / first:.2f}x"
                for seconds, first in zip(each, base, strict=True)
            ),
            table.figure(sizes[name] / 1e6),
        )
        for name, each in medians.items()
    ]
    return table.render(("", "import s", "create s", "MB"), rows)


if __name__ == "__main__":
    main()
