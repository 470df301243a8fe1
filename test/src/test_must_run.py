"""CI is red if a test that must run was skipped, renamed or is gone."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_skipped(): pytest.skip("no loop device")
"""
PASSED = {"t.py::test_good", "t.py::test_each[1]", "t.py::test_each[2]"}
SKIPPED = {"t.py::test_skipped", "u.py::test_some[xfs]"}


@pytest.fixture(scope="module")
def conftest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("must_run", ROOT / "test/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("wanted", ["", "\n# why\n", "t.py::test_good", "t.py::test_each"])
def test_what_passed_is_not_missing(wanted: str, conftest: ModuleType) -> None:
    assert conftest.missing(wanted, PASSED, SKIPPED) == []


@pytest.mark.parametrize(
    "wanted", ["t.py::test_skipped", "t.py::test_renamed", "v.py", "t.py", "u.py::test_some"]
)
def test_what_was_skipped_or_is_gone_is_missing(wanted: str, conftest: ModuleType) -> None:
    assert conftest.missing(f"t.py::test_good\n{wanted}", PASSED, SKIPPED) == [wanted]


def test_a_missing_test_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "test/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "must-run").write_text("test_it.py::test_skipped")
    environment = {**os.environ, "OSBUILD_PIKA_MUST_RUN": str(tmp_path / "must-run")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "did not: test_it.py::test_skipped" in done.stdout


def test_every_named_test_exists() -> None:
    for line in (ROOT / ".ci/must-run").read_text().split("\n"):
        name = line.split("::")[0]
        assert not name or name.startswith("#") or (ROOT / name).is_file(), line
