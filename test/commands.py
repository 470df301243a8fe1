"""The command line, a process a call as ever, but all forks of one that has done its imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_S = 60
COMMAND = (sys.executable, "-c", "from osbuild_pika.cli import main; main()")


class Commands(AbstractContextManager["Commands"]):
    """Runs commands, each in a process of its own; to be closed. modules: to import once."""

    def __init__(self, *modules: str) -> None:
        known = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "test")))}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", "import commands; commands.serve()", *modules],
            env=known,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(self, *_: object) -> None:
        self._parent.communicate()

    def run(
        self, place: Path, *words: str, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """What `osbuild-pika WORDS` says in a directory, with this environment."""
        assert self._parent.stdin
        assert self._parent.stdout
        with tempfile.TemporaryDirectory() as top:
            out, err = Path(top, "out"), Path(top, "err")
            asked = [str(place), words, dict(env), str(out), str(err)]
            self._parent.stdin.write(json.dumps(asked) + "\n")
            self._parent.stdin.flush()
            code = int(self._parent.stdout.readline())
            return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


def serve() -> None:
    """Fork a command for each line of stdin; answer with its exit code."""
    for name in ("osbuild_pika.cli.verbs", *sys.argv[1:]):
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(place: str, words: list[str], env: dict[str, str], *outputs: str) -> None:
    """Be the command. Never returns."""
    from osbuild_pika.cli import main

    signal.alarm(LIMIT_S)
    for number, path in enumerate((os.devnull, *outputs)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["osbuild-pika", *words]
    main()
    sys.exit()
