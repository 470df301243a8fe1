"""The builds that upstream was recorded with, built again: what each stage got, said and made.

Not compared: times, where a stage's output is cut into pieces, when a service's line comes, and
what our own stages and services print. All records are replayed. What is wanted to differ stands
here by its name, and in docs/reference/differences.md.
"""

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import Place, Records
from recorded import entries

from osbuild_pika.monitor import Sink
from osbuild_pika.monitor.jsonseq import JsonSeqSink
from osbuild_pika.monitor.result import ResultCollector

DATA = Path(__file__).parents[1] / "data/osbuild"
NAMES = sorted(path.name for path in (DATA / "runs").iterdir())
Document = dict[str, Any]

# Upstream printed no result for these, as it died: what ours says instead.
DIED = {
    "18-fail-metadata-not-json": (1, "org.osbuild.error.stage", "the metadata are not JSON"),
    "23-stage-timeout": (124, "org.osbuild.error.stage", "printed nothing for 2 s"),
    "24-fail-bad-utf8": (0, None, ""),  # is no failure: the character is put together
    "27-device-service-raises": (1, "org.osbuild-pika.error", "device/d: ValueError: no such disk"),
}
REFUSED = "12-fail-options-missing"  # required options that are not there
# Their broken items are read by no stage, and so not fetched; here a stage reads them.
READ_HERE = ("15-fail-source-checksum", "16-fail-source-own")
CODES = {**dict.fromkeys(READ_HERE, 3), **{name: DIED[name][0] for name in DIED}, REFUSED: 2}
# Upstream goes on with the next source after one that failed.
NOT_TRIED = {"16-fail-source-own": "org.osbuild.inline"}
# Upstream builds nothing then; ours builds what the manifest names or its last pipeline.
NO_EXPORT = "13-6-nothing-exported"
OTHER_ORDER = "20-several-exports"  # upstream's is that of a hash, ours the manifest's
WITH_NOISE = "01-dump-upstream-runner"  # upstream's runner prints what it does
# Upstream merges into what is there; ours replaces it, if asked to.
MERGED = "26-export-over-existing"
# Cached by default: what upstream builds again, having kept nothing.
MORE_CACHED = ("13-4-checkpoint-by-stage", "13-5-after-it", "14-2-again")
DUMPS = [name for name in NAMES if "-dump-" in name]


def path_of(name: str, file: str) -> Path:
    """A file of a record. What other tests read, too, lies with theirs."""
    found = DATA / "runs" / name / file
    return found if found.exists() else DATA / "monitor" / name / file


def read(name: str, file: str) -> Any:
    return json.loads(path_of(name, file).read_bytes())


def libdir(path: Path) -> Path:
    """The recorded test modules, and a library for them."""
    shutil.copytree(DATA / "libdir", path)
    shutil.copytree(DATA / "shim/osbuild", path / "osbuild")
    shutil.copy(DATA / "modules/org.osbuild.golden.dump", path / "stages")
    return path


