"""An object whose products tell what they were made of, and the states in which a run finds it.

It is what is killed again and again, so it imports little.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from osbuild_pika.tasks import SetupTaskMixin, setup_task


class Thing(SetupTaskMixin):
    """Three tasks, each made from the one before it. The input of the first is a file."""

    stamp_subdir = "thing"

    def __init__(self, root: str) -> None:
        self.directory = Path(root)

    @property
    def tasks_root(self) -> Path:
        return self.directory

    def make(self, name: str, source: str) -> None:
        (self.directory / name).write_text(json.dumps([self.id_of(name) + 1, source]))

    def id_of(self, name: str) -> int:
        return int(json.loads(self.read(name))[0])

    def read(self, name: str) -> str:
        path = self.directory / name
        text = path.read_text() if path.exists() else ""
        return text or "[0, null]"  # one that was killed while it was written

    @setup_task("made of the input")
    def first(self) -> None:
        self.make("first", self.read("input"))

    @first.hash()
    def _input(self) -> str:
        return self.read("input")

    @setup_task("checked by its product")
    async def second(self) -> None:
        self.make("second", self.read("first"))

    @second.check_completed()
    def _is_made(self) -> bool:
        return self.is_right("second")

    @setup_task("made of the second")
    def third(self) -> None:
        self.make("third", self.read("second"))

    def is_right(self, *names: str) -> bool:
        """Whether each product is made of what is before it now."""
        before = dict(zip(("first", "second", "third"), ("input", "first", "second"), strict=True))
        return all(json.loads(self.read(name))[1] == self.read(before[name]) for name in names)


def work(what: str, root: str) -> None:
    """In the process that is killed: run its tasks, or one of them."""
    thing = Thing(root)
    if what == "run":
        asyncio.run(thing.run_setup_tasks())
    else:
        getattr(thing, what)()


# --- what a run finds ---


def nothing(thing: Thing) -> None:
    (thing.directory / "input").write_text('"one"')


def done(thing: Thing) -> None:
    nothing(thing)
    asyncio.run(thing.run_setup_tasks())


def changed(thing: Thing) -> None:
    done(thing)
    (thing.directory / "input").write_text('"two"')


def spoiled(thing: Thing) -> None:
    """The product of the second task is another's: it alone has to be made, and what follows it."""
    done(thing)
    (thing.directory / "second").write_text('[7, "another"]')


def original(thing: Thing) -> None:
    """All is done, by stamps of the original; then the input changes."""
    done(thing)
    for name in ("first", "second", "third"):
        (thing.stamp_path / f".stamp-{name}.json").unlink()
        (thing.stamp_path / f".stamp-{name}").write_text("one" if name == "first" else "")


SCENES: dict[str, tuple[Callable[[Thing], None], str]] = {
    "the first run": (nothing, "run"),
    "a changed input": (changed, "run"),
    "a spoiled product": (spoiled, "run"),
    "one task is called": (done, "first"),
    "stamps of the original": (original, "run"),
}
