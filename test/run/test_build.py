"""Whole builds with the embedded engine: what is built, kept, told, and refused."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import builds
import pytest
from builds import Place, ended, manifest, named, sh

from osbuild_pika.verify import verify

TAR = shutil.which("tar")
HELLO = sh("echo hello > hello; ln -s hello link; mkdir -m 700 secret")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    builds.needs_root()
    return Place(tmp_path)


def states(records: builds.Records) -> list[str]:
    """What became of each stage, in order."""
    words = {"stage.cached": "cached", "stage.finished": "run"}
    return [words[record["record"]] for record in records if record["record"] in words]


def details(run: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)["details"] for line in (run / "events.jsonl").read_bytes().splitlines()
    ]


def test_a_build_exports_the_tree_and_tells_everything(place: Place) -> None:
    code, records = place.build(manifest(HELLO, sh("cat hello > copy; touch -h -d @0 link")))
    assert code == 0, records
    assert (place.output / "copy").read_text() == "hello\n"
    assert os.readlink(place.output / "link") == "hello"
    assert (place.output / "secret").stat().st_mode & 0o7777 == 0o700
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in place.output.iterdir()} == {
        (0, 0)
    }
    run = place.path / "runs/test"
    assert not verify(run).faults
    assert ended(run)["status"] == "completed"
    told = [each["event"] for each in details(run)]
    stage = ["stage.started", "stage.finished"]
    assert told == ["build.accepted", *stage, *stage, "artifact", "build.completed"]
    assert {each["stage"] for each in details(run)[1:5]} == {"org.test.sh"}


def test_finished_stages_are_not_run_again(place: Place) -> None:
    stages = [HELLO, sh("echo 2 > second"), sh("echo 3 > third")]
    assert states(place.build(manifest(*stages))[1]) == ["run"] * 3
    assert states(place.build(manifest(*stages))[1]) == ["cached"] * 3
    changed = [*stages[:2], sh("echo 4 > third")]
    assert states(place.build(manifest(*changed))[1]) == ["cached", "cached", "run"]
    assert (place.output / "third").read_text() == "4\n"
    assert (place.output / "second").read_text() == "2\n"


def test_a_byte_of_a_stages_code_runs_it_and_those_after_it_again(place: Place) -> None:
    demo = {"type": "org.osbuild-pika.demo"}
    what = manifest(demo, HELLO, demo)
    place.build(what)
    with open(place.modules / "stages/org.test.sh", "a") as file:
        file.write("\n")
    assert states(place.build(what)[1]) == ["cached", "run", "run"]


def test_a_failed_build_goes_on_where_it_failed(place: Place) -> None:
    code, records = place.build(manifest(HELLO, sh("echo too bad; exit 3"), sh("true")))
    assert code == 1
    failed = named(records, "stage.finished")[-1]
    assert failed["reason"] == "exited with status 3"
    assert failed["output"] == "too bad\n"
    run = place.path / "runs/test"
    assert not verify(run).faults
    assert ended(run)["message"] == "tree/org.test.sh: exited with status 3"
    assert ended(run)["exit_code"] == 1
    assert (run / "log/02-org.test.sh.log").read_text() == "too bad\n"
    assert not place.output.exists()
    code, records = place.build(manifest(HELLO, sh("echo good"), sh("true")))
    assert (code, states(records)) == (0, ["cached", "run", "run"])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", "was killed by SIGKILL"),
        ("printf '\\377\\303'; exit 1", "exited with status 1"),
        ("printf '\\033[2J\\033]0;x\\007'; exit 1", "exited with status 1"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 1", "exited with status 1"),
        ("echo '{' > /run/osbuild/meta", "the metadata are not JSON"),
    ],
    ids=["killed", "not utf-8", "escapes", "a long line", "metadata"],
)
def test_a_stage_that_misbehaves_fails_with_its_reason(
    script: str, reason: str, place: Place
) -> None:
    code, records = place.build(manifest(sh(script)))
    assert code == 1
    assert reason in named(records, "stage.finished")[-1]["reason"]
    assert not verify(place.path / "runs/test").faults
    assert reason in ended(place.path / "runs/test")["message"]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("total_s", "took longer than 1 s"), ("idle_s", "printed nothing for 1 s")],
)
def test_a_stage_that_hangs_is_ended(limit: str, reason: str, place: Place) -> None:
    code, records = place.build(manifest(sh("sleep 600")), **{limit: 1.0})
    assert code == 124
    assert named(records, "stage.finished")[-1]["reason"] == reason
    assert details(place.path / "runs/test")[-2]["event"] == "timeout"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_says_so_and_resumes(
    number: signal.Signals, code: int, place: Place
) -> None:
    what = manifest(HELLO, sh("test -e /run/osbuild/x || { echo at work; sleep 600; }"))
    with place.started(place.order(what)) as started:
        started.until(lambda record: record.get("text") == "at work\n")
        started.process.send_signal(number)
        started.until(lambda _: False)
        assert started.process.wait(builds.TIMEOUT_S) == code
    run = place.path / "runs/test"
    assert not verify(run).faults
    assert ended(run)["exit_code"] == code
    assert details(run)[-1]["event"] == "interrupted"
    assert states(place.build(manifest(HELLO, sh("true")))[1]) == ["cached", "run"]


def test_a_signal_cuts_an_export_short(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.path / "bin").mkdir()
    slow = place.path / "bin/tar"
    slow.write_text(f'#!/bin/sh\ncase $* in *--extract*) exec sleep 600;; esac\n{TAR} "$@"\n')
    slow.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        with place.started(place.order(manifest(HELLO))) as started:
            started.until(lambda record: record["record"] == "export.started")
            started.process.send_signal(signal.SIGTERM)
            assert started.process.wait(builds.TIMEOUT_S) == 143
    assert details(place.path / "runs/test")[-1]["event"] == "interrupted"
    assert os.listdir(place.output.parent) == []
    assert states(place.build(manifest(HELLO))[1]) == ["cached"]


def left_of(place: Place, stage: str) -> list[str]:
    """Mounts that the host sees below a place, and processes that know of it or of a stage's id:
    others may build beside us."""
    mounts = [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(place.path) in line
    ]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(place.path).encode() in words or f"stage-{stage[:16]}".encode() in words:
                processes.append(repr(words))
    return mounts + processes


def test_a_killed_build_leaves_a_true_end_and_nothing_else(place: Place) -> None:
    what = manifest(HELLO, sh(f"echo at work; sleep 600 # {place.path}"))
    with place.started(place.order(what)) as started:
        records = started.until(lambda record: record.get("text") == "at work\n")
        stage = named(records, "stage.started")[-1]["id"]
        started.process.kill()
        started.process.wait()
        run = place.path / "runs/test"
        builds.wait_for((run / "result.json").exists, 5)
        builds.wait_for(lambda: not left_of(place, stage), 5)
    assert ended(run) | {"finished_at": ""} == {
        "schema_version": 1,
        "status": "failed",
        "exit_code": 137,
        "finished_at": "",
        "message": "the engine was killed by SIGKILL before the end of the build",
        "details": {"event": "engine.lost", "run_id": "test", "source": "service"},
    }
    assert not verify(run).faults
    assert states(place.build(manifest(HELLO, sh("true")))[1]) == ["cached", "run"]
    assert os.listdir(place.path / "store/tmp") == []


# As much of the host's /usr as runs the stage of the tests.
ROOT = """
version=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p usr/bin usr/lib usr/lib64 usr/share usr/lib/$version
for program in python3 $version sh dash cat; do cp -a /usr/bin/$program usr/bin; done
for program in python3 sh cat; do ldd /usr/bin/$program | grep -o '/[^ ]*'; done | sort -u |
    while read -r file; do
        mkdir -p "usr${file%/*}"
        cp -L "/usr${file#/usr}" "usr${file#/usr}"
    done
