"""Build an image and boot it in an Incus of its own; the guest has the last word.

usage: boot.py DEFINITION [DIRECTORY]   (default: demo below the current directory)

Exits 0 only after the guest has said `ready` in this boot, 5 after any other end. Everything lies
in DIRECTORY, but for the daemon's own short-lived directory. No other Incus is touched. An
ordinary user builds as such; only the daemon is started by sudo.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-c", "from osbuild_pika.cli import main; main()"]
GUEST_FAILED = 5
INSTANCE = "demo"


def say(text: str) -> None:
    print(f"\n-- {text}", file=sys.stderr, flush=True)


def call(directory: Path, *arguments: str) -> None:
    """Run a command line of osbuild-pika, and show it. Raises subprocess.CalledProcessError."""
    say(f"osbuild-pika {' '.join(arguments)}")
    environment = {
        **os.environ,
        "OSBUILD_PIKA_STORE": str(directory / "store"),
        "OSBUILD_PIKA_RUNS": str(directory / "runs"),
    }
    subprocess.run([*COMMAND, *arguments], env=environment, check=True)


@contextmanager
def private_incus() -> Iterator[str]:
    """The socket of a daemon for the time of a block."""
    # A socket's path is short, and guests must be able to pass through all that is above it.
    directory = tempfile.mkdtemp(prefix="osbuild-pika-demo.", dir="/tmp")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    script = [*sudo, sys.executable, str(HERE / "private_incus.py")]
    group = ["--group", str(os.getgid())]
    say(f"an Incus of its own, in {directory}")
    try:
        started = subprocess.run(
            [*script, "start", directory, *group], stdout=subprocess.PIPE, text=True, check=True
        )
        yield started.stdout.strip()
    finally:
        subprocess.run([*script, "stop", directory], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def boot(definition: Path, directory: Path) -> None:
    """Build, launch, wait. Raises subprocess.CalledProcessError."""
    place = directory / definition.stem
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(definition, place / "image.yaml")  # the lock is written beside it
    name = definition.stem
    image = str(place / "image.yaml")
    call(directory, "build", image, "--output", str(place / "output"), "--force")
    with private_incus() as socket:
        call(directory, "launch", name, INSTANCE, "--wait", "ready", "--socket", socket)
    call(directory, "runs", "show", name)


def terminate(*_: object) -> NoReturn:
    sys.exit(143)


def main(definition: Path, directory: Path) -> int:
    signal.signal(signal.SIGTERM, terminate)
    try:
        boot(definition, directory.absolute())
    except subprocess.CalledProcessError as error:
        if error.returncode in (130, -signal.SIGINT):
            return 130
        say(f"not ready: what was called last exited with {error.returncode}")
        return GUEST_FAILED
    say("ready: the guest said so in this boot, and the host has read it")
    return 0


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "demo")))
    except KeyboardInterrupt:
        sys.exit(130)
