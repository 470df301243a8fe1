"""How stages and inputs speak to the engine, also in a process with many descriptors."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.engine.stageapi import StageApi, StageException
from osbuild_pika.engine.storeapi import StoreApi, Trees
from osbuild_pika.wire import Connection, readable

MANY = 1100  # select takes 1,024


@pytest.fixture(name="many_descriptors", autouse=True)
def fixture_many_descriptors() -> Iterator[None]:
    """What is opened now has a number that select does not take."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], MANY + 200), limits[1]))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(MANY)]
    yield
    for fd in opened:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def said(path: Path, message: dict[str, Any]) -> Connection:
    connection = Connection.connect(str(path))
    connection.send(json.dumps(message).encode())
    return connection


def test_what_a_stage_said_before_its_end_is_heard(tmp_path: Path) -> None:
    exception = {"type": "OSError", "value": "no", "traceback": "line 1"}
    with StageApi(tmp_path / "osbuild") as api:
        said(api.path, {"method": "exception", "exception": exception}).close()
        api.drain()
        assert api.exception == StageException("OSError", "no", "line 1")
        assert api.filenos()
        assert min(api.filenos()) > MANY


def test_an_input_is_told_of_trees_and_sources(tmp_path: Path) -> None:
    trees = Trees({"ab": "/shown"}, "/sources", str(tmp_path))
    with StoreApi(tmp_path / "store", trees) as api:
        for message, path in (
            ({"method": "read-tree", "object-id": "ab"}, "/shown"),
            ({"method": "read-tree", "object-id": "cd"}, None),
            ({"method": "source", "name": "org.osbuild.files"}, "/sources/org.osbuild.files"),
        ):
            connection = said(api.path, message)
            assert readable([connection.fileno()], 10.0), f"no answer to {message}"
            answer = connection.receive()
            connection.close()
            assert answer is not None
            assert json.loads(answer[0]) == {"path": path}


def test_readable_tells_what_can_be_read_and_what_has_ended() -> None:
    full, filling = os.pipe()
    ended, ending = os.pipe()
    empty, keeping = os.pipe()
    os.write(filling, b"x")
    os.close(ending)
    assert readable([empty, full, ended], 0.0) == [full, ended]
    assert readable([empty], 0.01) == []
    for fd in (full, filling, ended, empty, keeping):
        os.close(fd)
