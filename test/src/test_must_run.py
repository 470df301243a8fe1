"""CI is red if a test that must run was skipped, renamed or is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_good(): pass

def test_skipped(): pytest.skip("no loop device")

@pytest.mark.parametrize("n", [1, 2])
def test_each(n): pass
"""


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("", 0),
        ("test_it.py::test_good", 0),
        ("# why\ntest_it.py::test_each\n", 0),
        ("test_it.py::test_skipped", 1),
        ("test_it.py", 1),
        ("test_it.py::test_renamed", 1),
        ("test_other.py", 1),
    ],
)
def test_a_skipped_test_that_must_run_fails_the_run(wanted: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "test/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "must-run").write_text(wanted)
    environment = {**os.environ, "OSBUILD_PIKA_MUST_RUN": str(tmp_path / "must-run")}
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        pytest_command, cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == code, done.stdout


def test_every_named_test_exists() -> None:
    for line in (ROOT / ".ci/must-run").read_text().split("\n"):
        name = line.split("::")[0]
        assert not name or name.startswith("#") or (ROOT / name).is_file(), line
