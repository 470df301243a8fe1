"""Stands in for the original helper's `event`: what it imports and its steps, in other words.

What it costs to start is what it imports, the parser it builds and its own size; so it has the
verbs it is not asked for as well. Not for use: a kill in the middle leaves a broken log.
"""

import argparse
import fcntl
import json
import os
import tempfile
from datetime import datetime
from pathlib import Path

RUNNING = ("requested", "provisioning", "booted", "starting", "ready")
ENDS = ("failed", "completed")
STATES = (*RUNNING, "unreachable", "stopped", "destroyed", *ENDS)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write lifecycle artifacts.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, file, word, known in (
        ("status", "--status-path", "--state", STATES),
        ("event", "--events-path", "--kind", STATES),
        ("result", "--result-path", "--status", ENDS),
    ):
        command = verbs.add_parser(verb)
        command.add_argument(file, required=True, type=Path, dest="path")
        command.add_argument(word, required=True, choices=known, dest="word")
        command.add_argument("--message", required=True)
        command.add_argument("--details-json")
        if verb == "event":
            command.add_argument("--seq-path", type=Path)
        if verb == "result":
            command.add_argument("--exit-code", required=True, type=int)
    return parser


def make_document(arguments: argparse.Namespace) -> dict[str, object]:
    names = {"status": ("state", "updated_at"), "event": ("kind", "timestamp")}
    word, moment = names.get(arguments.verb, ("status", "finished_at"))
    document = {"schema_version": 1, word: arguments.word}
    document[moment] = datetime.now().astimezone().isoformat(timespec="seconds")
    document["message"] = arguments.message
    boot = Path("/proc/sys/kernel/random/boot_id")
    document["boot_id"] = boot.read_text(encoding="utf-8").strip()
    if arguments.details_json is not None:
        document["details"] = json.loads(arguments.details_json)
    return document


def append(path: Path, seq_path: Path, document: dict[str, object]) -> None:
    for file in (seq_path, path):
        file.parent.mkdir(parents=True, exist_ok=True)
    with seq_path.open("a+", encoding="utf-8") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        document["seq"] = int(counter.read().strip() or 0) + 1
        counter.truncate(0)
        counter.write(f"{document['seq']}\n")
        counter.flush()
        os.fsync(counter.fileno())
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(document) + "\n")
            log.flush()
            os.fsync(log.fileno())


def replace(path: Path, document: dict[str, object]) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def main() -> None:
    arguments = make_parser().parse_args()
    document = make_document(arguments)
    if arguments.verb == "event":
        beside = arguments.path.with_name(f"{arguments.path.name}.seq")
        append(arguments.path, arguments.seq_path or beside, document)
    else:
        replace(arguments.path, document)


if __name__ == "__main__":
    main()
