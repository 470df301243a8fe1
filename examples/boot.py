"""Build an image and boot it in an Incus of its own; the guest has the last word.

usage: boot.py DEFINITION [DIRECTORY]   (default: demo below the current directory)
       boot.py --clean                  ends what a killed one left

Exits 0 only after the guest has said `ready` in this boot, 5 after any other end. Everything lies
in DIRECTORY, but for the daemon's own short-lived directory. No other Incus is touched. An
ordinary user builds as such; only the daemon is started by sudo.
"""

import glob
import grp
import os
import platform
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
# A socket's path is short, and guests must be able to pass through all that is above it.
PREFIX = "/tmp/osbuild-pika-demo."  # noqa: S108  mkdtemp makes it


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


def incus(verb: str, directory: str, *words: str) -> list[str]:
    """The command line of private_incus.py, which needs root."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return [*sudo, sys.executable, str(HERE / "private_incus.py"), verb, directory, *words]


@contextmanager
def private_incus() -> Iterator[str]:
    """The socket of a daemon for the time of a block."""
    directory = tempfile.mkdtemp(prefix=os.path.basename(PREFIX), dir=os.path.dirname(PREFIX))
    say(f"an Incus of its own, in {directory}")
    begin = incus("start", directory, "--network", "--group", grp.getgrgid(os.getgid()).gr_name)
    try:
        started = subprocess.run(begin, stdout=subprocess.PIPE, text=True, check=True)
        yield started.stdout.strip()
    finally:
        subprocess.run(incus("stop", directory), check=False)


def clean() -> int:
    for directory in glob.glob(f"{PREFIX}*"):
        subprocess.run(incus("stop", directory), check=False)
    return 0


def adapted(definition: Path) -> str:
    """A definition for this machine: Ubuntu's apt knows no mirror of Debian."""
    text = definition.read_text()
    system = platform.freedesktop_os_release()
    if system.get("ID") != "ubuntu":
        return text
    return text.replace("debian/bookworm", f"ubuntu/{system['VERSION_CODENAME']}")


def boot(definition: Path, directory: Path) -> None:
    """Build, launch, wait. Raises subprocess.CalledProcessError."""
    place = directory / definition.stem
    place.mkdir(parents=True, exist_ok=True)
    name = definition.stem
    image = place / "image.yaml"  # the lock is written beside it
    image.write_text(adapted(definition))
    call(directory, "build", str(image), "--output", str(place / "output"))
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
    if sys.argv[1] == "--clean":
        sys.exit(clean())
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "demo")))
    except KeyboardInterrupt:
        sys.exit(130)
