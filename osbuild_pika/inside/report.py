"""`python3 -m osbuild_pika.inside.report`: how a stage that is a shell script reports.

What is promised stands in reporter.py. Exit 0: durable, or there is no device; 1: refused or
lost; 2: wrong arguments. Without the device a sandbox is told once, not by each call.
"""

from __future__ import annotations

import os
import sys

from osbuild_pika.inside.reporter import DEVICE, NO_DEVICE, Reporter, clean, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["Reporter", "main"]

SANDBOX = "/run/osbuild/api"  # only where this is, a marker may be left
MARKER = "/run/.osbuild-pika-no-lifecycle"
STATUSES = ("completed", "failed")
PROG = "python3 -m osbuild_pika.inside.report"
USAGE = f"""usage: {PROG} VERB ARGUMENTS

Tell the lifecycle device what this stage does.

  event MESSAGE [--name NAME] [--details-json JSON]
  progress DONE [TOTAL] [--unit UNIT] [--message MESSAGE]
  artifact PATH [--message MESSAGE] [--details-json JSON]
  result completed|failed MESSAGE [--exit-code N] [--details-json JSON]
  flush

PATH is relative to the tree, or absolute below it. `--` ends the options.
Exit 0: done and durable, or there is no device; 1: refused or lost; 2: wrong arguments.
"""


class UsageError(Exception):
    """The arguments are wrong; str() is one line."""


def _event(report: Reporter, words: Sequence[str], options: dict[str, Any]) -> None:
    report.event(words[0], options.get("details"), options.get("name"))


def _progress(report: Reporter, words: Sequence[str], options: dict[str, Any]) -> None:
    done, total = ([_number(word) for word in words] + [None])[:2]
    report.progress(done or 0, total, options.get("unit", ""), options.get("message"))


def _artifact(report: Reporter, words: Sequence[str], options: dict[str, Any]) -> None:
    report.artifact(words[0], options.get("message"), **(options.get("details") or {}))


def _result(report: Reporter, words: Sequence[str], options: dict[str, Any]) -> None:
    report.result(words[0], words[1], options.get("exit-code"), options.get("details"))


def _flush(report: Reporter, words: Sequence[str], options: dict[str, Any]) -> None:
    report.flush()


# verb -> (what does it, how many words it takes, its options)
_VERBS: dict[str, tuple[Callable[..., None], range, tuple[str, ...]]] = {
    "event": (_event, range(1, 2), ("name=", "details-json=")),
    "progress": (_progress, range(1, 3), ("unit=", "message=")),
    "artifact": (_artifact, range(1, 2), ("message=", "details-json=")),
    "result": (_result, range(2, 3), ("exit-code=", "details-json=")),
    "flush": (_flush, range(1), ()),
}


def _parse(argv: Sequence[str]) -> tuple[str, list[str], dict[str, Any]]:
    """Verb, words and options; the verb is "" if help is asked for. Raises UsageError."""
    import getopt  # argparse would take 7 ms more of each call

    if not argv or argv[0] in ("-h", "--help"):
        if argv:
            return "", [], {}
        raise UsageError(f"no verb is given; known are {', '.join(_VERBS)}")
    if argv[0] not in _VERBS:
        raise UsageError(f"unknown verb {ascii(argv[0])[:60]}; known are {', '.join(_VERBS)}")
    _, counts, names = _VERBS[argv[0]]
    try:
        pairs, words = getopt.gnu_getopt(list(argv[1:]), "h", [*names, "help"])
    except getopt.GetoptError as error:
        raise UsageError(f"{argv[0]}: {error.msg}") from None
    options = {name.lstrip("-"): value for name, value in pairs}
    if {"h", "help"} & options.keys():
        return "", [], {}
    if len(words) not in counts:
        raise UsageError(f"{argv[0]}: {len(words)} arguments are given; see --help")
    return argv[0], words, _checked(argv[0], words, options)


def _checked(verb: str, words: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    if verb == "progress":
        for word in words:
            _number(word)
    if verb == "result" and words[0] not in STATUSES:
        raise UsageError(f"result: {ascii(words[0])[:60]} is neither completed nor failed")
    if "exit-code" in options:
        try:
            options["exit-code"] = int(options["exit-code"])
        except ValueError:
            raise UsageError(f"--exit-code {options['exit-code']} is not an integer") from None
    if "details-json" in options:
        from osbuild_pika import lifecycle  # takes 4 ms

        try:
            options["details"] = lifecycle.parse_details(options["details-json"])
        except lifecycle.LifecycleError as error:
            raise UsageError(f"--details-json: {error}") from None
        if verb == "artifact" and not _is_named(options["details"]):
            raise UsageError("the details of an artifact are an object without path and message")
    return options


def _is_named(details: Any) -> bool:
    return isinstance(details or {}, dict) and not {"path", "message"} & set(details or {})


def _number(word: str) -> int | float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"progress: {ascii(word)[:60]} is not a number from 0 on")
    return int(word) if word.isdecimal() else value


def _note_once(marker: str) -> None:
    """Say that there is no device, unless another call has said it in this sandbox."""
    if os.path.isdir(SANDBOX):
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError:
            pass  # a sandbox without a writable /run is told each time
    note(NO_DEVICE)


def main(argv: Sequence[str] | None = None, device: str = DEVICE, marker: str = MARKER) -> int:
    """The command line. Returns 0 done or no device, 1 refused or lost, 2 wrong arguments."""
    try:
        verb, words, options = _parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        note(f"InvalidArgument: {clean(str(error))}")
        return 2
    if not verb:
        sys.stdout.write(USAGE)
        return 0
    if not os.path.lexists(device):
        _note_once(marker)
        return 0
    with Reporter.connect(device) as report:
        _VERBS[verb][0](report, words, options)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
