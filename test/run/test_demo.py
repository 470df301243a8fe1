"""`make demo` shows what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    directory = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, str(ROOT / "examples/demo.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_demo_loses_nothing_and_checks(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.returncode == 0, demo.stderr
    assert "0 of them are lost" in demo.stderr
    assert "kill -9" in demo.stderr


def test_the_demo_is_followed_live(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.stdout.count("worker 0 works") == 8
    assert demo.stdout.count("worker 2 works") == 8
    assert 0 < demo.stdout.count("worker 1 works") < 8
