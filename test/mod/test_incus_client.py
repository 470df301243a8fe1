"""What an Incus that does not answer as it should becomes: one line of ours."""

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest
from click.testing import CliRunner

from osbuild_pika.cli.verbs import osbuild_pika
from osbuild_pika.errors import ExitCode, HostError, InputError
from osbuild_pika.incus import client as incus_client
from osbuild_pika.incus.client import Client, IncusError, default_socket, stage_of

Serve = Callable[[dict[str, tuple[int, bytes]]], str]
TRUSTED = {"auth": "trusted"}


class Server(ThreadingMixIn, UnixStreamServer):
    """Answers by path, with a status and bytes. b"": breaks off."""

    daemon_threads = True
    answers: dict[str, tuple[int, bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = self.server.answers[self.path.partition("?")[0]]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) or 10))
        if status == 202:
            self.send_header("Location", "/1.0/operations/1")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = not body

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def answer(metadata: Any, error: str = "") -> bytes:
    return json.dumps({"type": "sync", "error": error, "metadata": metadata}).encode()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    path = str(tmp_path / "s")
    with Server(path, Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()

        def answering(answers: dict[str, tuple[int, bytes]]) -> str:
            server.answers = answers
            return path

        yield answering
        server.shutdown()
        serving.join()


def test_its_facts_are_told(serve: Serve) -> None:
    project = {"/1.0/projects/default": (200, answer({}))}
    with Client(serve({"/1.0": (200, answer(TRUSTED)), **project})) as client:
        assert client.server() == TRUSTED


def test_who_is_not_trusted_is_told_what_to_do(serve: Serve) -> None:
    with (
        Client(serve({"/1.0": (200, answer({"auth": "untrusted"}))})) as client,
        pytest.raises(HostError, match=r"does not trust this user; .*incus-admin"),
    ):
        client.server()


def test_what_is_forbidden_names_the_group(serve: Serve) -> None:
    with (
        Client(serve({"/1.0": (403, answer(None, "not authorized"))})) as client,
        pytest.raises(HostError, match=r"not authorized; .*incus-admin"),
    ):
        client.server()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"text"', b"\xff\xfe"])
def test_what_is_no_incus_is_said(body: bytes, serve: Serve) -> None:
    with (
        Client(serve({"/1.0": (200, body)})) as client,
        pytest.raises(HostError, match=r"/s: /1.0: the answer is not Incus's"),
    ):
        client.server()


def test_an_answer_that_breaks_off_is_said(serve: Serve) -> None:
    with (
        Client(serve({"/1.0": (200, b"")})) as client,
        pytest.raises(HostError, match="Incus broke off"),
    ):
        client.server()


def test_an_answer_that_does_not_come_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incus_client, "ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        match = "Incus gave no answer in time"
        with Client(str(tmp_path / "s")) as client, pytest.raises(HostError, match=match):
            client.server()


def test_foreign_words_are_safe_to_show(serve: Serve) -> None:
    path = serve({"/1.0": (400, answer(None, "no\x1b[2J\nforged"))})
    with Client(path) as client, pytest.raises(IncusError) as caught:
        client.get("/1.0")
    assert str(caught.value) == "/1.0: no\ufffd[2J forged"
    assert (caught.value.code, caught.value.exit_code) == (400, ExitCode.HOST_NOT_FIT)


def test_what_is_not_there_is_none(serve: Serve) -> None:
    with Client(serve({"/1.0/x": (404, answer(None, "Not Found"))})) as client:
        assert client.find("/1.0/x") is None


def test_an_operation_that_failed_has_its_own_words(serve: Serve) -> None:
    failed = {"status_code": 400, "status": "Failure", "err": "no space"}
    answers = {
        "/1.0/x": (202, answer({"status_code": 103})),
        "/1.0/operations/1": (200, answer(failed)),
    }
    told: list[str] = []
    with Client(serve(answers)) as client, pytest.raises(IncusError, match="it: no space"):
        client.call("POST", "/1.0/x", {}, "it", told.append)
    assert told == [""]


@contextmanager
def nobody() -> Iterator[None]:
    """As a user that may do nothing, where we are root."""
    before = os.geteuid()
    os.seteuid(before or 65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_who_may_not_connect_is_told_of_the_group() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        Path(directory).chmod(0o755)
        path = os.path.join(directory, "s")
        listening.bind(path)
        listening.listen()
        os.chmod(path, 0)
        match = r"does not let this user in; .*incus-admin"
        with nobody(), pytest.raises(HostError, match=match):
            Client(path)


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    with pytest.raises(HostError, match="Incus does not run; start it"):
        Client(str(tmp_path / "s"))


@pytest.mark.parametrize("name", ["none", "file/none"])
def test_no_incus_is_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"no Incus is there; .*--socket"):
        Client(str(tmp_path / name))


def test_a_path_that_can_be_no_socket_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no socket of Incus"):
        Client(str(tmp_path / ("x" * 120)))


def test_where_the_socket_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INCUS_SOCKET", "INCUS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(incus_client, "SOCKETS", (str(tmp_path / "a"), str(tmp_path / "b")))
    assert default_socket() == str(tmp_path / "b")
    (tmp_path / "a").touch()
    assert default_socket() == str(tmp_path / "a")
    monkeypatch.setenv("INCUS_DIR", "/d")
    assert default_socket() == "/d/unix.socket"
    monkeypatch.setenv("INCUS_SOCKET", "/s")
    assert default_socket() == "/s"


def test_without_httpx_the_verb_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    done = CliRunner().invoke(osbuild_pika, ["launch", "web", "w1"])
    assert done.exit_code == 3
    assert "pip install 'osbuild-pika[incus]'" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("web", "1w"),
        ("web", "w_1"),
        ("web", "w" * 64),
        ("web", "\x1b[2J"),
        ("web", "w1", "--config", "novalue"),
        ("web", "w1", "--config", "=value"),
        ("web", "w1", "--timeout", "soon"),
        ("web", "w1", "--wait", "happy"),
        ("web", "w1", "--alias", ""),
        ("web",),
    ],
)
def test_wrong_arguments_are_told_in_a_line(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(osbuild_pika, ["launch", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_how_far_an_operation_is() -> None:
    unpacking = {"x_unpack_progress": "Unpacking image: 42% (3MB/s)", "progress": {}}
    assert stage_of(unpacking) == "Unpacking image: 42%"
    assert [stage_of(each) for each in (None, {}, {"x_progress": 3})] == ["", "", ""]
