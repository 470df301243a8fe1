"""The command line: one module per verb; only here something is printed or the process ends."""

import sys


def main() -> None:
    """Entry point of `osbuild-pika`."""
    if sys.argv[1:2] == ["lifecycle"]:
        # Called once per event by scripts: it must not wait for the imports of the other verbs.
        from osbuild_pika import lifecycle

        sys.exit(lifecycle.main(sys.argv[2:], prog="osbuild-pika lifecycle"))
    try:
        from osbuild_pika.cli.verbs import osbuild_pika
    except KeyboardInterrupt:
        sys.exit(130)
    osbuild_pika()
