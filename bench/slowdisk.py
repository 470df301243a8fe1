"""Has every fsync and fdatasync wait, for all sides alike: a disk whose flush takes its time.

Disks that lose nothing at a power cut take 0.5 to 10 ms for a flush. Virtual disks often take
0.05, and then what is measured is the interpreter. Needs a C compiler.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MARK = "BENCH_FLUSH_US"
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slowly(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *us = getenv("BENCH_FLUSH_US");
    if (us) usleep(atoi(us));
    return real(fd);
}
int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
"""


def start_over(flush_ms: float) -> None:
    """Start this program again with slow flushes; returns if it runs with them already.

    Raises OSError if there is no compiler.
    """
    if not flush_ms or MARK in os.environ:
        return
    with tempfile.TemporaryDirectory() as place:
        source, library = Path(place, "slow.c"), Path(place, "slow.so")
        source.write_text(_SOURCE)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        variables = {"LD_PRELOAD": str(library), MARK: str(round(flush_ms * 1000))}
        command = [sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, **variables}, check=False).returncode)


def variables() -> dict[str, str]:
    """What a child needs in its environment to be as slow."""
    return {name: os.environ[name] for name in ("LD_PRELOAD", MARK) if MARK in os.environ}
