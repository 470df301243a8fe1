"""Runs our stages, and those of an upstream checkout, on a tree without a sandbox."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers import PACKAGE

from osbuild_pika.datadir import data_folder

FOLDERS = ("devices", "inputs", "mounts", "sources", "stages")
OURS = (
    "import runpy, sys; from osbuild_pika.inside import stage;"
    "main = runpy.run_path(sys.argv[1])['main']; stage.run(main, 'arguments', 'api')"
)
THEIRS = (
    "import json, runpy, sys; import osbuild.api as api;"
    "api.arguments = lambda: json.load(open('arguments'));"
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)
TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def executables(folder: str) -> list[Path]:
    """The modules of a kind, without their descriptions."""
    return sorted(
        path
        for path in data_folder(folder).iterdir()
        if path.is_file() and not path.name.endswith(".meta.json")
    )


def meta(path: Path) -> dict[str, Any]:
    """A module's description."""
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.meta.json").read_bytes())
    return found


def checkout() -> Path:
    """The upstream checkout of OSBUILD_SOURCE; skips the test if there is none."""
    found = os.environ.get("OSBUILD_SOURCE")
    if not found:
        pytest.skip("OSBUILD_SOURCE names no checkout of upstream osbuild")
    return Path(found)


def run(tree: Path, name: str, options: Any = None, **given: Any) -> tuple[int, str]:
    """Run our stage on a tree. given: inputs, devices, mounts, meta. Returns (status, output)."""
    stage = data_folder("stages") / f"org.osbuild.{name}"
    return _run(OURS, stage, str(PACKAGE), _given(tree, options, given))


def run_upstreams(tree: Path, name: str, options: Any = None, **given: Any) -> tuple[int, str]:
    """The same with upstream's stage."""
    source = checkout()
    stage = source / "stages" / f"org.osbuild.{name}"
    return _run(THEIRS, stage, str(source), _given(tree, options, given))


def _given(tree: Path, options: Any, given: dict[str, Any]) -> dict[str, Any]:
    paths = {"devices": "/dev", "inputs": "/nowhere", "mounts": "/nowhere"}
    named: dict[str, Any] = {kind: {} for kind in ("inputs", "devices", "mounts")}
    return {"tree": str(tree), "paths": paths, "options": options or {}, **named, **given}


def _run(code: str, stage: Path, packages: str, given: dict[str, Any]) -> tuple[int, str]:
    place = Path(given["tree"]).parent
    (place / "arguments").write_text(json.dumps(given))
    done = subprocess.run(
        [sys.executable, "-c", code, str(stage)],
        cwd=place,
        env={"PATH": TOOLS, "PYTHONPATH": packages, "LC_CTYPE": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    return done.returncode, "\n".join(line for line in lines if "no lifecycle device" not in line)


def snapshot(tree: Path) -> dict[str, tuple[Any, ...]]:
    """All that is in a tree: relative path -> mode, owner, links, content, extended attributes."""
    found = {}
    for path in sorted([tree, *tree.rglob("*")]):
        facts = path.lstat()
        content: Any = None
        if stat.S_ISLNK(facts.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        names = os.listxattr(path, follow_symlinks=False)
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        owner = (facts.st_uid, facts.st_gid)
        links = 1 if stat.S_ISDIR(facts.st_mode) else facts.st_nlink
        found[str(path.relative_to(tree))] = (facts.st_mode, owner, links, content, attributes)
    return found


def needs(program: str) -> None:
    if shutil.which(program, path=TOOLS) is None:
        pytest.skip(f"{program} is not installed")


def output_of(*command: str | Path) -> str:
    return subprocess.run(
        command, env={"PATH": TOOLS}, check=True, capture_output=True, text=True
    ).stdout


def plant(place: Path) -> Path:
    """A tree with all that an image may have; its /etc is a link out of it, but for the image."""
    tree = place / "tree"
    (tree / "usr/etc").mkdir(parents=True)
    (tree / "etc").symlink_to("/usr/etc")
    (tree / "usr/etc/hosts").write_text("old\n")
    (tree / "usr/private").mkdir(mode=0o700)
    (tree / "usr/private/key").write_text("secret\n")
    (tree / "usr/private/key").chmod(0o600)
    (tree / "usr/one").write_text("1\n")
    os.link(tree / "usr/one", tree / "usr/same")
    (tree / "rel").symlink_to("usr/one")
    (tree / "-strange").write_text("x")
    os.setxattr(tree / "usr/one", "user.note", b"\0\xff")
    return tree
