"""Nix without nixpkgs and network, and a systemd that boots what it built.

The packages beside this file stand for nixpkgs and NixOS as far as they are used; they are made
of this machine's programs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent
STDENV = ("bash", "cat", "chmod", "cp", "find", "grep", "install", "ln", "mkdir", "tar", "xz")
PACKAGES = {"qemu-utils": ("qemu-img",), "systemd": ("systemctl",), "stdenv": STDENV}
CONFIGURATION = """
sandbox = false
substitute = false
build-users-group =
fsync-metadata = false
experimental-features = nix-command flakes
"""
UNIT = "app\\x2d1.service"  # what systemd-escape makes of app-1: the backslash must survive
SCENARIO = """
reported() {{ # the last STATE and the COUNT of events
    until [ "$(wc -l < /run/pika-cloud/events.jsonl)" = "$2" ] &&
        grep -q "\\"$1\\"" /run/pika-cloud/status.json; do sleep 0.05; done
}}
app='{unit}'
{script}
systemctl --force exit
"""


class Nix:
    """Nix with a store, state and configuration of its own below `place`."""

    def __init__(self, place: Path) -> None:
        self.programs = place / "programs"
        for package, names in PACKAGES.items():
            for name in names:
                self.provide(package, name, shutil.which(name) or "/missing")
        self.provide("python3", "python3", os.path.realpath(sys.executable))
        own = {"HOME": str(place / "home"), "NIX_CONFIG": CONFIGURATION, "NIX_PATH": ""}
        places = {
            f"NIX_{name}_DIR": str(place / name) for name in ("STORE", "STATE", "LOG", "CONF")
        }
        self.environment = {"PATH": os.environ["PATH"], **own, **places}

    def provide(self, package: str, name: str, target: str | Path) -> None:
        """Make a program of this machine, or a stub, one of a package's."""
        link = self.programs / package / "bin" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def run(self, *command: str | Path, code: int = 0) -> str:
        """What it prints; what it complains of, if it is to end with another code than 0."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def build(self, *arguments: str | Path) -> Path:
        return Path(self.run("nix-build", "--no-out-link", *arguments).strip())

    def evaluate(self, *arguments: str | Path) -> Any:
        return json.loads(self.run("nix-instantiate", "--eval", "--strict", "--json", *arguments))

    def refuse(self, *arguments: str | Path) -> str:
        """Why it does not evaluate."""
        return self.run("nix-instantiate", "--eval", "--strict", *arguments, code=1)

    def file(self, name: str, source: Path = ROOT, **more: str) -> list[str | Path]:
        """Arguments that name a file of this folder and give it what it takes."""
        given = {"source": source, "programs": self.programs, **more}
        return [DATA / name, *(x for key in given for x in ("--argstr", key, str(given[key])))]

    def system(self, **settings: Any) -> list[str | Path]:
        """Arguments for a NixOS that has the module, enabled, with these settings."""
        services = {"pika-cloud-lifecycle": {"enable": True, **settings}}
        return self.file("nixos.nix", settings=json.dumps({"services": services}))

    def image(self, settings: dict[str, Any]) -> list[str | Path]:
        return self.file("guest-image.nix", settings=json.dumps(settings))


def boot(nix: Nix, place: Path, unit: str, app: str, script: str) -> list[Any]:
    """Boot a guest whose module reports `unit`, run `script` in it, and read its events.

    app: the text of the service UNIT, which the guest starts. Needs root.
    """
    units, run = place / "units", place / "run"
    built = nix.build(*nix.system(unit=unit), "-A", "units")
    shutil.copytree(built, units, symlinks=True)
    units.chmod(0o755)
    shutil.copytree(DATA / "guest", units, dirs_exist_ok=True)
    (units / UNIT).write_text(app)
    run.mkdir()
    (run / "scenario.sh").write_text(SCENARIO.format(unit=UNIT, script=script))
    nix.run("unshare", "--mount", "--propagation", "private", DATA / "boot.sh", units, run)
    events = (run / "pika-cloud/events.jsonl").read_text().splitlines()
    return [json.loads(event) for event in events]


def qcow2(path: Path) -> Path:
    """Make a small disk with something in it, and its raw form beside it."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"disk" * 100_000)
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    subprocess.run(convert, check=True)
    return path
