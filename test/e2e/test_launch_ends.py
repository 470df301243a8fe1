"""A launch that is interrupted, and one without Incus."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import guests
import pytest
from finished import write_run

from osbuild_pika.incus import instances
from osbuild_pika.incus.boots import boots_of
from osbuild_pika.incus.client import Client

COMMAND = [sys.executable, "-c", "from osbuild_pika.cli import main; main()", "launch"]


def begin(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_launch_keeps_the_instance_and_says_so(
    number: int, code: int, client: Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    guests.unified(tmp_path).rename(out / "image.tar.gz")
    (tmp_path / "runs").mkdir()
    run = write_run(tmp_path / "runs/web", [out])
    process = begin("web", "w1", INCUS_SOCKET=client.path, OSBUILD_PIKA_RUNS=str(tmp_path / "runs"))
    guests.until(lambda: boots_of(str(run)) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    out_text, err_text = process.communicate(timeout=30)
    assert (process.returncode, out_text) == (code, "")
    last = "osbuild-pika: w1: interrupted; the instance is kept: incus delete --force w1"
    assert err_text.rstrip("\n").split("\n")[-1] == last
    assert instances.state(client, "w1") == "Running"
    assert [each.outcome for each in boots_of(str(run))] == ["interrupted"]


def test_no_incus_is_said_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"image")
    nowhere = str(tmp_path / "none")
    process = begin(path, "w1", "--socket", nowhere)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "")
    assert err.count("\n") == 1
    assert f"{nowhere}: no Incus is there; " in err


def test_one_line_each_and_the_answer_on_stdout(client: Client, tmp_path: Path) -> None:
    process = begin(guests.unified(tmp_path), "w1", "--wait", "booted", "--socket", client.path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("w1: booted after ")
    assert out.count("\n") == 1
    assert err.split("\n")[0] == "importing"
    assert err.split("\n")[-2:] == ["starting w1", ""]
