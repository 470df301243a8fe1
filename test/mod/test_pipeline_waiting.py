"""A build process that is started before there is an order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from osbuild_pika.buildprocess import Waiting


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_process_that_is_dismissed_is_gone() -> None:
    before = open_fds()
    waiting = Waiting()
    process, _ = waiting._process, waiting._records
    waiting.dismiss()
    assert process.returncode is not None
    assert open_fds() == before


def test_one_that_was_used_is_not_dismissed() -> None:
    waiting = Waiting()
    process, records = waiting.use()
    waiting.dismiss()
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()  # there will be no order
    assert process.wait(20) == 0
    assert os.read(records, 1) == b""
    os.close(records)


def test_a_wrong_command_line_is_told_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSBUILD_PIKA_RUNS", str(tmp_path / "runs"))
    program = "from osbuild_pika.cli import main; main()"
    command = [sys.executable, "-c", program, "build", "--no-such-option", "manifest.json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
