"""`osbuild-pika launch`: an image becomes a guest in the wanted state."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from osbuild_pika.cli import images, places, tables
from osbuild_pika.errors import ExitCode, HostError, InputError, PikaError
from osbuild_pika.lifecycle import STATES
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.incus.launching import Image, Launch, Launched, Launching

NONE = "none"
PLACES = ("socket", "project", "form")  # options that are not the instance's


def _parse_config(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[1] or text.startswith("="):
            raise click.BadParameter(f"{ascii(text)[:80]} is not KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


@click.command()
@click.argument("image", type=click.Path())
@click.argument("name")
@click.option(
    "--wait",
    "wanted",
    type=click.Choice([*STATES, NONE]),
    default="ready",
    show_default=True,
    help="The state to wait for; booted needs no lifecycle in the guest.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="TIME",
    callback=places.parse_duration,
    default="2m",
    show_default=True,
    help="How long, from the start of the instance on.",
)
@click.option("--rootfs", type=click.Path(), help="Of a split image; IMAGE is its metadata file.")
@click.option("--profile", "profiles", metavar="P", multiple=True, help="Default: default.")
@click.option(
    "--config",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_parse_config,
    help="Of the instance, such as security.nesting=true.",
)
@click.option("--replace", "is_replacing", is_flag=True, help="Delete an instance NAME first.")
@click.option("--alias", metavar="A", help="Let this alias point to the image.")
@click.option("--project", metavar="P", default="default", show_default=True, help="Incus's.")
@click.option("--socket", metavar="PATH", type=click.Path(), help="Of Incus; also INCUS_SOCKET.")
@tables.form("plain")
def launch(image: str, name: str, rootfs: str | None, **options: Any) -> None:
    """Start an instance NAME of an image, and wait until it is ready.

    IMAGE: a definition that was built, by its name or file, a run, an image file (or a directory
    with the two of a split image), or the fingerprint of an image that Incus has. It is imported
    if Incus lacks it.

    What the guest says of its lifecycle is kept in the run that made the image: see
    `osbuild-pika runs show`.

    Exits 0 if the guest is ready, 2 for bad input, 3 without Incus or if it refuses, 5 if the
    guest failed or stopped, 124 if it was not ready in time.
    """
    need_httpx()
    from osbuild_pika.incus import instances, launching
    from osbuild_pika.incus.client import Client

    instances.check_name(name)
    wish = _wish(name, options)
    found = launching.find_image(_built(image), rootfs)
    with Client(options["socket"], options["project"]) as client:
        client.server()
        found = launching.resolve(client, found)
        at_work = launching.Launching(client, wish, found, _Telling(sys.stderr.isatty()).tell)
        try:
            done = at_work.run()
        except (KeyboardInterrupt, SystemExit):
            _tell_kept(at_work, name)
            raise
    _answer(_document(wish, found, done, options["project"]), options["form"])


def need_httpx() -> None:
    """Raise HostError where Incus cannot be talked to."""
    try:
        import httpx  # noqa: F401
    except ModuleNotFoundError:
        raise HostError("Incus needs httpx: pip install 'osbuild-pika[incus]'") from None


def _built(image: str) -> str:
    """What is built of a definition is called as that is. Raises InputError."""
    if not images.is_definition(image):
        return image
    from osbuild_pika import runs
    from osbuild_pika.engine.order import run_name
    from osbuild_pika.image import definition
    from osbuild_pika.incus import boots

    name = run_name(definition.load(image).name)
    if not boots.newest(runs.root(), name):
        shown = one_line(image)
        raise InputError(f"{shown}: {name} is not built yet: osbuild-pika build {shown}")
    return name


def _wish(name: str, options: dict[str, Any]) -> Launch:
    from osbuild_pika.incus.launching import Launch

    given = {key: value for key, value in options.items() if key not in PLACES}
    given["wanted"] = None if given["wanted"] == NONE else given["wanted"]
    given["profiles"] = given["profiles"] or ("default",)
    if given["alias"] == "":
        raise InputError("--alias is empty; name one, or leave it out")
    return Launch(name, **given)


class _Telling:
    """Says what happens on stderr, a line each; how far something is only where it can change."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._kind = ""

    def tell(self, text: str) -> None:
        kind, _, percent = text.partition(": ")
        is_counting = percent.endswith("%")
        if not text or (is_counting and kind == self._kind and not self._is_terminal):
            return
        self._kind = kind
        if self._is_terminal:
            sys.stderr.write(f"\x1b[K{one_line(text)}{chr(13 if is_counting else 10)}")
        else:
            sys.stderr.write(f"{one_line(kind if is_counting else text)}\n")
        sys.stderr.flush()


def _tell_kept(at_work: Launching, name: str) -> None:
    """Say what an interrupted launch leaves, if that can still be known."""
    try:
        is_there = at_work.interrupted()
    except PikaError:
        is_there = at_work.has_begun
    left = (
        f"the instance is kept: incus delete --force {name}" if is_there else "no instance was made"
    )
    click.echo(f"osbuild-pika: {name}: interrupted; {left}", err=True)


def _document(wish: Launch, image: Image, done: Launched, project: str) -> dict[str, Any]:
    from osbuild_pika.incus.launching import told

    if done.outcome is None:
        outcome, state, message = "started", "", ""
    else:
        outcome, state, message = told(done.outcome)
    return {
        "schema_version": 1,
        "instance": wish.name,
        "project": project,
        "fingerprint": image.fingerprint,
        "is_imported": done.is_imported,
        "wanted": wish.wanted,
        "outcome": outcome,
        "state": state,
        "message": message,
        "seconds": round(done.seconds, 3),
        "boot_id": done.boot_id,
        "run": image.run,
    }


def _answer(document: dict[str, Any], form: str) -> None:
    click.echo(json.dumps(document) if form == "json" else one_line(_sentence(document)))
    code = {
        "failed": ExitCode.GUEST_FAILED,
        "gone": ExitCode.GUEST_FAILED,
        "timed out": ExitCode.TIMED_OUT,
    }.get(document["outcome"], ExitCode.OK)
    if code:
        click.get_current_context().exit(code)


def _sentence(document: dict[str, Any]) -> str:
    """How a launch ended, in one line."""
    took = f"after {document['seconds']:.1f} s"
    boot = f" (boot {document['boot_id'][:8]}...)" if document["boot_id"] else ""
    says = f": {document['message']}" if document["message"] else ""
    name, wanted = document["instance"], document["wanted"]
    match document["outcome"]:
        case "started":
            return f"{name}: started; nothing was waited for"
        case "reached":
            return f"{name}: {document['state']} {took}{boot}"
        case "timed out":
            return f"{name}: not {wanted} {took}{boot}{says}"
        case "gone":
            return f"{name}: {document['state']} {took}{boot}, before it was {wanted}{says}"
        case _:
            return f"{name}: failed {took}{boot}{says}"
