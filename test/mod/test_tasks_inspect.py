"""What inspect says is what run does, with its reasons."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from task_objects import (
    EITHER,
    Recorder,
    asking,
    call,
    chain,
    do,
    made,
    predicted,
    reasons,
    recording,
    run,
)

NAMES = [f"t{n:02}" for n in range(12)]
KINDS = ("hash", "invalidator", "slow_invalidator", "check_completed")


class Stop(Exception):
    """What ends a run in the middle."""


@EITHER
@pytest.mark.parametrize("done", range(len(NAMES) + 1))
def test_each_prefix_of_a_chain_is_predicted(tmp_path: Path, done: int, is_async: bool) -> None:
    obj = chain([*NAMES, "end"], is_async)(tmp_path)
    stop = [*NAMES, "end"][done]
    obj.says[stop] = Stop()
    with pytest.raises(Stop):
        run(obj)
    assert obj.ran == [*NAMES, "end"][: done + 1]
    obj.says.clear()
    expected = predicted(obj)
    assert expected == [*NAMES, "end"][done:]
    assert run(obj) == expected
    assert predicted(obj) == run(obj) == []


@EITHER
@pytest.mark.parametrize("place", range(len(NAMES)))
def test_each_change_in_a_chain_is_predicted(tmp_path: Path, place: int, is_async: bool) -> None:
    obj = chain(NAMES, is_async)(tmp_path)
    run(obj)
    name = NAMES[place]
    call(obj, name)
    assert predicted(obj) == run(obj) == NAMES[place + 1 :]
    obj.delete_stamp(name)
    assert predicted(obj) == run(obj) == NAMES[place:]
    obj.create_stamp(name, "another hash")
    assert predicted(obj) == run(obj) == NAMES[place:]


def scramble(obj: Recorder, chance: random.Random) -> None:
    """Change a few things of which tasks depend."""
    for name in chance.sample(NAMES, 3):
        what = chance.choice(("delete", "call", "stamp", "damage", "hash", "invalidator"))
        if what == "delete":
            obj.delete_stamp(name)
        elif what == "call":
            call(obj, name)
        elif what == "stamp":
            obj.create_stamp(name, "another")
        elif what == "damage":
            obj.stamp_path.mkdir(parents=True, exist_ok=True)
            (obj.stamp_path / f".stamp-{name}.json").write_text('{"v": 1')
        else:
            obj.says[f"{name}.{what}"] = chance.choice(("", "1", "2"))


def drawn(chance: random.Random) -> type[Recorder]:
    """A class whose tasks have any functions, plain and async; only the first is checked: of
    others nobody can know what they will say once what is before them has run."""
    tasks: dict[str, Any] = {}
    for name in NAMES:
        is_async = chance.random() < 0.5
        task = recording(name, is_async)
        kinds = chance.sample(KINDS[:3] if tasks else KINDS, chance.randrange(3))
        tasks[name] = asking(task, is_async, *kinds, prefix=f"{name}.")
    return made(**tasks)


@pytest.mark.parametrize("seed", range(16))
def test_any_state_of_any_chain_is_predicted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    obj = drawn(chance)(tmp_path)
    obj.says = {f"{name}.{kind}": "1" for name in NAMES for kind in KINDS[:3]}
    obj.says["t00.check_completed"] = chance.random() < 0.5
    for _ in range(4):
        expensive = chance.random() < 0.5
        scramble(obj, chance)
        expected = predicted(obj, expensive=expensive)
        assert run(obj, expensive=expensive) == expected


def test_each_inspection_says_why_and_when(tmp_path: Path) -> None:
    a = asking(recording("a"), False, "hash")
    b = asking(recording("b"), False, "invalidator")
    obj = made(a=a, b=b, c=recording("c"), d=recording("d"))(tmp_path)
    obj.says |= {"hash": "1", "invalidator": True}
    first = do(obj.inspect_setup_tasks())
    assert first[0][:5] == ("a", "do a", True, "not done yet", None)
    assert [each.reason for each in first[1:]] == ["not done yet"] * 3
    run(obj)
    assert reasons(obj) == ["done"] * 4
    obj.says["invalidator"] = False
    assert reasons(obj) == ["done", "it is no longer valid", "follows b", "follows b"]
    obj.says |= {"hash": "2", "invalidator": True}
    assert reasons(obj) == ["the hash differs", *["follows a"] * 3]
    obj.says["hash"] = "1"
    call(obj, "b")
    assert reasons(obj) == ["done", "done", "b ran later", "b ran later"]
    stamp = obj.check_stamp("c")
    assert stamp is not None
    assert do(obj.inspect_setup_tasks())[2].last_run_s == stamp.time_ns / 1e9


def test_an_answer_that_may_change_is_not_certain(tmp_path: Path) -> None:
    first = recording("a")
    obj = made(a=first, b=asking(recording("b"), False, "check_completed"))(tmp_path)
    obj.says["check_completed"] = True
    assert [each.is_certain for each in do(obj.inspect_setup_tasks())] == [True, False]
    run(obj)
    assert [each.is_certain for each in do(obj.inspect_setup_tasks())] == [True, True]
