"""An image from its definition to a guest that was seen to boot, as setup tasks.

    resolve        its lock                       hash: the definitions and their locks
    build          its outputs, in the state      hash: the manifest's ids, the keys of its stages
    lint           what the linter finds in them
    publish        the files, where others get them   hash: whether they lie there
    import_image   into Incus, with an alias      valid while the alias points to it
    smoke          a guest of it gets ready; without a lifecycle, it is booted

An image that is made from another one begins when that one is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from osbuild_pika import pipeline
from osbuild_pika.engine import disk
from osbuild_pika.engine.order import Order, run_name
from osbuild_pika.errors import HostError, InputError, PikaError
from osbuild_pika.products import inputs, published
from osbuild_pika.products.inputs import Inputs
from osbuild_pika.products.published import Output
from osbuild_pika.tasks import (
    SetupTaskMixin,
    SkipSetupTask,
    cross_object_dependency,
    files,
    setup_task,
)
from osbuild_pika.text import one_line

if TYPE_CHECKING:
    from osbuild_pika.incus.client import Client

BUILT = "built.json"  # what the last build made, in the state


class Watching(Protocol):
    """Who is shown a build, as cli/building.py's Watch."""

    message: str

    def take(self, record: dict[str, Any]) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


class Site(NamedTuple):
    """Where images are made, and who is told. store, output: directories; output is what is
    published. connect: to Incus. ready_s: how long a guest may take. tell: takes a line."""

    store: str
    output: str
    connect: Callable[[], Client]
    ready_s: float
    tell: Callable[[str], None]
    watch: Callable[[], Watching]


class _Built(NamedTuple):
    """What the last build made. run: its directory."""

    run: str
    outputs: tuple[Output, ...]


