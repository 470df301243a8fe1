"""The records of boots in the run that made their image."""

import dataclasses
import json
from pathlib import Path

import pytest
from finished import write_run

from osbuild_pika import verify
from osbuild_pika.errors import InputError
from osbuild_pika.incus.boots import Boot, BootError, boots_of, find_run, keep, newest
from osbuild_pika.incus.launching import find_image
from osbuild_pika.lifecycle import Journal

BOOT = Boot(
    boot_id="7f27c0de-1111-4222-8333-444455556666",
    instance="w1",
    project="default",
    fingerprint="f" * 64,
    wanted="ready",
    outcome="reached",
    state="ready",
    message="it serves",
    started_at="2026-11-21T12:00:00.000Z",
    finished_at="2026-11-21T12:00:06.000Z",
    seconds=6.2,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "web", [])


def test_what_is_kept_is_found_again(run: Path) -> None:
    waiting = dataclasses.replace(BOOT, outcome="waiting", finished_at=None, seconds=None)
    keep(str(run), waiting, {})
    assert boots_of(str(run)) == [waiting]
    directory = keep(str(run), BOOT, {"status.json": b"{}\n"})
    assert boots_of(str(run)) == [BOOT]
    assert sorted(path.name for path in Path(directory).iterdir()) == ["boot.json", "status.json"]


def test_an_instance_that_started_again_has_its_boots_in_their_order(run: Path) -> None:
    ids = [f"{digit}f27c0de-1111-4222-8333-444455556666" for digit in "958"]
    ends = ("2026-11-21T12:00:03.000Z", "2026-11-21T12:00:04.000Z", None)
    for boot_id, end in zip(ids, ends, strict=True):
        keep(str(run), dataclasses.replace(BOOT, boot_id=boot_id, finished_at=end), {})
    assert [boot.boot_id for boot in boots_of(str(run))] == ids


def test_the_builds_own_records_stay_whole(run: Path) -> None:
    before = (run / "events.jsonl").read_bytes()
    keep(str(run), BOOT, {"events.jsonl": b"{}\n", "status.json": b"", "result.json": b""})
    assert (run / "events.jsonl").read_bytes() == before
    assert not verify.verify(run).faults


@pytest.mark.parametrize("boot_id", ["", "..", "../../x", "7F27C0DE-1111-4222-8333-444455556666"])
def test_what_is_no_boot_id_is_no_path(boot_id: str, run: Path) -> None:
    with pytest.raises(BootError, match="is no id of a boot"):
        keep(str(run), dataclasses.replace(BOOT, boot_id=boot_id), {})
    assert not (run / "boots").exists()


@pytest.mark.parametrize("place", ["boots", f"boots/{BOOT.boot_id}"])
def test_a_link_in_the_way_is_not_followed(place: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BootError, match="is a link"):
        keep(str(run), BOOT, {"status.json": b"{}"})
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]


def test_a_guest_that_claims_anothers_boot_id_overwrites_nothing(run: Path) -> None:
    keep(str(run), BOOT, {})
    with pytest.raises(BootError, match="w2: claims the boot id of w1"):
        keep(str(run), dataclasses.replace(BOOT, instance="w2"), {})
    assert boots_of(str(run)) == [BOOT]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**vars(BOOT), "instance": 3})])
def test_what_cannot_be_read_is_passed_over(text: str, run: Path) -> None:
    directory = Path(keep(str(run), BOOT, {}))
    (directory / "boot.json").write_text(text)
    (run / "boots/other").mkdir()
    assert boots_of(str(run)) == []


def exporting(root: Path, name: str, out: Path, **more: str) -> Path:
    export = {"pipeline": "incus-unified", "id": "1", "path": str(out), **more}
    return write_run(root / name, [], {"exports": [export]})


def test_the_run_of_an_image_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "runs", tmp_path / "out"
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(root))
    root.mkdir()
    out.mkdir()
    (out / "web.tar").write_bytes(b"image")
    by_path = exporting(root, "web", out)
    by_fingerprint = exporting(root, "other", tmp_path / "gone", fingerprint="a" * 64)
    by_word = exporting(root, "third", tmp_path / "gone")
    with Journal(by_word) as journal:
        journal.append("completed", "m", {"event": "artifact", "sha256": "b" * 64})
    assert find_run(str(root), "c" * 64, (str(out / "web.tar"),)) == str(by_path)
    assert find_run(str(root), "a" * 64) == str(by_fingerprint)
    assert find_run(str(root), "b" * 64) == str(by_word)
    assert find_run(str(root), "c" * 64) is None
    image = find_image(str(out / "web.tar"))
    assert image == find_image(str(out)) == find_image("web") == find_image(str(by_path))
    assert image.run == str(by_path)


def test_the_newest_run_of_a_name_that_completed_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.tar").write_text(name)
    later = [f"web.01j{number:023d}" for number in range(2)]
    exporting(tmp_path / "runs", "web", tmp_path / "one")
    good = exporting(tmp_path / "runs", later[0], tmp_path / "two")
    (tmp_path / "runs" / later[1]).mkdir()
    exporting(tmp_path / "runs", "website", tmp_path / "one")
    assert find_image("web").run == str(good)
    assert len(newest(str(tmp_path / "runs"), "web")) == 3


@pytest.mark.parametrize("text", ["none", "", "./none", "a b", "\x1b[2J", "f00"])
def test_an_image_that_is_not_there_is_said(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        find_image(text)
    assert "\x1b" not in str(caught.value)


def test_a_run_without_an_image_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path))
    write_run(tmp_path / "web", [])
    with pytest.raises(InputError, match="run web: made no files"):
        find_image("web")
    exporting(tmp_path, "gone", tmp_path / "nowhere.tar")
    with pytest.raises(InputError, match=r"nowhere.tar: is gone; build it again"):
        find_image("gone")
