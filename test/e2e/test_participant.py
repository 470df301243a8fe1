"""A Debian kickstart as a workitem: what the answer names is fetched, boots and is right."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import private_incus
import pytest
import workshop
from workshop import Workshop

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHBpa2EgcGlrYSBwaWthIHBpa2EgcGlrYSBwaWthISEh ops@test"
KICKSTART = f"""\
#version=F41
lang C.UTF-8
keyboard us
timezone Europe/Berlin --utc
network --bootproto=dhcp --hostname=pika
rootpw --lock
user --name=ops --groups=users --shell=/bin/bash --gecos="Pika Operator"
sshkey --username=ops "{KEY}"
services --enabled=nginx --disabled=ssh
reboot
%packages
nginx-light
openssh-server
%end
%post --erroronfail --log=/root/post.log
echo "made by $0 in $(hostname)" > /etc/from-post
%end
"""


class Answer(NamedTuple):
    """An answer's image, and what its URLs gave. log: of the build."""

    image: dict[str, Any]
    file: Path
    log: str


@contextmanager
def served(shop: Workshop) -> Iterator[str]:
    """What is published, served; its URL."""
    words = [*workshop.COMMAND, "participant", "serve", "spool", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        words, env=shop.variables(), cwd=shop.path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        yield process.stderr.readline().strip().rpartition(" at ")[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def fetch(url: str, path: Path) -> Path:
    subprocess.run(["curl", "-sSf", "-o", str(path), url], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def answer(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What came of the workitem, by way of the spool and HTTP."""
    pytest.importorskip("pykickstart")
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    place = Workshop(tmp_path_factory.mktemp("participant"), shop.store)
    image = {"kickstart": KICKSTART, "image_id": "web-1", "name": "web", "release": "1.0"}
    workitem = {"fields": {"image": {**image, "image_type": "incus-container"}}, "wfid": "1"}
    (place.path / "spool/in").mkdir(parents=True)
    (place.path / "spool/.one").write_text(json.dumps(workitem))
    (place.path / "spool/.one").rename(place.path / "spool/in/one.json")
    with served(place) as url:
        done = place.call("participant", "spool", "spool", "--once", "--base-url", url)
        assert done.returncode == 0, done.stderr
        got = json.loads((place.path / "spool/out/one.json").read_text())["fields"]
        assert got["result"] is True, (got["image"]["error"], got["image"]["msg"])
        file = fetch(got["image"]["image_url"], place.path / "web.tar.zst")
        log = fetch(got["image"]["logfile_url"], place.path / "log").read_text()
        fetch(got["image"]["files_url"], place.path / "index.html")
    return Answer(got["image"], file, log)


@pytest.fixture(scope="module")
def guest(answer: Answer, daemon: Path) -> tuple[Path, str]:
    """The daemon, and the name of a guest of the fetched image that has booted."""
    private_incus.incus(daemon, "image", "import", str(answer.file), "--alias", "web")
    private_incus.incus(daemon, "launch", "web", "w1")
    bus = "/run/dbus/system_bus_socket"
    inside((daemon, "w1"), "sh", "-c", f"until test -S {bus}; do sleep 0.1; done")
    return daemon, "w1"


def inside(guest: tuple[Path, str], *command: str) -> str:
    daemon, name = guest
    return private_incus.incus(daemon, "exec", name, "--", *command).decode().strip()


def test_the_answer_tells_what_was_built(answer: Answer) -> None:
    fetched = hashlib.sha256(answer.file.read_bytes()).hexdigest()
    listed = json.loads(
        (answer.file.parent / "spool/files/requests/web-1/artifacts.json").read_text()
    )
    assert [(each["url"], each["sha256"]) for each in listed] == [
        (answer.image["image_url"], fetched)
    ]
    assert "web: done in" in answer.log
    assert answer.image["msg"]["report"]["counts"]["error"] == 0
    assert "web.tar.zst" in (answer.file.parent / "index.html").read_text()


def test_the_image_boots_and_is_what_the_kickstart_says(guest: tuple[Path, str]) -> None:
    assert inside(guest, "systemctl", "is-system-running", "--wait") == "running"
    assert inside(guest, "systemctl", "is-active", "nginx") == "active"
    assert inside(guest, "sh", "-c", "systemctl is-enabled ssh || true") == "disabled"
    assert inside(guest, "getent", "passwd", "ops").endswith(":Pika Operator:/home/ops:/bin/bash")
    assert "users" in inside(guest, "id", "-nG", "ops")
    assert inside(guest, "cat", "/home/ops/.ssh/authorized_keys") == KEY
    assert inside(guest, "stat", "-c", "%U %a", "/home/ops/.ssh/authorized_keys") == "ops 600"
    assert inside(guest, "readlink", "-f", "/etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
    assert inside(guest, "cat", "/etc/from-post").startswith("made by ")
    assert inside(guest, "passwd", "-S", "root").split()[1] == "L"
