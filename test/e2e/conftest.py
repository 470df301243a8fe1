"""One Incus for all tests of a session (of a worker, with xdist): see examples/private_incus.py."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import guests
import private_incus
import pytest

from osbuild_pika.incus.client import Client


@pytest.fixture(scope="session")
def incus() -> Iterator[Path]:
    """The directory of a daemon of our own, for `private_incus`."""
    problem = private_incus.why_not() or guests.why_not()
    if problem:
        pytest.skip(problem)
    directory = Path(tempfile.mkdtemp(prefix="pi.", dir="/tmp"))  # a short path
    try:
        with private_incus.running(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def client(incus: Path) -> Iterator[Client]:
    """A connection; what the test made in Incus is deleted behind it."""
    from osbuild_pika.incus import images, instances

    with Client(str(private_incus.places(incus).socket)) as client:
        yield client
        for each in client.get("/1.0/instances", recursion="1"):
            instances.delete(client, each["name"])
        for image in images.all_images(client):
            images.delete(client, image["fingerprint"])
