"""A lifecycle service after another one of the same engine, and what must not be taken for that."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from crash.serving import Service, call, connect
from crash.workers import RUN

from osbuild_pika import runs
from osbuild_pika.lifecycle import LifecycleError


def test_a_socket_that_a_killed_service_left_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        service = Service(tmp_path / "runs")
        service.own()
        connection = connect(service.open(tmp_path / "device"))
        assert call(connection, "event", {"message": "served"})["seq"] > 0
        connection.close()
        service.kill()


def test_a_socket_that_is_served_is_not_replaced(tmp_path: Path) -> None:
    with Service(tmp_path / "runs") as service:
        service.own()
        node = service.open(tmp_path / "device")
        with pytest.raises(LifecycleError, match="in use"):
            service.open(tmp_path / "device")
        connect(node).close()


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device/osbuild-pika-lifecycle").write_text("mine")
    with Service(tmp_path / "runs") as service:
        service.own()
        with pytest.raises(LifecycleError, match="in use"):
            service.open(tmp_path / "device")
    assert (tmp_path / "device/osbuild-pika-lifecycle").read_text() == "mine"


def test_a_run_whose_facts_cannot_be_read_now_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runs.engine_of(os.getpid())
    runs.join(str(tmp_path), RUN, engine).close()
    real = os.open

    def failing(path: Any, *more: Any, **others: Any) -> int:
        if str(path).endswith("run.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *more, **others)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", failing)
        with pytest.raises(OSError, match="Input/output"):
            runs.join(str(tmp_path), RUN, engine)
    assert os.listdir(tmp_path) == [RUN]
    assert sorted(os.listdir(tmp_path / RUN)) == [".lock", "run.json"]