class ImagePipeline(SetupTaskMixin):
    """The tasks of the image that a definition describes. path: the definition's."""

    def __init__(self, path: str, site: Site) -> None:
        # Not normalized: what is behind `link/..` only the kernel knows.
        self.path = os.path.join(os.getcwd(), path)
        self.site = site

    @property
    def stamp_subdir(self) -> str:
        """A name for people, and what tells files of one name apart.

        A link to a definition is one of its own: its lock and its files lie beside the link.
        """
        folder, file = os.path.split(self.path)
        real = Path(os.path.realpath(folder), file)
        stem = real.parent.name if real.stem == "image" else real.stem
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:60] or "image"
        return f"images/{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:12]}"

    @property
    def inputs(self) -> Inputs:
        """Raises InputError, HostError."""
        return inputs.of(self.path, self.state_path / "inputs.json")

    def parent(self) -> ImagePipeline | None:
        """The image that this one is made from."""
        path = self.inputs.parent
        return None if path is None else ImagePipeline(path, self.site)

    parent_build = cross_object_dependency("build", "parent")

    # --- resolve ---------------------------------------------------------------------------------

    @setup_task("lock its packages")
    def resolve(self) -> None:
        from osbuild_pika.image import definition
        from osbuild_pika.image import lock as lockfile

        found = definition.load(self.path)
        lockfile.read(pipeline.lock_path(self.path))  # a damaged one is not ours to throw away
        try:
            lock = pipeline.lock_of(self.path, found)
        except InputError as error:
            self.site.tell(str(error).partition(": osbuild-pika lock")[0])
            lock = None
        if lock is None:
            pipeline.new_lock(self.path, found, self.site.tell)

    @resolve.hash(covers_output=True)
    def _what_is_locked(self) -> str:
        return self.inputs.source

    # --- build -----------------------------------------------------------------------------------

    @setup_task("build it")
    def build(self) -> None:
        from osbuild_pika.image import definition

        found = definition.load(self.path)
        manifest = pipeline.image_manifest(self.path, found)
        output = str(self.state_path / "output")
        with disk.explained(output):
            files.make_directories(Path(output))
        run = self._run_build(manifest, found.name, output)
        outputs = [
            each
            for each in published.exported(json.loads(manifest), output)
            if each.name in found.outputs
        ]
        document = {"run": run, "outputs": [each._asdict() for each in outputs]}
        with disk.explained(output):
            files.replace(self.state_path / BUILT, json.dumps(document).encode() + b"\n")

    def _run_build(self, manifest: str, name: str, output: str) -> str:
        """Returns the directory of the run. Raises PikaError."""
        order = Order(
            manifest=manifest,
            name=name,
            run=run_name(name),
            store=self.site.store,
            output=output,
            is_forced=True,
            term=os.environ.get("TERM", "dumb"),
        )
        watch = self.site.watch()
        seen: dict[str, Any] = {}

        def take(record: dict[str, Any]) -> None:
            seen[record["record"]] = record
            watch.take(record)

        code = pipeline.build(order, take, watch.tick)
        watch.close()
        if code:
            last = seen.get("refused") or seen.get("build.finished") or {}
            raise pipeline.error_of(code, f"{name}: {last.get('message') or 'the build failed'}")
        return str(seen["build.started"]["directory"])

    @build.hash()
    def _what_is_built(self) -> str:
        return self.inputs.manifest

    @build.invalidator()
    def _is_built(self) -> bool:
        return published.are_there(self._built().outputs)

    def _built(self) -> _Built:
        """What the last build made: nothing, if there was none."""
        try:
            document = json.loads((self.state_path / BUILT).read_bytes())
            outputs = [
                Output(**{**each, "files": tuple(each["files"])}) for each in document["outputs"]
            ]
            return _Built(document["run"], tuple(outputs))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return _Built("", ())

    # --- lint ------------------------------------------------------------------------------------

    @setup_task("lint it")
    def lint(self) -> None:
        from osbuild_pika import imagefile
        from osbuild_pika.inside import lint

        host = lint.Host(time.time(), platform.machine())
        allowed = self.inputs.allowed
        faults = []
        for each in _for_incus(self._built().outputs):
            look = imagefile.look if len(each.files) == 1 else imagefile.look_split
            findings = lint.image(look(*each.files), host, allowed)
            for finding in findings:
                self.site.tell(f"{self.inputs.name}: {each.name}: {finding}")
            if lint.has_errors(findings):
                faults.append(each.name)
        if faults:
            raise PikaError(f"{self.inputs.name}: the linter refuses {', '.join(faults)}")

    # --- publish ---------------------------------------------------------------------------------

    @setup_task("publish it")
    def publish(self) -> None:
        try:
            published.publish(self.site.output, self.inputs.name, self._built().outputs)
        except published.NotBuiltError:
            self.delete_stamp("build")
            raise

    @publish.hash(covers_output=True)
    def _what_is_published(self) -> str:
        """Whether it is there, and where: another directory is filled, too."""
        where = os.path.realpath(self.site.output)
        name, outputs = self.inputs.name, self._published()
        is_there = published.are_there(outputs) and published.are_told(where, name, outputs)
        return f"{is_there} {where}"

    @publish.invalidator(slow=True)
    def _is_published(self) -> bool:
        """Whether all published files are still what was built, byte for byte."""
        from osbuild_pika.incus import local

        try:
            return all(
                local.measure(*each.files, flags=os.O_NOFOLLOW).fingerprint == each.fingerprint
                for each in self._published()
            )
        except InputError:
            return False

    def _published(self) -> list[Output]:
        return published.place(self.site.output, self.inputs.name, self._built().outputs)

    @property
    def last_task(self) -> str:
        """The last of its tasks that there is something to do for."""
        found = self.inputs
        if not any(each.startswith("incus-") for each in found.outputs):
            return "publish"
        return "smoke" if found.has_init else "import_image"

    @property
    def outcome(self) -> str:
        """What is published, in words."""
        outputs = self._built().outputs
        return ", ".join(f"{each.name} {each.fingerprint}" for each in outputs) or "not built"

    # --- Incus --------------------------------------------------------------------------------

    @setup_task("import it into Incus")
    def import_image(self) -> None:
        from osbuild_pika.incus import images, local

        image = self._incus_image()
        with self.site.connect() as client:
            found = local.measure(*image.files, flags=os.O_NOFOLLOW)
            if found.fingerprint != image.fingerprint:
                self.delete_stamp("publish")
                raise HostError(f"{found.name}: was changed; the next run publishes it again")
            images.import_files(client, found)
            images.point(client, self.inputs.name, image.fingerprint)

    @import_image.invalidator()
    def _is_imported(self) -> bool:
        from osbuild_pika.incus import images

        (image, *_) = [*_for_incus(self._published()), None]
        if image is None:
            return False
        with self.site.connect() as client:
            return images.find_alias(client, self.inputs.name) == image.fingerprint

    @setup_task("boot it until it is ready")
    def smoke(self) -> None:
        from osbuild_pika.incus import instances, launching
        from osbuild_pika.incus.waiting import Reached

        image = self._incus_image()
        name = self._guest()
        wanted = "ready" if self.inputs.lifecycle else "booted"
        wish = launching.Launch(name, wanted, timeout_s=self.site.ready_s, is_replacing=True)
        found = launching.Image(image.fingerprint, None, self._built().run)
        with self.site.connect() as client:
            at_work = launching.Launching(client, wish, found, self.site.tell)
            try:
                outcome = at_work.run().outcome
            except (KeyboardInterrupt, SystemExit):
                at_work.interrupted()
                raise
            finally:
                if at_work.has_begun:
                    instances.delete(client, name)
        if not isinstance(outcome, Reached):
            word, state, message = launching.told(outcome) if outcome else ("", "", "")
            told = one_line(": ".join(filter(None, (word, state, message))))
            hint = f"its records: {self._built().run}/boots"
            raise instances.GuestError(
                f"{self.inputs.name}: its guest is not ready: {told}; {hint}"
            )

    def _guest(self) -> str:
        """The name of an instance that nobody else has."""
        name = self.inputs.name.replace(".", "-")[:48].rstrip("-")
        whose = f"{platform.node()} {self.stamp_path}"  # hosts may share an Incus
        return (
            f"smoke-{name}-{hashlib.sha256(whose.encode(errors='surrogateescape')).hexdigest()[:8]}"
        )

    def _incus_image(self) -> Output:
        """The published output that Incus is given. Raises SkipSetupTask if there is none."""
        found = list(_for_incus(self._published()))
        if not found:
            raise SkipSetupTask("it has no output for Incus")
        return found[0]


def _for_incus(outputs: Iterable[Output]) -> Iterable[Output]:
    """The first is the one that Incus is given."""
    return sorted((each for each in outputs if each.is_for_incus), key=lambda each: len(each.files))
