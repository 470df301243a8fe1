"""`make demo` shows what it promises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]


def run(script: str, directory: Path, **environment: str) -> Done:
    command = [sys.executable, str(ROOT / "examples" / script), str(directory)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=variables
    )


@pytest.fixture(scope="module")
def lifecycle(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run("lifecycle.py", tmp_path_factory.mktemp("lifecycle") / "run")


def test_a_killed_writer_loses_nothing(lifecycle: Done) -> None:
    assert lifecycle.returncode == 0, lifecycle.stderr
    assert "0 of them are lost" in lifecycle.stderr
    assert "kill -9" in lifecycle.stderr


def test_a_run_is_followed_live(lifecycle: Done) -> None:
    assert lifecycle.stdout.count("worker 0 works") == 8
    assert lifecycle.stdout.count("worker 2 works") == 8
    assert 0 < lifecycle.stdout.count("worker 1 works") < 8


def test_the_demo_builds_what_it_must_and_no_more(tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("bwrap") or not shutil.which("mksquashfs"):
        pytest.skip("needs root, bubblewrap and squashfs-tools")
    done = run("demo.py", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stderr.splitlines() if " hello.json: done in " in line]
    assert [line.split("s, ", 1)[1] for line in ends] == [
        "7 steps, 0 of them cached",
        "2 steps, 2 of them cached",
        "6 steps, 5 of them cached",
    ]
    assert "the option compression changed" in done.stdout
    assert {each.name for each in (tmp_path / "demo/image").iterdir()} == {
        "hello.tar",
        "hello.squashfs",
    }
    assert "0 of them are lost" in done.stderr


def test_where_nothing_can_be_built_the_demo_says_why(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    done = run("demo.py", tmp_path / "demo", PATH=str(programs))
    assert done.returncode == 3
    assert "fix: apt-get install bubblewrap" in done.stdout
    assert "nothing can be built here" in done.stderr
    assert "0 of them are lost" in done.stderr
