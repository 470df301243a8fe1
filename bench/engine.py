"""Measures whole builds of the embedded engine, beside upstream osbuild's in the same run.

The sides take turns within each round; what counts are the medians of the rounds. Each build is
the command line's, from its start to its end, with its export. Needs root. Exit status: 0, 1 if
something could not be measured.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import table
from bench.builders import ROOT, SHELL, BenchError, Builder, Cost, Ours, Upstream

ROUNDS, QUICK_ROUNDS = 5, 2
FEW, MANY, CACHED, CHAIN = 1, 21, 51, 12
TREE_MIB = 200
FILES = 400  # of the tree; half a MiB each, which does not compress
FILL = f"for n in $(seq {FILES}); do head -c {TREE_MIB * 1024 // FILES}K /dev/urandom > $n; done"
LEGEND = """\
one more noop: ms for each of 20 more stages that do nothing; at the least: from the fastest rounds
51 cached: ms for a build of 51 stages of which none need run, with its export
last of 12: ms for a build whose last stage (it writes one small file) was changed, on a tree of
    200 MiB, with its export; its export: the same again, when nothing need run; difference: of
    the two, as the median of the rounds
archives: s for a tar and a squashfs of that tree, which is there already
peak: MiB, the most that a process of any of these builds had"""
Times = dict[str, list[Cost]]


def noops(count: int, mark: str = "") -> dict[str, Any]:
    stages = [
        {"type": "org.osbuild.noop", "options": {"number": number, "mark": mark}}
        for number in range(count)
    ]
    return {"version": "2", "pipelines": [{"name": "tree", "stages": stages}]}


def shell(script: str) -> dict[str, Any]:
    return {"type": SHELL, "options": {"script": script}}


def chain(mark: str) -> dict[str, Any]:
    """A large tree of 12 stages, of which the last writes a mark."""
    middle = [shell(f"echo {number} > small-{number}") for number in range(CHAIN - 2)]
    stages = [shell(FILL), *middle, shell(f"echo {mark} > last")]
    return {"version": "2", "pipelines": [{"name": "tree", "stages": stages}]}


def archives(turn: str) -> dict[str, Any]:
    """A tar and a squashfs of the large tree."""
    found = chain(turn)
    for name, options in (("tar", {}), ("squashfs", {"compression": {"method": "zstd"}})):
        reads = {
            "type": "org.osbuild.tree",
            "origin": "org.osbuild.pipeline",
            "references": ["name:tree"],
        }
        stage = {
            "type": f"org.osbuild.{name}",
            "inputs": {"tree": reads},
            "options": {"filename": f"tree.{name}", **options},
        }
        found["pipelines"].append({"name": name, "stages": [stage]})
    return found


def measure_noops(builder: Builder, place: Path, turn: str) -> dict[str, Cost]:
    """One build of a stage, one of many, and one of more that are all cached."""
    return {
        "few": builder.build(place, noops(FEW, f"few {turn}"), "tree"),
        "many": builder.build(place, noops(MANY, f"many {turn}"), "tree"),
        "cached": builder.build(place, noops(CACHED), "tree"),
    }


def measure_tree(builder: Builder, place: Path, turn: str) -> dict[str, Cost]:
    """The last stage changed, on a large tree; then nothing but the export of it."""
    changed = builder.build(place, chain(turn), "tree")
    return {"changed": changed, "exported": builder.build(place, chain(turn), "tree")}


def measure_archives(builder: Builder, place: Path, turn: str) -> dict[str, Cost]:
    found = {}
    for name in ("tar", "squashfs"):
        found[name] = builder.build(place, archives(turn), name)
    return found


Work = Callable[[Builder, Path, str], dict[str, Cost]]


def prepare(builder: Builder, place: Path) -> None:
    """Build what the rounds find in the store."""
    place.mkdir()
    for _ in range(2):  # what may be kept of the first, it has then
        builder.build(place, noops(CACHED), "tree")
    builder.build(place, chain("before"), "tree")


def measure(builders: list[Builder], directory: Path, rounds: int) -> dict[str, Times]:
    """Costs by builder and what was built."""
    found: dict[str, Times] = {builder.name: {} for builder in builders}
    work: list[Work] = [measure_noops, measure_tree]
    if (ROOT / "inputs/org.osbuild.tree").is_file():
        work.append(measure_archives)
    for builder in builders:
        prepare(builder, directory / f"{builder.name}-place")
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for each in work:
            for builder in builders if number % 2 else builders[::-1]:
                place = directory / f"{builder.name}-place"
                for name, cost in each(builder, place, f"turn {number}").items():
                    found[builder.name].setdefault(name, []).append(cost)
    return found


def summarize(times: Times) -> dict[str, float]:
    """The figures of LEGEND, of one side."""

    def median(name: str, what: str = "seconds") -> float:
        return float(statistics.median(getattr(cost, what) for cost in times[name]))

    def difference(more: str, less: str) -> float:
        pairs = zip(times[more], times[less], strict=True)  # of the same round
        return statistics.median(one.seconds - other.seconds for one, other in pairs)

    def least(name: str) -> float:
        return min(cost.seconds for cost in times[name])

    more = MANY - FEW
    found = {
        "one more noop": 1000 * (median("many") - median("few")) / more,
        "at the least": 1000 * (least("many") - least("few")) / more,
        "its CPU": 1000 * (median("many", "cpu_s") - median("few", "cpu_s")) / more,
        f"{CACHED} cached": 1000 * median("cached"),
        "the fastest": 1000 * least("cached"),
        "their CPU": 1000 * median("cached", "cpu_s"),
        f"last of {CHAIN}": 1000 * median("changed"),
        "its export": 1000 * median("exported"),
        "difference": 1000 * difference("changed", "exported"),
    }
    for name in ("tar", "squashfs"):
        if name in times:
            found[f"{name}, s"] = median(name)
    found["peak MiB"] = max(cost.peak_mib for costs in times.values() for cost in costs)
    return found


def format_table(found: dict[str, dict[str, float]]) -> str:
    names = list(found)
    rows = [
        [what, *(table.figure(found[name].get(what, 0.0)) for name in names)]
        for what in found[names[0]]
    ]
    return table.render(["", *names], rows)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure builds.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--peer", type=Path, metavar="DIR", help="a checkout of upstream osbuild")
    parser.add_argument("--before", type=Path, metavar="DIR", help="another checkout of ours")
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="on the disk to measure (default: here)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if shutil.which("bwrap") is None:
        print("bench: bwrap not found (Debian package bubblewrap)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix=".bench", dir=options.dir.resolve()) as name:
        builders: list[Builder] = [Ours("ours", ROOT)]
        if options.before:
            builders.append(Ours("before", options.before.resolve()))
        if options.peer:
            builders.append(Upstream(options.peer.resolve(), Path(name)))
        try:
            times = measure(builders, Path(name), rounds)
        except (BenchError, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    found = {name: summarize(each) for name, each in times.items()}
    machine = table.machine()
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    print(f"medians of {rounds} rounds; times in ms\n\n{format_table(found)}\n\n{LEGEND}")
    if options.json is not None:
        raw = {
            name: {what: [vars(cost) for cost in costs] for what, costs in each.items()}
            for name, each in times.items()
        }
        report = {"machine": machine, "rounds": rounds, "medians": found, "builds": raw}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
