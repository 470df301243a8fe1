"""A stage that wants out: each of its attempts fails, for a known reason, and the host stays."""

import json
import os
from pathlib import Path

import escapes
import pytest
import staging
from escapes import Attempts


@pytest.fixture(scope="module", name="attempts")
def fixture_attempts(tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    escapes.need()
    directory = tmp_path_factory.mktemp("escape")
    tree = directory / "run/tree"
    tree.mkdir(parents=True)
    os.mknod(tree / "planted", 0o20666, os.makedev(1, 5))
    (tree / "planted").chmod(0o666)
    with escapes.targets(directory / "run") as options:
        job = staging.Job(str(directory / "run"), str(escapes.PROGRAM), options)
        job.secret = str(options["key"])
        result = staging.run(job)
    assert result.status == 0, result.output
    found: Attempts = json.loads((tree / "attempts.json").read_text())
    return found


@pytest.mark.parametrize("name", escapes.NAMES)
def test_an_attempt_fails(attempts: Attempts, name: str) -> None:
    errno, _ = attempts[name]
    assert errno in escapes.REASONS.get(name, escapes.DENIED), attempts[name]


def test_the_host_is_as_it_was(attempts: Attempts) -> None:
    assert set(attempts) == set(escapes.NAMES)
    assert not Path("/usr/osbuild-pika-escape").exists()
