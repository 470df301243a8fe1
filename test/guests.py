"""Images of one static program, made by hand: their init is a shell script that a test writes."""

import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

APPLETS = (
    "sh",
    "cat",
    "sleep",
    "mkdir",
    "mkfifo",
    "ln",
    "seq",
    "yes",
    "head",
    "mount",
    "printf",
    "reboot",
    "cp",
)
DIRECTORIES = ("bin", "sbin", "dev", "proc", "sys", "run", "run/pika-cloud", "tmp", "etc", "root")
METADATA = b'{"architecture": "%s", "creation_date": 1700000000, "properties": {"os": "busybox"}}\n'
# What a guest's script can use. say STATE MESSAGE: an event, and the status.
HEAD = """#!/bin/sh
trap 'exit 0' TERM PWR INT
BOOT=$(cat /proc/sys/kernel/random/boot_id)
R=/run/pika-cloud T=2026-11-21T12:00:00+00:00 SEQ=0
write() { # FIRST STATE TIME MESSAGE MORE
    printf '{"schema_version":1,"%s":"%s","%s":"%s",' "$1" "$2" "$3" $T
    printf '"message":"%s",%s}\\n' "$4" "$5"
}
event() {
    SEQ=$((SEQ + 1))
    write kind "$1" timestamp "$2" '"boot_id":"'$BOOT'","seq":'$SEQ >>$R/events.jsonl
}
status() { # STATE MESSAGE [BOOT_ID]
    write state "$1" updated_at "$2" '"boot_id":"'${3:-$BOOT}'"' >$R/.status
    mv $R/.status $R/status.json
}
result() { write status "$1" finished_at "$3" '"exit_code":'$2 >$R/result.json; }
say() { event "$1" "$2"; status "$1" "$2"; }
"""
STAY = "\nwhile :; do sleep 0.1; done\n"


def why_not() -> str | None:
    """Why no such image can be made here; None if one can."""
    busybox = shutil.which("busybox")
    if busybox is None:
        return "no busybox: .ci/incus installs it"
    is_static = subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode != 0
    return None if is_static else "busybox is not static: .ci/incus installs one that is"


def metadata() -> bytes:
    machine = subprocess.run(["uname", "-m"], capture_output=True, check=True).stdout.strip()
    return METADATA % machine


def until(look: Callable[[], T]) -> T:
    """What a look gives as soon as it gives something. AssertionError after a minute."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def tree(directory: Path, script: str | None) -> Path:
    """A root file system below a directory; without a script it has no init."""
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox") or "", directory / "bin/busybox")
    for name in (*APPLETS, "mv"):
        (directory / "bin" / name).symlink_to("busybox")
    if script is not None:
        init = directory / "sbin/init"
        init.write_text(HEAD + script)
        init.chmod(0o755)
    return directory


def unified(directory: Path, script: str | None = STAY, name: str = "image.tar.gz") -> Path:
    """A unified image whose init is HEAD and the script."""
    root = tree(directory / f"{name}.tree", script)
    path = directory / name
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        _add_metadata(tar)
        tar.add(root, "rootfs")
    return path


def split(directory: Path, script: str = STAY) -> tuple[Path, Path]:
    """The two files of a split image, in a directory of their own."""
    (directory / "split").mkdir()
    root = tree(directory / "split.tree", script)
    paths = directory / "split/metadata.tar", directory / "split/rootfs.squashfs"
    with tarfile.open(paths[0], "w") as tar:
        _add_metadata(tar)
    command = ["mksquashfs", str(root), str(paths[1]), "-quiet", "-no-progress", "-comp", "gzip"]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def _add_metadata(tar: tarfile.TarFile) -> None:
    data = metadata()
    member = tarfile.TarInfo("metadata.yaml")
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
