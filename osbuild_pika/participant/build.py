"""build_image: a workitem with a kickstart in, an image, and the workitem out.

What stays: the directory of the request (request.py), and the run of its build. A request that was
interrupted goes on where it stopped: with the lock that it has, from the stage that was next. One
that has been built is answered from what is published.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from osbuild_pika import pipeline, results
from osbuild_pika.buildprocess import SIGNALS
from osbuild_pika.engine.order import Order, run_name
from osbuild_pika.errors import ExitCode, InputError, PikaError
from osbuild_pika.image import debian
from osbuild_pika.lifecycle import LifecycleError
from osbuild_pika.monitor import Record, Sink, Tee
from osbuild_pika.monitor.lines import Lines, shown
from osbuild_pika.monitor.plain import PlainSink
from osbuild_pika.participant import request as requests
from osbuild_pika.participant import site as sites
from osbuild_pika.participant import workitem as workitems
from osbuild_pika.participant.request import Place
from osbuild_pika.participant.site import Site
from osbuild_pika.participant.workitem import Json, Outcome, Request
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.image.values import Definition

Tell = Callable[[str, Json], None]  # of a status, and what it is the status of


class Report(Protocol):
    def as_document(self) -> Any: ...


class Converted(Protocol):
    """What a front end makes of a kickstart."""

    @property
    def definition(self) -> Definition: ...

    @property
    def report(self) -> Report: ...


Convert = Callable[[Request, Site], Converted]


class CancelledError(BaseException):
    """SIGTERM: the request is to end."""


class StoppedError(BaseException):
    """SIGINT: the process is to end, and the request is gone on with later."""


def convert(request: Request, site: Site) -> Converted:
    """The kickstart front end. Raises KickstartError; HostError where pykickstart is missing.

    Nothing is ever included: the files of this machine are none of a workitem's business.
    """
    from osbuild_pika.image import kickstart

    more = {} if site.origin is None else {"origin": site.origin}
    name, allowed = request.name, request.options.allowed
    found: Converted = kickstart.convert(request.kickstart, name, allowed, **more)
    return found


def build_image(
    workitem: object, site: Site, tell: Tell = lambda *_: None, front_end: Convert = convert
) -> Json:
    """The answer to a workitem: it is built, or refused, or it failed; see `perform`."""
    return workitems.answer(workitem, perform(workitem, site, tell, front_end))


def perform(workitem: object, site: Site, tell: Tell, front_end: Convert) -> Outcome:
    """Do what a workitem asks for. Raises nothing for bad input or a host that does not do.

    tell: is given each status but the first, IN QUEUE, and the last one's outcome. Main thread.
    """
    report: Any = None
    try:
        sites.check(site)
        request, faults = workitems.read(workitem)
        if request is None:
            outcome = workitems.refused(faults)
        else:
            _check_architecture(request)
            made = front_end(request, site)
            report = made.report.as_document()
            outcome = _Work(request, site, tell).do(made.definition, report)
    except (PikaError, LifecycleError, OSError) as error:
        outcome = failed(error, report)
    status = "DONE" if outcome.is_built else "ERROR"
    tell(status, workitems.told(workitems.answer(workitem, outcome)))
    return outcome


def failed(error: Exception, report: Any = None) -> Outcome:
    """The end that an error is, with all of its lines."""
    lines = [one_line(str(each)) for each in getattr(error, "lines", ())]
    code = error.exit_code if isinstance(error, PikaError) else ExitCode.FAILED
    own: Any = getattr(error, "report", None)  # of a conversion that failed
    document = own.as_document() if hasattr(own, "as_document") else report
    return Outcome(code, one_line(str(error)), report=document, lines=tuple(lines))


def _check_architecture(request: Request) -> None:
    host = debian.host_architecture()
    if request.arch not in ("", host):
        raise InputError(f"image.arch is {request.arch}, but this participant builds for {host}")


class _Work:
    """A request on its way."""

    def __init__(self, request: Request, site: Site, tell: Tell) -> None:
        self._request, self._site, self._tell = request, site, tell

    def do(self, definition: Definition, report: Any) -> Outcome:
        with requests.held(self._site, self._request) as place:
            place.claim()
            place.end_build()
            result = place.ended()
            if result is not None and result["status"] == "completed":
                artifacts = place.intact(result)
                if artifacts:
                    return self._built(place, artifacts, report)
            if result is not None:
                place.clear()
            place.remove_image()
            document = json.dumps(report, indent=2).encode() + b"\n"
            requests.replace(place.path("report.json"), document)
            return self._build(place, definition, report)

    def _build(self, place: Place, definition: Definition, report: Any) -> Outcome:
        try:
            place.note("IN QUEUE", "accepted")
            with open(place.log, "a", encoding="utf-8", errors="replace") as log:
                artifacts = _Builder(place, self._site, log, self._begin).build(definition)
            with _undisturbed():
                place.publish(artifacts)
                outcome = self._built(place, artifacts, report)
                place.end(outcome, artifacts)
        except CancelledError:
            outcome = self._ended(place, Outcome(ExitCode.TERMINATED, "cancelled"), report)
        except (PikaError, LifecycleError, OSError) as error:
            outcome = self._ended(place, failed(error), report)
        return outcome

    def _begin(self, place: Place) -> None:
        place.note("BUILDING", f"building {self._request.name}")
        self._tell("BUILDING", workitems.told({"image": _facts(self._request)}))

    def _built(self, place: Place, artifacts: list[Json], report: Any) -> Outcome:
        image = next(each for each in artifacts if each["is_image"])
        return dataclasses.replace(
            Outcome(ExitCode.OK, report=report),
            image_url=place.url(*image["file"].split("/")),
            files_url=place.url("") if artifacts else None,
            logfile_url=place.url(os.path.basename(place.log)),
            lines=(f"built {image['file']}, {image['size_bytes']} bytes",),
        )

    def _ended(self, place: Place, outcome: Outcome, report: Any) -> Outcome:
        place.remove_image()
        with contextlib.suppress(OSError):  # the disk may be full: the end is told all the same
            with open(place.log, "a", encoding="utf-8", errors="replace") as log:
                for line in outcome.lines or (outcome.error,):
                    log.write(f"osbuild-pika: error: {line}\n")
            place.list_files()
        place.end(outcome)
        url = place.url(os.path.basename(place.log))
        return dataclasses.replace(
            outcome, report=outcome.report or report, logfile_url=url, files_url=place.url("")
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside the block it is too late to cancel: what has been built is told."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _facts(request: Request) -> Json:
    names = ("prefix", "image_id", "image_type", "name", "release", "arch")
    return {name: getattr(request, name) for name in names}


def wanted(definition: Definition, request: Request) -> Definition:
    """The definition with what the workitem says: its name, its one output, our options."""
    properties = dict(definition.properties)
    if request.release:
        properties["version"] = request.release
    chosen = request.options
    return dataclasses.replace(
        definition,
        name=request.name,
        outputs=(request.output,),
        compression=chosen.compression or definition.compression,
        lifecycle=definition.lifecycle and chosen.lifecycle,
        properties=properties,
    )


class _Output(Sink):
    """What stages print, as safe lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines = Lines()

    def on_stage_output(self, record: Record) -> None:
        text = record.get("text")
        for line in self._lines.take(text if isinstance(text, str) else ""):
            self._out.write(f"    {shown(line)}\n")
        self._out.flush()


