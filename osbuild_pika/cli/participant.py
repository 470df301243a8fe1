"""`osbuild-pika participant`: workitems with kickstarts in, images and workitems out."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from osbuild_pika.cli import building
from osbuild_pika.cli.images import say
from osbuild_pika.cli.places import parse_duration
from osbuild_pika.errors import ExitCode, HostError, InputError
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.participant.handler import ParticipantHandler

LISTEN = "127.0.0.1:8470"
DIRECTORY = "/var/lib/osbuild-pika/participant"
OPTIONS = (
    building.store,
    click.option(
        "--base-url",
        metavar="URL",
        envvar="OSBUILD_PIKA_BASE_URL",
        default=f"http://{LISTEN}",
        show_default=True,
        help="What DIR/files is served under: the answers' URLs begin with it.",
    ),
    click.option(
        "--notify-command",
        metavar="COMMAND",
        help="Is run at each status, in no shell, with JSON on its input.",
    ),
    click.option("--notify-url", metavar="URL", help="Is posted each status, as JSON."),
    click.option(
        "--from",
        "origin",
        metavar="DISTRIBUTION/SUITE",
        help="What images are made from whose kickstart says nothing of it.",
    ),
    click.option(
        "--isolation",
        metavar="KIND",
        default="sandbox",
        show_default=True,
        help="Where a build runs: sandbox. vm is refused: it is not there yet.",
    ),
    click.option(
        "--stage-timeout",
        metavar="TIME",
        callback=parse_duration,
        help="End a stage that takes longer, such as 90s or 10m.",
    ),
)


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with the options of who builds."""
    return reduce(lambda made, option: option(made), reversed(OPTIONS), command)


@click.group()
def participant() -> None:
    """Build images of workitems with kickstarts, as the build_image participant of a pipeline.

    What is built is published in DIR/files/PREFIX/IMAGE_ID. The fields of a workitem stand in
    docs/reference/participant.md.
    """


@participant.command()
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="Where images are published, and requests known.",
)
@_configured
def run(directory: str, **given: Any) -> None:
    """Build one workitem: JSON on stdin, and with its answer on stdout.

    Exits 0 if the image was built, 1 if not, 2 for a workitem that is refused, 3 if this host or
    a source does not do, 75 if it is being built already; there is an answer in each case.
    130 and 143 when interrupted: no answer, and the same workitem goes on where it stopped.
    """
    from osbuild_pika.participant import workitem as workitems

    handler = _handler(directory, given)
    try:
        item = workitems.decode(sys.stdin.buffer.read(workitems.MAX_BYTES + 1))
    except InputError as error:
        answer, code = workitems.answer({}, workitems.refused([str(error)])), int(error.exit_code)
        handler.push_img_status("ERROR", workitems.told(answer))
    else:
        handler.push_img_status("IN QUEUE", workitems.told(item))
        with _explained(directory):
            answer, found = handler.answer(item)
        code = _exit_code(found)
    click.echo(workitems.encode(answer), nl=False)
    if code:
        error_text = one_line(str(workitems.image_of(answer).get("error")))
        click.echo(f"osbuild-pika: error: {error_text}", err=True)
    click.get_current_context().exit(code)


@participant.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--once", is_flag=True, help="End when no workitem is left.")
@_configured
def spool(directory: str, once: bool, **given: Any) -> None:
    """Build the workitems that are dropped in DIR/in; their answers come to DIR/out.

    Write NAME.json elsewhere on the same file system and rename it to DIR/in/NAME.json; the
    answer is DIR/out/NAME.json. DIR/in/NAME.cancel cancels it. A workitem in hand is gone on with
    after an interruption, even a kill. SIGUSR1: finish what is in hand, then end.

    Exits 0 after SIGUSR1, and with --once when all are answered, 3 if DIR cannot be written, 75
    if another participant has it, 130 and 143 when interrupted.
    """
    from osbuild_pika.participant import spool as spools

    handler = _handler(directory, given)
    signal.signal(signal.SIGUSR1, lambda *_: handler.handle_lifecycle_control("stop"))
    with _explained(directory), spools.opened(os.path.abspath(directory), handler, say) as opened:
        say(f"spool {os.path.abspath(directory)}")
        opened.run(once)


@participant.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=LISTEN,
    show_default=True,
    help="Port 0: any that is free.",
)
def serve(directory: str, listen: str) -> None:
    """Serve what is published in DIR/files over HTTP, read-only.

    Only this machine can ask, unless --listen says otherwise. Exits 130 and 143 when interrupted,
    3 if it cannot listen.
    """
    from osbuild_pika.participant import serve as serving

    files = os.path.join(os.path.abspath(directory), "files")
    with _explained(files):
        os.makedirs(files, mode=0o755, exist_ok=True)
    serving.serve(files, listen, lambda url: say(f"serving {files} at {url}"))


def _handler(directory: str, given: dict[str, Any]) -> ParticipantHandler:
    """The handler that the options mean. Raises InputError, HostError."""
    from osbuild_pika.participant import notify, site
    from osbuild_pika.participant.handler import ParticipantHandler

    where = site.Site(
        directory=os.path.abspath(directory),
        store=os.path.abspath(given["store"]),
        base_url=given["base_url"],
        isolation=given["isolation"],
        stage_timeout_s=given["stage_timeout"],
        origin=given["origin"],
    )
    site.check(where)
    try:
        command = shlex.split(given["notify_command"] or "")
    except ValueError as error:
        raise InputError(f"--notify-command: {error}") from None
    return ParticipantHandler(where, notify.notifier(command, given["notify_url"], say))


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turns an OSError inside the block into a HostError."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise HostError(f"{one_line(str(name))}: {error.strerror}") from None


def _exit_code(code: int) -> int:
    """A request's code as that of the command, which was not itself interrupted."""
    kept = (ExitCode.OK, ExitCode.BAD_INPUT, ExitCode.HOST_NOT_FIT, ExitCode.BUSY)
    return code if code in kept else ExitCode.FAILED
