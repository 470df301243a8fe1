"""`osbuild-pika osbuild`: the command line of upstream osbuild."""

import fnmatch
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from osbuild_pika.cli import building, manifests
from osbuild_pika.cli.sizes import parse_size
from osbuild_pika.errors import ExitCode, InputError, ManifestError

if TYPE_CHECKING:
    from osbuild_pika.engine.manifest import Manifest

UPSTREAM_VERSION = 191  # of the manifests, modules and protocols that we speak
PASSED_ON = (ExitCode.OK, ExitCode.INTERRUPTED, ExitCode.TERMINATED)


def _tell_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        click.echo(f"osbuild {UPSTREAM_VERSION}")
        ctx.exit()


def _stack(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


_directory = click.Path(file_okay=False)
_many: dict[str, Any] = {"metavar": "ID", "multiple": True}
_flags = _stack(
    click.option("--inspect", is_flag=True, help="Print the manifest with the ids of its stages."),
    click.option("--json", "is_json", is_flag=True, help="Results and errors as JSON."),
    click.option("--export", "exports", **_many, help="Build and export this pipeline."),
    click.option("--checkpoint", "checkpoints", **_many, help="Taken, but every stage is kept."),
    click.option("--output-directory", "output", metavar="DIRECTORY", type=_directory),
    click.option(
        *("--cache", "--store", "cache"),
        metavar="DIRECTORY",
        type=_directory,
        default=".osbuild",
        show_default=True,
        help="Where finished stages and sources are kept.",
    ),
    click.option("--cache-max-size", metavar="SIZE", callback=parse_size, default="20GiB"),
    manifests.libdir,
    click.option("--monitor", metavar="NAME", help="LogMonitor, JSONSeqMonitor or NullMonitor."),
    click.option("--monitor-fd", metavar="FD", type=int, help="Default: stdout."),
    click.option("--quiet", is_flag=True, help="Print no more than errors."),
    click.option(
        "--stage-timeout", metavar="SECONDS", type=int, help="End a stage that prints nothing."
    ),
    click.option("--rundir", metavar="DIRECTORY", help="Taken, but not used."),
    click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_tell_version,
        help="Show the version of osbuild that this follows, and exit.",
    ),
)


@click.command()
@click.argument("manifest", metavar="MANIFEST", type=click.Path())
@_flags
def osbuild(manifest: str, inspect: bool, is_json: bool, **given: Any) -> None:
    """Take upstream osbuild's arguments, and answer as it does.

    MANIFEST: a file, or - for the standard input. Nothing is built without --export. What was
    exported before is replaced.

    Exits 0, 1 if the build failed, 2 for a manifest or an argument that is refused, 3 if this host
    cannot build, 130 or 143 when interrupted.
    """
    data = manifests.read(manifest)
    loaded = _load(manifest, data, given["libdirs"], (inspect, is_json))
    matched = _checkpoints(loaded, given["checkpoints"])
    _check_exports(loaded, given["exports"])
    if inspect:
        _inspect(loaded, given["libdirs"])
    elif given["exports"] and given["output"] is None:
        click.echo("Need --output-directory for --export")
        click.get_current_context().exit(ExitCode.FAILED)
    else:
        code = _build(manifest, data, is_json, given)
        if not is_json and not given["quiet"]:
            _close(loaded, matched, code)
        sys.stdout.flush()
        click.get_current_context().exit(code)


def _load(
    path: str, data: bytes, libdirs: tuple[Path, ...], flags: tuple[bool, bool]
) -> "Manifest":
    """Read a manifest; one that is refused is told as upstream does. flags: inspect, json."""
    from osbuild_pika.engine.load import load
    from osbuild_pika.engine.modules import standard

    try:
        return load(data, standard(libdirs), is_strict=not flags[0])
    except ManifestError as error:
        if any(flags):
            faults = [{"message": fault.message, "path": fault.path} for fault in error.faults]
            click.echo(json.dumps(manifests.error_object_of(faults)))
        else:
            parts = (f"{fault.place}:\n  {fault.message}\n" for fault in error.faults)
            click.echo("\n".join([f"{_name(path)} has errors:\n", *map(_shown, parts)]))
        click.get_current_context().exit(ExitCode.BAD_INPUT)