class _Builder:
    """The build of a request: locked, built into its place, collected."""

    def __init__(
        self, place: Place, site: Site, log: TextIO, begin: Callable[[Place], None]
    ) -> None:
        self._place, self._site, self._log, self._begin = place, site, log, begin
        self._sink = Tee([PlainSink(log), _Output(log)])
        self._seen: dict[str, Record] = {}

    def build(self, definition: Definition) -> list[Json]:
        """Build; returns the artifacts. Raises PikaError, CancelledError, StoppedError."""
        definition = wanted(definition, self._place.request)
        path = self._place.definition
        self._lock(path, definition)
        manifest = pipeline.image_manifest(path, definition)
        self._begin(self._place)
        request = self._place.request
        name = run_name(f"{request.prefix}-{request.image_id}")
        order = Order(
            manifest=manifest,
            name=request.name,
            run=name,
            store=self._site.store,
            output=self._place.directory,
            total_s=self._site.stage_timeout_s,
            is_forced=True,
        )
        code = pipeline.build(order, self._take, self._sink.tick)
        self._sink.close()
        self._check(code)
        return self._artifacts(json.loads(manifest))

    def _lock(self, path: str, definition: Definition) -> None:
        """Have the request locked, if it is not: to the same packages for ever after."""
        try:
            found = pipeline.lock_of(path, definition)
        except InputError as error:
            self._say(str(error))
            found = None
        if found is None:
            pipeline.new_lock(path, definition, self._say)

    def _say(self, line: str) -> None:
        self._log.write(f"{one_line(line)}\n")
        self._log.flush()

    def _take(self, record: Record) -> None:
        self._seen[str(record.get("record"))] = record
        if record.get("record") == "build.started":
            self._place.begun(str(record["directory"]))
        self._sink.take(record)

    def _check(self, code: int) -> None:
        """Raise what an exit code other than 0 means."""
        if code == ExitCode.OK:
            return
        if code == ExitCode.TERMINATED:
            raise CancelledError
        if code == ExitCode.INTERRUPTED:
            raise StoppedError
        last = self._seen.get("refused") or self._seen.get("build.finished") or {}
        raise pipeline.error_of(code, str(last.get("message") or ""))

    def _artifacts(self, manifest: Mapping[str, Any]) -> list[Json]:
        """What came out of the run, as files of the place. Raises PikaError."""
        run = str(self._seen["build.started"]["directory"])
        options = manifest["pipelines"][-1]["stages"][-1]["options"]
        image = options.get("rootfs") or options["filename"]
        found = []
        for each in results.collect(run).artifacts:
            file = os.path.relpath(each.path, self._place.directory)
            if each.kind != "file" or file != f"{self._place.request.output}/{each.name}":
                raise PikaError(f"the build left {each.name!a}, which is no file of an image")
            known = dataclasses.asdict(each)
            fields = {key: known[key] for key in ("size_bytes", "sha256", "media_type")}
            mark = {"fingerprint": each.fingerprint} if each.fingerprint else {}
            found.append({"file": file, **fields, **mark, "is_image": each.name == image})
        if not any(each["is_image"] for each in found):
            raise PikaError(f"the build has made no {image}")
        return found
