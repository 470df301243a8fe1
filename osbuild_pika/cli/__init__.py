"""The command line: one module per verb; only here something is printed or the process ends."""

from __future__ import annotations

import gc as garbage  # `gc` becomes the verb's module here, once that is imported
import sys

TYPE_CHECKING = False  # typing loads re: longer than `lifecycle event` takes in all
if TYPE_CHECKING:
    from osbuild_pika.buildprocess import Waiting


def main() -> None:
    """Entry point of `osbuild-pika`."""
    if sys.argv[1:2] == ["lifecycle"]:
        # Called once per event by scripts: it must not wait for the imports of the other verbs.
        from osbuild_pika import lifecycle

        garbage.freeze()  # see verbs.py
        sys.exit(lifecycle.main(sys.argv[2:], prog="osbuild-pika lifecycle"))
    garbage.disable()  # until the verb's modules are there, see verbs.py
    waiting = _start_build(sys.argv[1:])
    try:
        from osbuild_pika.cli.verbs import osbuild_pika

        osbuild_pika(obj=waiting)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if waiting is not None:
            waiting.dismiss()
        garbage.freeze()  # the exit's collections need not look at what ends with the process


def _start_build(arguments: list[str]) -> Waiting | None:
    """Start the process that will build: it takes as long to load its modules as we ours."""
    if arguments[:1] != ["build"] or len(arguments) < 2 or {"-h", "--help"} & set(arguments):
        return None
    from osbuild_pika.buildprocess import Waiting

    try:
        return Waiting()
    except OSError:  # the verb will say so
        return None
