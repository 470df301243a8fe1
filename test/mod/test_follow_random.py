"""Writers, older helpers, crashes and repairs in any order: nothing acknowledged is missed."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from osbuild_pika import lifecycle
from osbuild_pika.follow import Follower
from osbuild_pika.lifecycle import Journal, LifecycleError

COUNTS = st.integers(1, 3)


class NoSync:
    """The module os without syncs, which no reader sees."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        pass

    fdatasync = fsync


class Following(RuleBasedStateMachine):
    """A run's directory, its writers, and one follower."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.log = Path(self.place.name, "events.jsonl")
        self.follower = Follower(self.place.name)
        self.made = 0
        self.boots = 0
        self.acknowledged: list[str] = []
        self.unsure: set[str] = set()
        self.given: list[str] = []
        self.boot = "boot-0"
        self.journal = Journal(self.place.name, system=NoSync())
        self.append(1)

    def teardown(self) -> None:
        self.drain()
        self.follower.close()
        self.journal.close()
        self.place.cleanup()
        assert len(self.given) == len(set(self.given))
        assert set(self.given) <= {*self.acknowledged, *self.unsure}
        assert [text for text in self.given if text not in self.unsure] == self.acknowledged

    def texts(self, count: int) -> list[str]:
        self.made += count
        return [f"event {self.made - count + step}" for step in range(count)]

    def whole_lines(self, texts: list[str]) -> bytes:
        """Lines as another writer appends them, with the seqs that come next."""
        event = {"schema_version": 1, "kind": "ready", "timestamp": "t", "boot_id": self.boot}
        seq = int((self.log.parent / "events.jsonl.seq").read_bytes() or b"0") + 1
        return b"".join(
            json.dumps({**event, "message": text, "seq": seq + step}).encode() + b"\n"
            for step, text in enumerate(texts)
        )

    def is_in_order(self) -> bool:
        """Say whether the log ends with a whole event."""
        log = self.log.read_bytes()
        return not log or (log.endswith(b"\n") and log.split(b"\n")[-2].startswith(b'{"'))

    def write(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)

    def drain(self) -> None:
        self.given += [event.message for batch in iter(self.follower.poll, []) for event in batch]

    @rule()
    def poll(self) -> None:
        self.given += [event.message for event in self.follower.poll()]

    @rule(count=COUNTS)
    def append(self, count: int) -> None:
        items = [("ready", text, None) for text in self.texts(count)]
        try:
            self.journal.append_many(items)
        except LifecycleError:  # an older helper wrote behind a bad line
            self.journal.recover()
            self.journal.append_many(items)
        self.acknowledged += [text for _, text, _ in items]

    @rule(count=COUNTS)
    def append_as_an_older_helper(self, count: int) -> None:
        texts = self.texts(count)
        data = self.whole_lines(texts)
        # What it glues to a torn line, or puts behind a bad one, the next writer may cut.
        (self.acknowledged.extend if self.is_in_order() else self.unsure.update)(texts)
        seq = json.loads(data.split(b"\n")[-2])["seq"]
        (self.log.parent / "events.jsonl.seq").write_bytes(b"%d\n" % seq)
        self.write(data)

    @rule(size=st.integers(1, 100))
    def die_in_mid_append(self, size: int) -> None:
        self.write(self.whole_lines(self.texts(1))[:size])

    @rule(bad=st.sampled_from([b"garbage\n", b"\0\0\0\n", b"\n", b"{}\n"]))
    def write_a_bad_line(self, bad: bytes) -> None:
        self.write(bad)

    @precondition(is_in_order)
    @rule(count=COUNTS, is_seen=st.booleans(), then=st.sampled_from(["", "again", "another"]))
    def find_no_space(self, count: int, is_seen: bool, then: str) -> None:
        """A batch is there for a moment, and is taken back; it comes again, or another does."""
        texts = self.texts(count)
        size, data = self.log.stat().st_size, self.whole_lines(texts)
        self.write(data + b'{"schema')
        self.unsure.update(texts)
        for _ in range(is_seen):
            self.poll()
        os.truncate(self.log, size)
        if then == "again":
            self.write(data)
        elif then == "another":
            self.append_as_an_older_helper(count)

    @rule()
    def recover(self) -> None:
        self.journal.recover()

    @rule()
    def copy(self) -> None:
        shutil.copy(self.log, self.log.with_suffix(".copy"))
        self.log.with_suffix(".copy").rename(self.log)

    @rule()
    def start_another_writer(self) -> None:
        self.journal.close()
        with mock.patch.object(lifecycle, "boot_id", return_value=self.boot):
            self.journal = Journal(self.place.name, system=NoSync())

    @rule(count=COUNTS)
    def restart(self, count: int) -> None:
        """The guest says its last words and boots again: its files begin anew."""
        self.journal.recover()  # so that the file which the follower has open is the last one
        self.drain()
        self.append(count)
        for path in (self.log, Path(f"{self.log}.seq")):
            path.unlink()
        self.boots += 1
        self.boot = f"boot-{self.boots}"
        self.start_another_writer()
        self.append(1)


Following.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_every_acknowledged_event_is_given_once_and_in_order = Following.TestCase
