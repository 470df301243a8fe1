"""One Incus and the example images for all tests of a session (of a worker, with xdist)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import guests
import private_incus
import pytest
import workshop
from workshop import Workshop

from osbuild_pika.incus.client import Client

BOTH = "outputs: [incus-unified, incus-split]\n"


@pytest.fixture(scope="session")
def incus() -> Iterator[Path]:
    """The directory of a daemon of our own, for `examples/private_incus.py`."""
    problem = private_incus.why_not() or guests.why_not()
    if problem:
        pytest.skip(problem)
    directory = Path(tempfile.mkdtemp(prefix="pi.", dir="/tmp"))  # a short path
    try:
        with private_incus.running(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """All examples, built in one store."""
    workshop.need()
    made = Workshop(tmp_path_factory.mktemp("images"))
    made.build(made.define("tiny"))
    made.build(made.define("debian-12", BOTH))
    made.build(made.define("web"))
    return made


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


@pytest.fixture(scope="module")
def daemon() -> Iterator[Path]:
    """The directory of an Incus whose guests get addresses by DHCP."""
    problem = private_incus.why_not()
    if problem:
        pytest.skip(problem)
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed: .ci/incus does it")
    directory = Path(tempfile.mkdtemp(prefix="pi.", dir="/tmp"))  # a short path
    try:
        with private_incus.running(directory):
            private_incus.add_network(directory)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