def _shown(part: str) -> str:
    from osbuild_pika.monitor.lines import shown

    return "\n".join(map(shown, part.split("\n")))


def _name(path: str) -> str:
    return _shown(os.path.basename(path))


def _fail(message: str) -> NoReturn:
    click.echo(f"{_shown(message)}\nFailed")
    click.get_current_context().exit(ExitCode.FAILED)


def _checkpoints(loaded: "Manifest", patterns: tuple[str, ...]) -> list[str]:
    """Names of the pipelines that are matched themselves; fails if a pattern matches nothing."""
    names: dict[str, list[str]] = {}  # pipeline -> what a pattern can match
    others = [
        text
        for each in loaded.pipelines
        for stage in each.stages
        for text in (stage.id, stage.type)
    ]
    for each in loaded.pipelines:
        names[each.name] = [str(each.name), *([each.id] if each.id else [])]
    known = [text for texts in names.values() for text in texts] + others
    if patterns and not all(fnmatch.filter(known, pattern) for pattern in patterns):
        _fail("No checkpoints matched provided patterns!")
    return [
        name
        for name, texts in names.items()
        if any(fnmatch.filter(texts, pattern) for pattern in patterns)
    ]


def _check_exports(loaded: "Manifest", exports: tuple[str, ...]) -> None:
    names = [each.name for each in loaded.pipelines]
    known = {*map(str, names), *(each.id for each in loaded.pipelines)}
    for export in exports:
        if export not in known:
            _fail(f"Export {export} not found in {names}")


def _inspect(loaded: "Manifest", libdirs: tuple[Path, ...]) -> None:
    from osbuild_pika.engine.manifest import describe
    from osbuild_pika.engine.modules import standard

    click.echo(json.dumps(describe(loaded, standard(libdirs).host_runner())))


def _build(path: str, data: bytes, is_json: bool, given: Mapping[str, Any]) -> int:
    """Build as upstream would; returns upstream's exit code."""
    from osbuild_pika import pipeline
    from osbuild_pika.engine.order import Order, run_name
    from osbuild_pika.monitor.choose import upstream_sink
    from osbuild_pika.monitor.result import ResultCollector

    order = Order(
        manifest=data.decode("utf-8", "surrogateescape"),
        name=os.path.basename(path),
        run=run_name("stdin" if path == "-" else path),
        store=given["cache"],
        exports=given["exports"],
        output=given["output"] if given["exports"] else None,
        libdirs=tuple(os.path.abspath(each) for each in given["libdirs"]),
        idle_s=given["stage_timeout"],
        is_forced=True,
        max_bytes=given["cache_max_size"],
        term=os.environ.get("TERM", "dumb"),
    )
    monitor = given["monitor"] or ("NullMonitor" if is_json or given["quiet"] else "LogMonitor")
    collector = ResultCollector()
    watch = building.Watch(upstream_sink(monitor, _out(given["monitor_fd"])), collector)
    code = pipeline.build(order, watch.take, watch.tick)
    watch.close()
    if watch.refusal is not None:
        watch.tell_refusal(is_json)
    elif is_json:
        click.echo(json.dumps(collector.result()))
    if code and watch.message:
        click.echo(f"osbuild-pika: error: {_shown(watch.message)}", err=True)
    return code if code in PASSED_ON or not watch.has_begun else ExitCode.FAILED


def _out(fd: int | None) -> TextIO:
    """The stream that a monitor writes to. Raises InputError."""
    if fd is None or fd == 1:
        return sys.stdout
    try:
        return os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    except OSError as error:
        raise InputError(f"--monitor-fd {fd}: {error.strerror}") from None


def _close(loaded: "Manifest", matched: list[str], code: int) -> None:
    """What upstream says at the end."""
    from osbuild_pika.monitor.log import closing

    if code == ExitCode.OK:
        click.echo(closing(_ids(loaded), matched), nl=False)
    else:
        click.echo("Failed")


def _ids(loaded: "Manifest") -> Iterator[tuple[str, str | None]]:
    for each in loaded.pipelines:
        yield str(each.name), each.id
