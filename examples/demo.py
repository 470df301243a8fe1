"""Build examples/hello.json three times: from nothing, from the cache, its last stage edited.

usage: demo.py [DIRECTORY]   (default: demo below the current directory)

Then the lifecycle alone: examples/lifecycle.py. Everything lies in DIRECTORY: the store, the runs
and what is exported. No root is needed where an ordinary user has subordinate ids.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from osbuild_pika.cli import main; main()"]
NOT_FIT = 3


class Demo:
    """What is shown, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "OSBUILD_PIKA_STORE": str(directory / "store"),
            "OSBUILD_PIKA_RUNS": str(directory / "runs"),
        }

    def call(self, *arguments: str) -> int:
        """Run a command line of osbuild-pika, and show it."""
        say(f"osbuild-pika {' '.join(arguments)}")
        command = [*COMMAND, *arguments]
        return subprocess.run(command, env=self.environment, check=False).returncode

    def build(self, manifest: Path) -> int:
        return self.call("build", str(manifest), "--output", str(self.directory), "--force")

    def edited(self) -> Path:
        """The manifest with another compression in its last stage."""
        manifest = json.loads((HERE / "hello.json").read_text())
        options = manifest["pipelines"][-1]["stages"][-1]["options"]
        options["compression"] = {"method": "xz"}
        path = self.directory / "hello.json"
        path.write_text(json.dumps(manifest, indent=2) + "\n")
        return path


def say(text: str) -> None:
    print(f"\n-- {text}", file=sys.stderr, flush=True)


def show_builds(demo: Demo) -> int:
    original = HERE / "hello.json"
    say("from nothing: each stage runs in a sandbox, and is kept")
    code = demo.build(original)
    if code == 0:
        say("again: nothing has to run")
        code = demo.build(original)
    if code == 0:
        say("the last stage is edited: only that one runs")
        edited = demo.edited()
        code = demo.call("plan", str(edited)) or demo.build(edited)
    return code or demo.call("result") or demo.call("runs")


def main(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    demo = Demo(directory.absolute())
    for name in ("runs", "image"):
        shutil.rmtree(directory / name, ignore_errors=True)
    code = demo.call("doctor")
    if code == 0:
        # What an earlier demo built is no longer cached.
        code = demo.call("gc", "--max-size", "0") or show_builds(demo)
    elif code == NOT_FIT:
        say("nothing can be built here before the problems above are solved")
    say("the lifecycle alone: three processes write one run, and one of them is killed")
    lifecycle = [sys.executable, str(HERE / "lifecycle.py"), str(directory / "lifecycle")]
    return subprocess.run(lifecycle, check=False).returncode or code


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
    except KeyboardInterrupt:
        sys.exit(130)
