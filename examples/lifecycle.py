"""Several processes write one run; one of them is killed on the way; you watch it live.

usage: lifecycle.py [DIRECTORY]   (default: demo/lifecycle below the current directory; made anew)

Shows what the lifecycle writer promises: what was acknowledged is in events.jsonl, once and in
order, whoever dies; and `osbuild-pika check` finds nothing wrong.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from osbuild_pika.lifecycle import Journal

COMMAND = [sys.executable, "-c", "from osbuild_pika.cli import main; main()"]
WORKERS = 3
STEPS = 8
STEP_S = 0.25
KILLED = 1
KILL_AFTER_S = 1.0


def work(directory: str, number: int) -> None:
    """One process of the run: does its steps and says after each which seq it was promised."""
    with Journal(directory, strict=True) as journal:
        for step in range(1, STEPS + 1):
            facts = {"event": "stage.progress", "stage": f"worker-{number}", "unit": "steps"}
            details = {**facts, "done": step, "total": STEPS}
            print(journal.append("provisioning", f"worker {number} works", details), flush=True)
            time.sleep(STEP_S)


def start(directory: Path, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(directory), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def say(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)


def run_workers(directory: Path) -> list[int]:
    """Start the workers, kill one, wait for the rest. Returns all seqs that were acknowledged."""
    workers = [start(directory, number) for number in range(WORKERS)]
    try:
        time.sleep(KILL_AFTER_S)
        say(f"kill -9 of worker {KILLED} (pid {workers[KILLED].pid})")
        workers[KILLED].send_signal(signal.SIGKILL)
        return [int(line) for worker in workers for line in worker.communicate()[0].split()]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def main(directory: Path) -> int:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    say(f"osbuild-pika watch {directory}")
    watcher = subprocess.Popen([*COMMAND, "watch", str(directory)])
    try:
        with Journal(directory, strict=True) as journal:
            journal.write_status("requested", "accepted", {"event": "build.accepted"})
            journal.append("requested", "accepted", {"event": "build.accepted"})
            journal.write_status("provisioning", f"{WORKERS} workers")
            promised = run_workers(directory)
            message = f"worker {KILLED} was killed"
            journal.finish("failed", 137, message, {"event": "stage.failed"})
        watcher.wait(timeout=30)
    finally:
        watcher.kill()
        watcher.wait()
    found = {json.loads(line)["seq"] for line in (directory / "events.jsonl").open("rb")}
    lost = set(promised) - found
    say(f"{len(promised)} events of workers were acknowledged, {len(lost)} of them are lost")
    say(f"osbuild-pika check {directory}")
    return subprocess.run([*COMMAND, "check", str(directory)], check=False).returncode or bool(lost)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        work(sys.argv[1], int(sys.argv[2]))
    else:
        try:
            sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/lifecycle")))
        except KeyboardInterrupt:
            sys.exit(130)
