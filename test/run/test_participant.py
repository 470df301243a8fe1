"""The participant at its spool: real builds by the real engine, of a small repository."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import builds
import disks
import guests
import kills
import pytest
import repositories
from participants import Desk, add_busybox
from repositories import Repository

from osbuild_pika.verify import verify

IMAGE = "incus-unified/little.tar.zst"
CANCEL_S = 10.0  # a promise
LONG = "echo at work; sleep 600"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a repository, and its keyring."""
    builds.needs_root()
    repositories.needs_apt()
    problem = guests.why_not()
    if problem:
        pytest.skip(problem)
    path = tmp_path_factory.mktemp("repository")
    with repositories.key() as key:
        repository = Repository(path, key)
        add_busybox(path / "pool", repository.architecture)
        repository.publish()
        with repositories.served(path) as url:
            yield url, key.public


@pytest.fixture
def desk(tmp_path: Path, served: tuple[str, Path]) -> Iterator[Desk]:
    desk = Desk(tmp_path, *served)
    yield desk
    builds.wait_for(lambda: not kills.processes_of(tmp_path))


def runs_of(desk: Desk) -> list[str]:
    return sorted(os.listdir(desk.path / "runs"))


def test_a_workitem_comes_out_with_an_image(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", release="12.1", extra_opts=["--compression=zstd-3"]))
    done = desk.spool()
    assert done.returncode == 0, done.stderr
    out = desk.out("one")
    image = out["image"]
    assert (out["result"], image["result"], image["error"]) == (True, True, None), image
    assert image["image_url"] == f"http://127.0.0.1:8470/requests/i1/{IMAGE}"
    assert image["files_url"] == "http://127.0.0.1:8470/requests/i1/"
    assert image["logfile_url"] == "http://127.0.0.1:8470/requests/i1/i1.log"
    assert image["msg"]["report"] == {"converted": "little"}
    assert out["other"] == [1]
    (known,) = json.loads((desk.place("i1") / "artifacts.json").read_text())
    built = (desk.place("i1") / IMAGE).read_bytes()
    assert known["sha256"] == known["fingerprint"] == hashlib.sha256(built).hexdigest()
    assert verify(desk.place("i1")).faults == ()
    assert desk.statuses() == [("IN QUEUE", "i1"), ("BUILDING", "i1"), ("DONE", "i1")]
    assert os.listdir(desk.directory / "in") == os.listdir(desk.directory / "work") == []


def test_the_same_request_is_the_same_image_and_another_is_refused(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1"))
    desk.spool()
    desk.drop("two", desk.workitem("i1"))
    desk.drop("three", desk.workitem("i1", greeting="another"))
    desk.drop("four", desk.workitem("i2"))
    desk.spool()
    assert desk.out("one") == desk.out("two")
    assert len(runs_of(desk)) == 2  # of i1 and i2
    assert "is of another request" in desk.out("three")["image"]["error"]
    same = [(desk.place(each) / IMAGE).read_bytes() for each in ("i1", "i2")]
    assert same[0] == same[1]


def test_what_is_published_is_served_and_nothing_else(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1"))
    desk.spool()
    (desk.directory / "files/secret").symlink_to("/etc/passwd")
    (desk.directory / "files/etc").symlink_to("/etc")

    def fetch(url: str, *words: str) -> tuple[str, bytes]:
        shown = "%{http_code} %{content_type}"
        call = ["curl", "--path-as-is", "-s", "-o", str(desk.path / "got"), "-w", shown, *words]
        done = subprocess.run([*call, url], check=True, capture_output=True, text=True)
        return done.stdout, (desk.path / "got").read_bytes()

    with desk.server() as url:
        base = f"{url}/requests/i1"
        built = (desk.place("i1") / IMAGE).read_bytes()
        assert fetch(f"{base}/{IMAGE}") == ("200 application/zstd", built)
        assert fetch(f"{base}/{IMAGE}", "-r", "10-19") == ("206 application/zstd", built[10:20])
        assert fetch(f"{base}/i1.log")[0] == "200 text/plain; charset=utf-8"
        assert fetch(f"{base}/result.json")[0] == "200 application/json"
        kind, page = fetch(f"{base}/")
        assert (kind, IMAGE.encode() in page) == ("200 text/html; charset=utf-8", True)
        hidden = [".request.json", "../.i1.lock", "../../../.lock", "../../work"]
        links = ["../../secret", "../../etc/passwd", "../../../../../../../etc/passwd"]
        coded = ["%2e%2e/.i1.lock", "..%2f..%2f..%2f.lock", "%00", "i1.log%00.html", "x" * 5000]
        got = {each: fetch(f"{base}/{each}")[0][:3] for each in (*hidden, *links, *coded)}
        assert set(got.values()) == {"404"}, got
        assert fetch(f"{url}//etc/passwd")[0][:3] == "404"
        assert fetch(f"{base}/i1.log", "-X", "DELETE")[0][:3] == "405"
        assert fetch(f"{base}/i1.log", "-d", "x")[0][:3] == "405"


def test_a_participant_that_is_killed_goes_on_and_ends_once(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", "echo at work; sleep 4"))
    with desk.participant() as process:
        builds.wait_for(lambda: desk.says("i1", "at work"), 60)
        process.kill()
    assert not desk.has_answer("one")
    assert not (desk.place("i1") / "result.json").exists()
    with desk.participant():
        builds.wait_for(lambda: desk.has_answer("one"), 90)
    assert desk.out("one")["result"] is True, desk.out("one")
    log = (desk.place("i1") / "i1.log").read_text()
    assert "cached" in log.rpartition("at work")[0].rpartition("at work")[2]
    events = [
        json.loads(each) for each in (desk.place("i1") / "events.jsonl").read_text().splitlines()
    ]
    assert [each["kind"] for each in events].count("completed") == 1
    assert verify(desk.place("i1")).faults == ()
    assert [each for each, _ in desk.statuses()].count("DONE") == 1
    assert os.listdir(desk.directory / "work") == []


def test_a_participant_that_is_killed_at_any_moment_ends_its_work_once(desk: Desk) -> None:
    names = [f"w{number}" for number in range(3)]
    for name in names:
        desk.drop(name, desk.workitem(f"i-{name}", greeting=name))
    chance = random.Random(6)
    for _ in range(8):
        with desk.participant():  # killed at the end of the block
            time.sleep(chance.uniform(0.2, 4))
    done = desk.spool()
    assert done.returncode == 0, done.stderr
    assert [desk.out(name)["image"]["error"] for name in names] == [None] * len(names)
    for name in names:
        events = (desk.place(f"i-{name}") / "events.jsonl").read_text()
        assert events.count('"kind": "completed"') == 1
        assert verify(desk.place(f"i-{name}")).faults == ()
    assert os.listdir(desk.directory / "in") == os.listdir(desk.directory / "work") == []


def test_a_cancelled_build_ends_soon_with_an_error_and_no_image(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", LONG))
    desk.drop("two", desk.workitem("i2", LONG))
    with desk.participant():
        builds.wait_for(lambda: desk.says("i1", "at work"), 60)
        (desk.directory / "in/two.cancel").touch()  # it waits
        (desk.directory / "in/one.cancel").touch()
        builds.wait_for(lambda: desk.has_answer("one"), CANCEL_S)
        builds.wait_for(lambda: desk.has_answer("two"))
        builds.wait_for(lambda: os.listdir(desk.directory / "in") == [])
    image = desk.out("one")["image"]
    assert (image["result"], image["error"], image["image_url"]) == (False, "cancelled", None)
    assert desk.out("two")["image"]["error"] == "cancelled"
    assert not (desk.place("i1") / "incus-unified").exists()
    assert list(desk.place("i1").glob("**/*.zst")) == []
    assert verify(desk.place("i1")).faults == ()
    assert json.loads((desk.place("i1") / "status.json").read_text())["state"] == "failed"
    assert ("ERROR", "i1") in desk.statuses()
    (run,) = runs_of(desk)
    ended = json.loads((desk.path / "runs" / run / "result.json").read_text())
    assert ended["details"]["event"] == "interrupted"


def test_a_request_that_waits_for_its_mirror_is_cancelled_too(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes calls, says nothing
        desk.url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        desk.drop("one", desk.workitem("i1"))
        with desk.participant():
            builds.wait_for(lambda: desk.says("i1", "indexes of"), 60)
            (desk.directory / "in/one.cancel").touch()
            builds.wait_for(lambda: desk.has_answer("one"), CANCEL_S)
    assert desk.out("one")["image"]["error"] == "cancelled"
    assert verify(desk.place("i1")).faults == ()


def test_a_participant_that_is_asked_to_end_leaves_its_work_for_the_next(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", "echo at work; sleep 4"))
    with desk.participant() as process:
        builds.wait_for(lambda: desk.says("i1", "at work"), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert os.listdir(desk.directory / "work") == ["one.json"]
    done = desk.spool()
    assert (done.returncode, desk.out("one")["result"]) == (0, True), done.stderr


def test_a_participant_that_is_told_to_stop_ends_what_it_has_and_takes_no_more(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", "echo at work; sleep 2"))
    desk.drop("two", desk.workitem("i2"))
    with desk.participant() as process:
        builds.wait_for(lambda: desk.says("i1", "at work"), 60)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 0
    assert desk.out("one")["result"] is True
    assert os.listdir(desk.directory / "in") == ["two.json"]


def test_a_build_whose_process_is_killed_is_an_error(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", LONG))
    with desk.participant() as process:
        builds.wait_for(lambda: desk.says("i1", "at work"), 60)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        builds.wait_for(lambda: desk.has_answer("one"), 60)
    assert desk.out("one")["image"]["error"] == "its process was killed by SIGKILL"
    assert json.loads((desk.place("i1") / "result.json").read_text())["status"] == "failed"


def test_a_build_that_failed_is_told_and_may_be_tried_again(desk: Desk) -> None:
    desk.drop("one", desk.workitem("i1", "echo because; exit 3"))
    desk.spool()
    image = desk.out("one")["image"]
    assert "exited with status 3: because" in image["error"]
    assert image["logfile_url"].endswith("/i1/i1.log")
    assert desk.says("i1", "because")
    assert "i1.log" in (desk.place("i1") / "index.html").read_text()
    desk.drop("again", desk.workitem("i1", "echo because; exit 3"))
    desk.spool()
    assert desk.out("again")["image"]["error"] == image["error"]
    assert verify(desk.place("i1")).faults == ()


def test_two_participants_do_not_share_a_spool(desk: Desk) -> None:
    with desk.participant():
        builds.wait_for((desk.directory / ".lock").exists)
        second = desk.spool()
    assert (second.returncode, "another participant has this spool" in second.stderr) == (75, True)


@pytest.fixture
def full(desk: Desk) -> Iterator[Path]:
    """The directory of the answers, on a disk that is full."""
    out = desk.directory / "out"
    out.mkdir(parents=True)
    with disks.own_mounts():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(out)], check=True)
        shutil.copy("/dev/null", out / "fill")
        subprocess.run(["dd", "if=/dev/zero", f"of={out}/fill"], capture_output=True, check=False)
        yield out
        subprocess.run(["umount", str(out)], check=True)


def test_an_answer_that_finds_no_space_is_given_later_and_once(desk: Desk, full: Path) -> None:
    desk.drop("one", desk.workitem("i1"))
    done = desk.spool()
    assert (done.returncode, "No space left" in done.stderr) == (3, True), done.stderr
    assert not desk.has_answer("one")
    assert os.listdir(desk.directory / "work") == ["one.json"]
    (full / "fill").unlink()
    assert desk.spool().returncode == 0
    assert desk.out("one")["result"] is True
    assert len(runs_of(desk)) == 1  # it was not built again


def test_hostile_files_are_answered_and_harm_nobody(desk: Desk, tmp_path: Path) -> None:
    into = desk.directory / "in"
    into.mkdir(parents=True)
    (into / "link.json").symlink_to("/etc/shadow")
    os.mkfifo(into / "pipe.json")
    (into / "folder.json").mkdir()
    (into / "large.json").write_bytes(b" " * (5 * 1024 * 1024))
    (into / "deep.json").write_text("[" * 100_000)
    (into / "text.json").write_text("\0")
    (into / "No Name\n.json").write_text("{}")
    desk.drop("climbs", desk.workitem("../../x", prefix="/etc"))
    done = desk.spool()
    assert done.returncode == 0, done.stderr
    names = {"link", "pipe", "folder", "large", "deep", "text", "climbs"}
    found = {each.name.removesuffix(".json") for each in (desk.directory / "out").iterdir()}
    assert found == names
    answers = [json.loads(each.read_text()) for each in (desk.directory / "out").iterdir()]
    assert not any(each.get("fields", each)["result"] for each in answers)
    assert os.listdir(into) == ["No Name\n.json"]
    assert "No Name .json is passed over" in done.stderr
    assert os.listdir(desk.directory / "files") == []
