"""`osbuild-pika result`, `runs`, and how every verb is told which run is meant."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from finished import write_run

from osbuild_pika import runs
from osbuild_pika.cli.places import resolve
from osbuild_pika.cli.tables import render, size
from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.lifecycle import Journal

EVIL = "\x1b[2J\nforged ::error::"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(osbuild_pika, list(map(str, arguments)))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "runs"
    directory.mkdir()
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


def begin(root: Path, name: str) -> Path:
    """A run of this process, which has not ended."""
    run = runs.join(str(root), name, runs.engine_of(os.getpid()))
    with Journal(run.directory) as journal:
        journal.append("provisioning", "at work")
        journal.write_status("provisioning", "at work")
    run.close()
    return root / run.id


def fail(root: Path, name: str) -> Path:
    directory = begin(root, name)
    with Journal(directory) as journal:
        journal.finish("failed", 3, f"no {EVIL}")
    return directory


@pytest.fixture
def complete(root: Path, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/hello.tar").write_bytes(b"hello")
    return write_run(root / "web", [tmp_path / "out"])


def test_a_result_names_what_was_made(complete: Path) -> None:
    done = call("result", "web")
    assert done.exit_code == 0
    head, heads, row = done.stdout.rstrip("\n").split("\n")
    assert head.startswith("web: completed in ")
    assert heads.split() == ["PIPELINE", "NAME", "SIZE", "SHA256", "PATH"]
    assert row.split()[:4] == ["image", "hello.tar", "5", "B"]


def test_a_result_for_programs_is_one_object(complete: Path) -> None:
    done = call("result", "web", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["artifacts"][0]["size_bytes"] == 5


def test_the_result_of_a_failed_run_says_so(root: Path) -> None:
    fail(root, "web")
    done = call("result", "web")
    assert done.exit_code == 1
    assert done.stdout.startswith("web: failed in <1s (exit code 3): no ")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\n") == 1
    assert json.loads(call("result", "--json", "web").stdout)["success"] is False


@pytest.mark.parametrize(("more", "code"), [((), 75), (("--wait", "10ms"), 124)])
def test_a_run_that_goes_on_has_no_result(more: tuple[str, ...], code: int, root: Path) -> None:
    begin(root, "web")
    done = call("result", "web", *more)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "web: the run has not ended: it is provisioning; wait for it: " in done.stderr
    told = call("result", "web", "--json", *more)
    assert told.exit_code == code
    error = json.loads(told.stdout)["error"]
    assert set(error) == {"code", "message", "path", "hint"}


def test_a_result_can_be_waited_for(root: Path) -> None:
    directory = begin(root, "web")

    def end() -> None:
        time.sleep(0.3)
        with Journal(directory) as journal:
            journal.finish("completed", 0, "built")

    ending = threading.Thread(target=end)
    ending.start()
    done = call("result", "--wait", "1m", "web")
    ending.join()
    assert (done.exit_code, done.stdout.partition(" in ")[0]) == (0, "web: completed")


def test_a_dead_run_is_ended_first(root: Path) -> None:
    directory = begin(root, "web")
    facts = json.loads((directory / "run.json").read_text())
    facts["engine"]["boot_id"] = "another"
    (directory / "run.json").write_text(json.dumps(facts))
    assert call("result", "web", "--wait", "10s").exit_code == 1
    assert json.loads(call("runs", "--format", "json").stdout)["runs"][0]["exit_code"] == 137


@pytest.mark.parametrize("wait", ["", "soon", "-1s", "1d", "٣s", "1e9"])
def test_a_wait_that_is_no_time_is_bad_input(wait: str, root: Path) -> None:
    done = call("result", "--wait", wait)
    assert done.exit_code == 2
    assert "is not a time such as" in done.stderr


def test_the_newest_run_is_meant_if_none_is_named(root: Path) -> None:
    for name in ("b", "c", "a"):
        fail(root, name)
        time.sleep(0.02)
    assert call("result").stdout.startswith("a: failed")
    assert call("runs", "show").stdout.startswith("a: failed")


@pytest.mark.parametrize("verb", [("result",), ("runs", "show")])
def test_without_that_run_it_is_bad_input(verb: tuple[str, ...], root: Path) -> None:
    assert call(*verb).stderr == f"osbuild-pika: error: {root}: there is no run yet\n"
    for name in ("web", "../x", "", EVIL):
        done = call(*verb, name)
        assert done.exit_code == 2
        assert "no run of that id in" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


def test_all_runs_are_listed(root: Path, complete: Path) -> None:
    begin(root, "going")
    fail(root, "bad")
    (root / "torn").mkdir()
    (root / "torn/status.json").write_text("{")
    (root / "link").symlink_to(root / "web")
    done = call("runs")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.split("\n")[1:-1]}
    assert rows == {
        "bad": "failed",
        "going": "provisioning",
        "web": "completed",
        "torn": "unreadable",
    }
    listed = json.loads(call("runs", "--format", "json").stdout)["runs"]
    assert {each["run_id"]: each["state"] for each in listed} == rows


def test_without_runs_the_list_is_empty(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(root / "none"))
    assert json.loads(call("runs", "--format", "json").stdout) == {"runs": []}
    assert call("runs").stdout.split() == ["RUN", "STATE", "STARTED", "TOOK", "EXIT", "MESSAGE"]


def test_a_run_is_traced_from_manifest_to_artifact(complete: Path) -> None:
    shown = call("runs", "show", "web")
    assert shown.exit_code == 0
    words = ["manifest", "hello.json", "org.osbuild.inline", "org.osbuild.tar", "hello.tar"]
    places = [shown.stdout.index(word) for word in words]
    assert places == sorted(places)
    told = json.loads(call("runs", "show", "web", "--format", "json").stdout)
    assert told["stages"][0]["type"] == "org.osbuild.tar"


def test_watch_and_check_take_an_id_too(complete: Path) -> None:
    assert "result: completed" in call("watch", "web").stdout
    assert call("check", "web").stdout.startswith("ok: ")


@pytest.mark.parametrize(
    ("text", "made", "meant"),
    [
        ("web", [], "runs/web"),
        ("./web", [], "./web"),
        ("web", ["web/other"], "runs/web"),
        ("web", ["web/status.json"], "web"),
        ("other", [], "other"),
        ("..", [], ".."),
    ],
)
def test_an_id_is_looked_for_below_the_root(
    text: str, made: list[str], meant: str, complete: Path, tmp_path: Path
) -> None:
    for path in made:
        Path(path).parent.mkdir()
        Path(path).touch()
    assert resolve(text) == (str(tmp_path / meant) if meant == "runs/web" else meant)


def test_a_table_is_safe_and_whole() -> None:
    text = render(("A", "B"), [("x" * 300, EVIL), ("[bold]y[/]", ":smile:")])
    assert text.count("\n") == 2
    assert "x" * 300 in text
    assert "[bold]y[/]" in text
    assert ":smile:" in text
    assert "\x1b" not in text


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = render(("A", "B"), [("x" * 50, "y" * 50)]).split("\n")
    assert max(map(len, lines)) <= 20
    assert sum(line.count("x") for line in lines) == 50


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")],
)
def test_sizes_are_short(count: Any, words: str) -> None:
    assert size(count) == words