def manifest_of(name: str) -> Document:
    manifest: Document = read(name, "manifest.json")
    if name in READ_HERE:
        items = [item for source in manifest["sources"].values() for item in source["items"]]
        inputs = {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": items}
        reader = {"type": "org.osbuild.noop", "inputs": {"all": inputs}}
        manifest["pipelines"][0]["stages"].append(reader)
    return manifest


class Replay(Place):
    """A place where records are built."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules = libdir(path / "libdir")

    def run(self, name: str) -> tuple[int, Records]:
        argv = read(name, "argv.json")
        given = dict(itertools.pairwise(argv))
        exports = tuple(argv[at + 1] for at, word in enumerate(argv) if word == "--export")
        idle_s = float(given["--stage-timeout"]) if "--stage-timeout" in given else None
        out = str(self.path / "out") if exports else None
        return self.build(
            manifest_of(name),
            name="manifest.json",
            run=name,
            exports=exports,
            output=out,
            idle_s=idle_s,
        )


def before(name: str) -> list[str]:
    """The records that filled the store before this one: a row has the same first two digits."""
    if name[:2] not in ("13", "14"):
        return []
    return [each for each in NAMES if each[:2] == name[:2] and each < name]


def told(sink: Sink, stream: Records) -> None:
    for record in stream:
        sink.take(record)
    sink.close()


class Ended:
    """A replayed record: its end and what was said, in upstream's forms."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.place = Replay(path)
        for each in before(name):
            self.place.run(each)
            shutil.rmtree(path / "out", ignore_errors=True)
        if name == MERGED:
            (path / "out/image/keep").mkdir(parents=True)
            (path / "out/image/keep/stale").write_text("s")
        self.code, self.records = self.place.run(name)
        collector = ResultCollector()
        told(collector, self.records)
        self.result = collector.result()
        out = io.StringIO()
        told(JsonSeqSink(out), self.records)
        self.said = entries(out.getvalue())


@pytest.fixture(name="ended", params=NAMES, scope="module")
def fixture_ended(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Ended:
    builds.needs_root()
    return Ended(request.param, tmp_path_factory.mktemp("replay"))


def test_it_ends_as_upstreams(ended: Ended) -> None:
    wanted = CODES.get(ended.name, int(path_of(ended.name, "exit_code").read_text()))
    assert ended.code == wanted, ended.records[-1]


def test_its_result_is_upstreams(ended: Ended) -> None:
    if ended.name == REFUSED:
        assert [fault["path"][-1] for fault in ended.records[0]["faults"]] == ["options"] * 2
    elif ended.name in DIED:
        _, kind, words = DIED[ended.name]
        assert ended.result.get("error", {}).get("type") == kind
        assert words in json.dumps(ended.result)
    elif ended.name == NO_EXPORT or ended.name in MORE_CACHED:
        assert ended.result["success"]
    else:
        wanted = read(ended.name, "result.json")
        assert _comparable(ended.result, ended.name) == _comparable(wanted, ended.name)


def _comparable(result: Document, name: str) -> Document:
    """A result without what is wanted to differ."""
    result = json.loads(json.dumps(result))
    stages = [entry for log in result["log"].values() for entry in log]
    stages += [result["error"]["details"].get("stage")] if "error" in result else []
    for stage in filter(None, stages):
        stage["output"] = _output(stage["type"], stage["output"], name)
        if (stage.get("error") or {}).get("type") != "exception" or not _is_golden(stage["type"]):
            stage["error"] = None  # upstream hardly ever says why
        else:
            stage["error"]["data"]["traceback"] = _lines(stage["error"]["data"]["traceback"])
    unread = _unread(name)
    for source, items in list(result["sources"].items()):
        if source == NOT_TRIED.get(name):
            del result["sources"][source]
        elif source != "success":
            result["sources"][source] = [e for e in items if e["checksum"] not in unread]
    return result


def _is_golden(stage: str) -> bool:
    return stage.startswith("org.osbuild.golden.")


def _output(stage: str, text: str, name: str) -> str:
    if not _is_golden(stage):
        return ""
    if "bytes hidden" in text or len(text) > 31_000:  # upstream cuts its result's, too
        text = text[-31_000:]
    return "dumped\n" if name == WITH_NOISE and "dumped\n" in text else _lines(text)


def _lines(text: str) -> str:
    """Without the number of a line of the library."""
    return re.sub(r"(osbuild/api.py\S*, line )\d+", r"\1N", text)


def _unread(name: str) -> set[str]:
    """Items of sources that no stage reads: upstream gets them, ours does not."""
    manifest = manifest_of(name)
    text = json.dumps(manifest["pipelines"])
    items = {item for source in manifest.get("sources", {}).values() for item in source["items"]}
    return {item for item in items if item not in text}


def test_its_monitor_says_what_upstreams_does(ended: Ended) -> None:
    if ended.name in (REFUSED, NO_EXPORT, *MORE_CACHED):
        return
    found, services = _messages(ended.said, ended.name)
    wanted, recorded = _messages(
        entries(path_of(ended.name, "monitor.seq").read_text()), ended.name
    )
    if ended.name in DIED:  # upstream's stream just ends
        assert found[: len(wanted)] == wanted
        assert found[-1][0].startswith("manifest manifest.json")
    elif ended.name == OTHER_ORDER:
        # Of two pipelines of one id upstream built the second one.
        texts = [each[0].replace("pipeline twin", "pipeline b") for each in wanted]
        assert sorted(each[0] for each in found) == sorted(texts)
    else:
        assert found == wanted
        assert services == recorded


def _messages(said: list[Document], name: str) -> tuple[list[Any], list[str]]:
    """What was said of the build, with its place and progress; and the lines of golden services."""
    messages: list[Any] = []
    services = []
    for entry in said:
        text, origin = entry.get("message", ""), entry["whole"]["origin"]
        if origin == "org.osbuild":
            if "golden" in text:
                services.append(re.sub(r"(mounting )\S*/", r"\1", text))
        elif not origin.startswith("stages/") and not _is_of(text, NOT_TRIED.get(name)):
            result = entry.get("result", {})
            progress = entry["progress"] if name not in NOT_TRIED else None
            place = None if name in READ_HERE else entry["whole"]
            facts = [result.get("name"), result.get("success"), entry.get("metadata")]
            messages.append((text, place, progress, *facts, entry.get("options")))
    return messages, sorted(services)


def _is_of(text: str, source: str | None) -> bool:
    return source is not None and text.endswith(source)


def test_what_it_exports_is_upstreams(ended: Ended) -> None:
    lines = _text(ended.name).splitlines()
    if not lines:
        assert not ended.code or not list((ended.place.path / "out").rglob("*"))
        return
    if ended.name == MERGED:
        lines = [line for line in lines if not line.endswith("/stale")]
    else:  # the output that we made is its owner's alone: set-uid programs
        lines[0] = lines[0].replace("drwxr-xr-x", "drwx------")
    found = _listing(ended.place.path / "out")
    assert [_facts(line, found) for line in lines] == [found[line.split()[-1]] for line in lines]
    assert found.keys() == {line.split()[-1] for line in lines}


def test_its_tars_hold_what_upstreams_do(ended: Ended) -> None:
    for path in (DATA / "runs" / ended.name).glob("*.tar*.members.txt"):
        found = []
        archive = path.name.removesuffix(".members.txt")
        with tarfile.open(ended.place.path / "out/image" / archive) as tar:
            for each in tar:
                kind = stat.S_IFDIR if each.isdir() else stat.S_IFREG
                mode, owner = stat.filemode(kind | each.mode), f"{each.uid}:{each.gid}"
                found.append([mode, owner, str(each.size), each.name])
        # Names of owners are those of /etc, which the runner of the record had left empty.
        wanted = [line.split() for line in path.read_text().splitlines()]
        assert sorted(found) == sorted([*each[:2], *each[3:]] for each in wanted)


def _text(name: str) -> str:
    """The listing that was recorded; "" if nothing was exported."""
    path = DATA / "runs" / name / "export_tree.txt"
    return path.read_text() if path.exists() else ""


def _listing(top: Path) -> dict[str, list[str]]:
    """Path -> the words of upstream's record about it."""
    found = {}
    for path in [top, *top.rglob("*")]:
        facts = path.lstat()
        is_file = stat.S_ISREG(facts.st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if is_file else "-"
        recent = time.time() - facts.st_mtime < 3600
        name = str(path.relative_to(top))
        found[name] = [
            stat.filemode(facts.st_mode),
            f"{facts.st_uid}:{facts.st_gid}",
            str(facts.st_size) if is_file else "-",
            f"mtime={'now' if recent else int(facts.st_mtime)}",
            f"sha256={content}",
            name,
        ]
    return found


def _facts(line: str, found: dict[str, list[str]]) -> list[str]:
    """A line of the record; what it leaves open is as found."""
    words = line.split()
    ours = found.get(words[-1], words)
    words[2] = ours[2] if words[2] == "*" else words[2]
    words[4] = ours[4] if words[4] == "sha256=-" else words[4]
    return words


def test_a_stage_gets_upstreams_arguments(ended: Ended) -> None:
    if ended.name not in DUMPS:
        return
    dump = ended.place.path / "out/image/dump"
    wanted = read(ended.name, "arguments")
    found = json.loads((dump / "arguments").read_bytes())
    for mount in wanted["mounts"].values():  # a trailing /. is upstream's
        if "path" in mount:
            mount["path"] = os.path.normpath(mount["path"])
    assert found == wanted
    assert json.loads((dump / "env.json").read_bytes()) == json.loads(
        (DATA / "dump" / ended.name / "env.json").read_bytes()
    )
    ours = json.loads((dump / "process.json").read_bytes())
    theirs = json.loads((DATA / "dump" / ended.name / "process.json").read_bytes())
    for name in ("argv", "cwd", "executable", "own_cmdline", "proc_cmdline", "net_dev", "fds"):
        assert ours[name] == theirs[name], name


def test_a_cached_build_runs_what_is_left(tmp_path: Path) -> None:
    """Every stage is kept, so fewer run than upstream's; cached ones tell their metadata."""
    builds.needs_root()
    place = Replay(tmp_path)
    ran = {}
    for name in [each for each in NAMES if each.startswith("13-")]:
        code, records = place.run(name)
        assert code == 0, records[-1]
        ran[name[3]] = [each["stage"] for each in records if each["record"] == "stage.started"]
        left = [each["metadata"] for each in records if each["record"] == "stage.cached"]
        assert not left or {"n": 1} in left
    golden = "org.osbuild.golden.act"
    assert ran["1"] == ["org.osbuild.mkdir", golden, "org.osbuild.mkdir"]
    assert ran["2"] == [golden]
    assert ran["3"] == ran["5"] == ran["6"] == []
