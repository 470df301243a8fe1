"""The verbs of `osbuild-pika`, and what every one of them does about errors and signals."""

import gc
import io
import os
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from osbuild_pika import lifecycle
from osbuild_pika.errors import ExitCode, PikaError
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.text import one_line

ANY_OPTION = {"ignore_unknown_options": True}
# Each is a command of its own name in a module of its own name, imported for who calls it.
VERBS = (
    *("build", "cancel", "check", "doctor", "gc", "init", "launch", "lock", "osbuild"),
    *("participant", "plan", "result", "runs", "service", "tasks", "upstream", "watch"),
)


class Verbs(click.Group):
    """A group that tells expected failures in one line, and ends quietly when asked to end."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line and end the process. A usage error is one line, too."""
        try:
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(ExitCode.BAD_INPUT)
        except click.ClickException as error:
            where = (
                error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
            )
            name = where or "osbuild-pika"
            click.echo(f"{name}: {one_line(error.format_message())}; see {name} --help", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(ExitCode.INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*VERBS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(f"osbuild_pika.cli.{cmd_name}"), cmd_name)
        gc.freeze()  # modules stay: no collection, nor that of the exit, need look at them
        gc.enable()
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb. Raises click's Exit with an ExitCode."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What a locale cannot show is no reason to fail.
            sys.stdout.reconfigure(errors="backslashreplace")
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (PikaError, LifecycleError) as error:
            for line in getattr(error, "lines", [str(error)]):
                click.echo(f"osbuild-pika: error: {one_line(line)}", err=True)
            ctx.exit(_exit_code(error))
        except OSError as error:  # of the output: what is read comes as a LifecycleError
            # Python's last flush would fail again, and say so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                ctx.exit(ExitCode.BROKEN_PIPE)
            click.echo(f"osbuild-pika: error: output: {error.strerror}", err=True)
            ctx.exit(ExitCode.FAILED)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> NoReturn:
    sys.exit(ExitCode.TERMINATED)


def _exit_code(error: PikaError | LifecycleError) -> ExitCode:
    if isinstance(error, PikaError):
        return error.exit_code
    return ExitCode.BAD_INPUT if error.is_bad_argument else ExitCode.FAILED


def _tell_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked:
        return
    from importlib import metadata  # 20 ms, for who asks only

    try:
        version = metadata.version("osbuild-pika")
    except metadata.PackageNotFoundError:
        version = "of a checkout that is not installed"
    click.echo(f"osbuild-pika {version}")
    ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Show the version and exit.",
)
def osbuild_pika() -> None:
    """Build Incus images the osbuild way, and always know the truth about it."""


# `osbuild-pika lifecycle` as such never comes here: osbuild_pika/cli/__init__.py spares it click.
@click.command("lifecycle", context_settings=ANY_OPTION, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lifecycle_verb(arguments: tuple[str, ...]) -> NoReturn:
    """Write lifecycle artifacts durably: the guest helper."""
    sys.exit(lifecycle.main(arguments, prog="osbuild-pika lifecycle"))


osbuild_pika.add_command(lifecycle_verb)
