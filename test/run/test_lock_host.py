"""`osbuild-pika lock` with this machine's own mirror, where it can be reached."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repositories import needs_apt

from osbuild_pika.image import mirrors

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")


def lock(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "lock"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Any:
    """The lock of a system of this machine's own suite with nothing added."""
    needs_apt()
    release = platform.freedesktop_os_release()
    distribution, suite = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    if not mirrors.of_host(mirrors.host_targets(), distribution, suite):
        pytest.skip("this machine's apt has no mirror of its own suite")
    text = f"name: bare\nfrom: {distribution}/{suite}\ninit: none\nlifecycle: false\n"
    (tmp_path / "image.yaml").write_text(text)
    done = lock(tmp_path)
    if done.returncode == 3 and "it cannot be reached" in done.stderr:
        pytest.skip("this machine's mirror cannot be reached")
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "image.lock.json").read_text())


def test_the_base_is_what_mmdebstrap_calls_minbase(bare: Any) -> None:
    packages = {each["name"]: each for each in bare["packages"]}
    assert 60 <= len(packages) <= 130
    assert all(each["base"] and len(each["sha256"]) == 64 for each in packages.values())
    assert {"apt", "dpkg", "libc6", "bash"} <= packages.keys()
    assert not {"usrmerge", "perl"} & packages.keys()
    assert packages["dpkg"]["essential"]
    assert packages["libc6"]["auto"]
    assert all(each["signers"] for each in bare["releases"])
