"""What a wheel installs is what a checkout has."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osbuild_pika.datadir import data_folder

ROOT = Path(__file__).parents[2]
FOLDERS = ("devices", "inputs", "mounts", "schemas", "sources", "stages")
FIND = "from osbuild_pika.datadir import data_folder; print(data_folder({folder!r}))"


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Name -> (bytes, has run bits)."""
    return {
        path.name: (path.read_bytes(), bool(path.stat().st_mode & 0o111))
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a fresh virtual environment with the wheel; no first line can hold its path."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "demo")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", place, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", place / "an environment"], check=True)
    python = place / "an environment/bin/python"
    (wheel,) = place.glob("*.whl")
    pip[0] = str(python)
    subprocess.run([*pip, "install", wheel], check=True)
    return python


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_carries_the_folders_beside_the_package(installed: Path, folder: str) -> None:
    command = [str(installed), "-I", "-c", FIND.format(folder=folder)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
    place = Path(found.rstrip("\n"))
    assert installed.parents[1] in place.parents
    assert files(place) == files(data_folder(folder))


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("osbuild-pika")
    link = tmp_path / "elsewhere"
    link.symlink_to(command)
    path = str(tmp_path / "status.json")
    arguments = ["--status-path", path, "--state", "ready", "--message", "up"]
    subprocess.run([command, "lifecycle", "status", *arguments], check=True)
    bare = {"PATH": "/usr/bin:/bin"}
    subprocess.run([command, "check", tmp_path], check=True, env=bare)
    subprocess.run([link, "check", tmp_path], check=True, env=bare)