cp -a /usr/lib/$version/*.py /usr/lib/$version/collections /usr/lib/$version/json \
    /usr/lib/$version/encodings /usr/lib/$version/re /usr/lib/$version/importlib usr/lib/$version
echo mine > usr/share/mine
"""


def test_a_tree_is_built_in_a_build_root_of_the_manifests_own(place: Place) -> None:
    what = manifest(sh("cat /usr/share/mine > seen"), root=[sh(ROOT)])
    what["pipelines"][1]["build"] = "name:root"
    code, records = place.build(what)
    assert code == 0, records
    assert (place.output / "seen").read_text() == "mine\n"


def test_what_is_exported_is_not_replaced_unasked(place: Place) -> None:
    place.output.mkdir(parents=True)
    (place.output / "mine").write_text("mine")
    code, records = place.build(manifest(HELLO), is_forced=False)
    assert code == 2
    assert "--force" in records[-1]["message"]
    assert not named(records, "stage.started")
    assert (place.output / "mine").read_text() == "mine"


def test_a_bad_manifest_is_refused_with_all_that_is_wrong(place: Place) -> None:
    code, records = place.build(manifest({"type": "org.test.none"}, {"type": "org.test.sh"}))
    assert code == 2
    (refused,) = records
    assert refused["record"] == "refused"
    assert len(refused["faults"]) == 2
    assert re.match(r"\.pipelines\[0\]\.stages\[0\]", refused["faults"][0]["text"])
    assert not (place.path / "runs").exists()


def test_a_runs_root_that_cannot_be_written_stops_before_anything_runs(place: Place) -> None:
    (place.path / "runs").write_text("a file")
    code, records = place.build(manifest(HELLO))
    assert code == 3
    assert [record["record"] for record in records] == ["refused"]
    assert not (place.path / "store").exists()


def test_metadata_of_a_stage_is_told(place: Place) -> None:
    _, records = place.build(manifest(sh("echo '{\"a\": 1}' > /run/osbuild/meta")))
    assert named(records, "stage.finished")[0]["metadata"] == {"a": 1}


def test_who_does_not_read_the_records_stops_no_clock(place: Place) -> None:
    order = place.order(manifest(sh("yes")), total_s=2.0)
    events = place.path / "runs/test/events.jsonl"
    with place.started(order) as started:
        builds.wait_for(lambda: events.exists() and b'"timeout"' in events.read_bytes())
        started.process.terminate()
        assert started.process.wait(builds.TIMEOUT_S) == 143
    assert not verify(place.path / "runs/test").faults
