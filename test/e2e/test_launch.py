"""`osbuild-pika launch` with real guests, good and bad ones."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guests
import pytest
from click.testing import CliRunner, Result
from finished import write_run

from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.incus import images, instances, waiting
from osbuild_pika.incus.boots import boots_of
from osbuild_pika.incus.client import Client

Launched = Callable[..., Result]
READY = 'say booted up; say starting nginx; say ready "it serves"' + guests.STAY


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "runs"
    directory.mkdir()
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(directory))
    return directory


def build(root: Path, script: str, name: str = "web") -> Path:
    """A run that made a unified image."""
    out = root.parent / name
    out.mkdir()
    tree = root.parent / f"{name}.work"
    tree.mkdir()
    path = guests.unified(tree, script)
    path.rename(out / "web.tar.gz")
    export = {"pipeline": "incus-unified", "id": "1", "path": str(out)}
    return write_run(root / name, [], {"exports": [export]})


def call(client: Client, *arguments: str | Path) -> Result:
    command = ["launch", *map(str, arguments), "--socket", client.path]
    return CliRunner().invoke(osbuild_pika, command)


def kept(run: Path) -> dict[str, Any]:
    """The one boot of a run: its files by name."""
    (directory,) = (run / "boots").iterdir()
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_guest_that_gets_ready(client: Client, root: Path) -> None:
    run = build(root, READY)
    before = (run / "events.jsonl").read_bytes()
    done = call(client, "web", "w1", "--wait", "ready")
    assert done.exit_code == 0, done.stderr
    boot_id = instances.boot_id(client, "w1")
    assert done.stdout.startswith("w1: ready after ")
    assert done.stdout.endswith(f" s (boot {str(boot_id)[:8]}...)\n")
    assert "w1 says starting: nginx" in done.stderr
    files = kept(run)
    assert sorted(files) == ["boot.json", "events.jsonl", "status.json"]
    facts = json.loads(files["boot.json"])
    assert facts["boot_id"] == boot_id == json.loads(files["status.json"])["boot_id"]
    assert (facts["outcome"], facts["state"], facts["instance"]) == ("reached", "ready", "w1")
    assert [json.loads(line)["kind"] for line in files["events.jsonl"].splitlines()] == [
        "booted",
        "starting",
        "ready",
    ]
    assert (run / "events.jsonl").read_bytes() == before
    shown = CliRunner().invoke(osbuild_pika, ["runs", "show", "web"])
    assert str(boot_id) in shown.stdout
    assert facts["fingerprint"][:12] in shown.stdout
    document = json.loads(
        CliRunner().invoke(osbuild_pika, ["runs", "show", "web", "--format", "json"]).stdout
    )
    assert document["boots"][0]["boot_id"] == boot_id


@pytest.mark.parametrize("wanted", ["requested", "provisioning", "booted", "starting"])
def test_who_is_ready_has_passed_the_states_before(
    wanted: str, client: Client, tmp_path: Path
) -> None:
    path = guests.unified(tmp_path, READY)
    assert call(client, path, "w1", "--wait", wanted).exit_code == 0


def test_a_guest_without_a_lifecycle_is_booted(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path)
    done = call(client, path, "w1", "--wait", "booted", "--format", "json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["state"]) == ("reached", "booted")
    assert answer["boot_id"] == instances.boot_id(client, "w1")
    assert (answer["is_imported"], answer["run"]) == (True, None)
    assert client.get("/1.0/instances/w1")["config"].get("security.privileged") is None


def test_a_split_image_is_launched_from_its_directory_or_its_files(
    client: Client, tmp_path: Path
) -> None:
    metadata, rootfs = guests.split(tmp_path, READY)
    assert call(client, metadata.parent, "w1").exit_code == 0
    assert call(client, metadata, "w2", "--rootfs", rootfs).exit_code == 0


def test_an_image_of_incus_is_launched_by_its_fingerprint(client: Client, root: Path) -> None:
    build(root, READY)
    assert call(client, "web", "w1", "--alias", "web/latest").exit_code == 0
    (image,) = images.all_images(client)
    assert images.find_alias(client, "web/latest") == image["fingerprint"]
    done = call(client, image["fingerprint"][:12], "w2", "--format", "json")
    assert json.loads(done.stdout)["fingerprint"] == image["fingerprint"]
    assert json.loads(done.stdout)["run"] is None  # its exports do not name the fingerprint


def test_a_fingerprint_leads_to_the_run_that_made_it(client: Client, root: Path) -> None:
    run = build(root, READY)
    facts = json.loads((run / "build.json").read_text())
    fingerprint = json.loads(call(client, "web", "w1", "--format", "json").stdout)["fingerprint"]
    facts["exports"][0]["fingerprint"] = fingerprint
    (run / "build.json").write_text(json.dumps(facts))
    done = call(client, fingerprint[:20], "w2", "--format", "json")
    assert json.loads(done.stdout)["run"] == str(run)
    assert [each.instance for each in boots_of(str(run))] == ["w1", "w2"]


def test_a_definition_stands_for_its_newest_image(client: Client, root: Path) -> None:
    build(root, READY)
    definition = root / "image.yaml"
    definition.write_text("name: web\nfrom: debian/bookworm\n")
    done = call(client, definition, "w1", "--wait", "booted")
    assert done.exit_code == 0, done.stderr
    assert len(boots_of(str(root / "web"))) == 1
    definition.write_text("name: shop\nfrom: debian/bookworm\n")
    done = call(client, definition, "s1")
    assert (done.exit_code, "shop is not built yet: osbuild-pika build" in done.stderr) == (2, True)


def test_a_guest_that_is_never_ready(client: Client, root: Path) -> None:
    run = build(root, "say starting 'waiting for godot'" + guests.STAY)
    done = call(client, "web", "w1", "--timeout", "1s")
    assert done.exit_code == 124
    assert done.stdout.startswith("w1: not ready after 1.")
    assert done.stdout.endswith("it said last: starting: waiting for godot\n")
    assert json.loads(kept(run)["boot.json"])["outcome"] == "timed out"
    assert instances.state(client, "w1") == "Running"


def test_a_guest_that_failed(client: Client, root: Path) -> None:
    run = build(root, "say starting it; say failed 'no disk'; result failed 3 no" + guests.STAY)
    done = call(client, "web", "w1")
    assert done.exit_code == 5
    assert done.stdout.startswith("w1: failed after ")
    assert done.stdout.endswith(": no disk\n")
    assert json.loads(kept(run)["result.json"])["exit_code"] == 3


def test_a_guest_that_failed_and_stopped_at_once(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path, "say starting it; say failed 'no disk'; sleep 1")
    assert call(client, path, "w1").stdout.endswith(": no disk\n")


def test_a_status_of_another_boot_is_not_this_ones(client: Client, root: Path) -> None:
    other = "7f27c0de-0000-4000-8000-000000000000"
    run = build(root, f"status ready lie {other}; result completed 0 lie" + guests.STAY)
    done = call(client, "web", "w1", "--timeout", "1s")
    assert done.exit_code == 124
    assert "its status.json is not of this boot" in done.stdout
    assert sorted(kept(run)) == ["boot.json"]


def test_yesterdays_status_does_not_count_after_a_restart(client: Client, tmp_path: Path) -> None:
    script = f"[ -e /was ] || say ready yes; : >/was{guests.STAY}"
    path = guests.unified(tmp_path, script)
    assert call(client, path, "w1").exit_code == 0
    instances.stop(client, "w1")
    instances.start(client, "w1")
    waited = waiting.wait(waiting.Watch(client, "w1"), "ready", 0.5)
    assert isinstance(waited.outcome, waiting.TimedOut)
    assert "not of this boot" in waited.outcome.last


def test_a_guest_that_writes_without_end(client: Client, root: Path) -> None:
    doubled = "cat $R/events.jsonl $R/events.jsonl >/tmp/e; mv /tmp/e $R/events.jsonl"
    flood = f"event starting flood; for i in $(seq 17); do {doubled}; done"
    run = build(root, f"{flood}; event ready 'after all'{guests.STAY}")
    done = call(client, "web", "w1")
    assert done.exit_code == 0
    files = kept(run)
    assert 512 * 1024 < len(files["events.jsonl"]) <= waiting.MAX_FILE
    assert json.loads(files["events.jsonl"].splitlines()[-1])["message"] == "after all"
    assert done.stderr.count("says") <= waiting.MAX_TOLD


def test_a_status_that_is_too_large_is_none(client: Client, tmp_path: Path) -> None:
    script = "head -c 2000000 /dev/zero >$R/status.json" + guests.STAY
    done = call(client, guests.unified(tmp_path, script), "w1", "--timeout", "1s")
    assert done.exit_code == 124


def test_escapes_of_a_guest_are_not_shown(client: Client, root: Path) -> None:
    evil = r"\u001b[2J\u202e::error::\nforged"
    run = build(root, f"say starting '{evil}'; say failed '{evil}'" + guests.STAY)
    done = call(client, "web", "w1")
    assert done.exit_code == 5
    shown = CliRunner().invoke(osbuild_pika, ["runs", "show", "web"])
    for text in (done.stdout, done.stderr, shown.stdout):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not [line for line in text.split("\n") if line.startswith(("::", "forged"))]
    assert "\\u001b" in kept(run)["status.json"].decode()  # as it was said


@pytest.mark.parametrize(
    "script",
    [
        "mkfifo $R/status.json $R/events.jsonl",
        "ln -s /dev/zero $R/status.json; ln -s /proc/kmsg $R/events.jsonl",
        "mkdir $R/status.json $R/events.jsonl",
        "head -c 100000 /dev/zero >$R/status.json; cp $R/status.json $R/events.jsonl",
    ],
)
def test_what_is_no_file_of_a_lifecycle_is_passed_over(
    script: str, client: Client, tmp_path: Path
) -> None:
    done = call(client, guests.unified(tmp_path, script + guests.STAY), "w1", "--timeout", "1s")
    assert done.exit_code == 124, done.stderr
    assert "it said nothing of this boot" in done.stdout


def test_a_guest_that_stops_is_gone(client: Client, root: Path) -> None:
    run = build(root, "say starting it; sleep 1")
    done = call(client, "web", "w1")
    assert done.exit_code == 5
    assert done.stdout.startswith("w1: stopped after ")
    assert "before it was ready: starting: it" in done.stdout
    assert json.loads(kept(run)["boot.json"])["outcome"] == "gone"


def test_a_guest_that_stops_at_once_is_gone(client: Client, tmp_path: Path) -> None:
    done = call(client, guests.unified(tmp_path, "exit 1"), "w1")
    assert done.exit_code == 5
    assert "stopped" in done.output


def test_a_guest_that_is_deleted_meanwhile_is_gone(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path)

    def take_away() -> None:
        with Client(client.path) as other:
            guests.until(lambda: instances.state(other, "w1") == "Running")
            instances.delete(other, "w1")

    taking = threading.Thread(target=take_away)
    taking.start()
    done = call(client, path, "w1")
    taking.join()
    assert done.exit_code in (3, 5)
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_stop_can_be_waited_for(client: Client, tmp_path: Path) -> None:
    done = call(client, guests.unified(tmp_path, "sleep 1"), "w1", "--wait", "stopped")
    assert (done.exit_code, done.stdout.partition(" after ")[0]) == (0, "w1: stopped")


def test_a_guest_that_starts_again_tells_of_its_new_boot(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path, f"[ -e /was ] && say ready again; : >/was{guests.STAY}")
    assert call(client, path, "w1", "--wait", "none").stdout.startswith("w1: started")
    watch = waiting.Watch(client, "w1")
    assert watch.look().instance == "Running"
    first = watch.boot_id
    client.call("PUT", "/1.0/instances/w1/state", {"action": "restart", "force": True})
    waited = waiting.wait(watch, "ready", 20)
    assert waited.outcome == waiting.Reached("ready", "again")
    assert waited.boot_id not in (None, first)


def test_a_guest_that_reboots_itself_is_waited_for_again(client: Client, root: Path) -> None:
    run = build(
        root, "[ -e /was ] || { : >/was; sleep 2; reboot -f; }; say ready again" + guests.STAY
    )
    done = call(client, "web", "w1", "--format", "json")
    assert done.exit_code == 0, done.stdout
    assert json.loads(done.stdout)["boot_id"] == instances.boot_id(client, "w1")
    first, last = boots_of(str(run))
    assert (first.outcome, first.message) == ("gone", "it started again")
    assert (last.outcome, last.boot_id) == ("reached", json.loads(done.stdout)["boot_id"])


def test_an_instance_is_replaced_only_if_asked_to(client: Client, tmp_path: Path) -> None:
    path = guests.unified(tmp_path)
    assert call(client, path, "w1", "--wait", "booted").exit_code == 0
    first = instances.boot_id(client, "w1")
    refused = call(client, path, "w1", "--wait", "booted")
    assert refused.exit_code == 2
    assert "w1: there is such an instance; --replace deletes it first" in refused.stderr
    assert instances.boot_id(client, "w1") == first
    assert call(client, path, "w1", "--wait", "booted", "--replace").exit_code == 0
    assert instances.boot_id(client, "w1") != first


def test_an_image_that_is_refused_replaces_nothing(client: Client, tmp_path: Path) -> None:
    assert call(client, guests.unified(tmp_path), "w1", "--wait", "booted").exit_code == 0
    first = instances.boot_id(client, "w1")
    (tmp_path / "bad.tar").write_bytes(b"bad")
    done = call(client, tmp_path / "bad.tar", "w1", "--replace")
    assert done.exit_code == 3
    assert "bad.tar: Incus refuses this image: " in done.stderr
    assert instances.boot_id(client, "w1") == first


def test_config_and_profiles_reach_the_instance(client: Client, tmp_path: Path) -> None:
    client.call("POST", "/1.0/profiles", {"name": "more", "config": {"user.a": "1"}})
    options = ("--profile", "default", "--profile", "more", "--config", "user.b=2=3")
    assert call(client, guests.unified(tmp_path), "w1", "--wait", "none", *options).exit_code == 0
    config = client.get("/1.0/instances/w1")["expanded_config"]
    assert (config["user.a"], config["user.b"]) == ("1", "2=3")
    instances.delete(client, "w1")
    client.call("DELETE", "/1.0/profiles/more")


def test_a_guest_that_cannot_start_says_why(client: Client, tmp_path: Path) -> None:
    done = call(client, guests.unified(tmp_path, None), "w1")
    assert done.exit_code == 5
    assert "w1: it could not be started: " in done.stderr
    assert 'Failed to exec "/sbin/init"' in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--profile", "none"), 3, 'Requested profile "none" doesn\'t exist'),
        (("--config", "no.such=1"), 3, "Unknown configuration key: no.such"),
        (("--project", "none"), 2, "none: Incus has no such project"),
    ],
)
def test_what_incus_refuses_is_one_line(
    more: tuple[str, ...], code: int, words: str, client: Client, tmp_path: Path
) -> None:
    done = call(client, guests.unified(tmp_path), "w1", *more)
    assert done.exit_code == code
    assert words in done.stderr.split("\n")[-2]
    assert not client.get("/1.0/instances")
