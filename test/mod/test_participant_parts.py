"""What a participant has around its workitems: URLs, a file server, notifiers, the handler."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from osbuild_pika.errors import ExitCode, InputError
from osbuild_pika.participant import notify, serve, site
from osbuild_pika.participant.handler import ParticipantHandler
from osbuild_pika.participant.request import BusyError
from osbuild_pika.participant.site import Site

IMAGE = {"kickstart": "lang C", "image_id": "i1", "image_type": "rootfs", "name": "little"}


def wi(**image: Any) -> dict[str, Any]:
    return {"fields": {"image": {**IMAGE, **image}}}


def site_of(path: Path) -> Site:
    return Site(str(path / "d"), str(path / "store"))


@pytest.mark.parametrize(
    "url", ["", "ftp://h/", "http://", "http://h/?x", "http://u:p@h/", "http://h/ x", "http://[h"]
)
def test_a_base_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no base URL"):
        site.check_base_url(url)


def test_urls_are_quoted() -> None:
    assert Site("d", "s", "http://h/base/").url("a b", "c?") == "http://h/base/a%20b/c%3F"


@pytest.mark.parametrize("text", ["", "8080", "host", "h:x", "h:99999", "u@h:1", "h:1/x", ":80"])
def test_an_address_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no address"):
        serve.address(text)


def test_addresses() -> None:
    assert serve.address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert serve.address("[::1]:80") == ("::1", 80)


def test_only_files_that_no_link_and_no_hidden_name_leads_to_are_found(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("x")
    (tmp_path / "d/.hidden").write_text("x")
    (tmp_path / "d/link").symlink_to("file")
    (tmp_path / "link").symlink_to("d")
    root = str(tmp_path)
    assert serve.find(root, "d/file")[0] == f"{root}/d/file"
    assert serve.find(root, "d")[0] == f"{root}/d"
    bad = ("d/.hidden", "d/link", "link/file", "../x", "d/../d/file", "d/file/x", "no", "d/no")
    assert [serve.find(root, each)[1] for each in bad] == [None] * len(bad)


def test_types_are_those_of_the_results() -> None:
    names = ("a.tar.zst", "a.squashfs", "a.log", "a.json", "index.html", "events.jsonl", "x")
    assert [serve.type_of(each) for each in names] == [
        "application/zstd",
        "application/vnd.squashfs",
        "text/plain; charset=utf-8",
        "application/json",
        "text/html; charset=utf-8",
        "application/jsonl",
        "application/octet-stream",
    ]


def test_who_cannot_be_told_is_said_and_changes_nothing() -> None:
    said: list[str] = []
    tell = notify.notifier(("false",), None, said.append)
    tell("DONE", {})
    notify.notifier(("/does/not/exist",), None, said.append)("DONE", {})
    notify.notifier((), "http://127.0.0.1:1/x", said.append)("DONE", {})
    assert said[0] == "false: exited with status 1"
    assert len(said) == 3


def test_a_url_is_posted_the_status() -> None:
    got: list[tuple[str, Any]] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(204 if self.path == "/good" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    said: list[str] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        for path in ("good", "bad"):
            url = f"http://127.0.0.1:{server.server_port}/{path}"
            notify.notifier((), url, said.append)("ERROR", {"error": "no"})
        server.shutdown()
        thread.join()
    assert got[0] == ("application/json", {"status": "ERROR", "image": {"error": "no"}})
    assert [each.rpartition(": ")[2] for each in said] == ["answered 500"]


def test_a_command_is_given_the_status_in_no_shell(tmp_path: Path) -> None:
    words = ("tee", str(tmp_path / "a; b"))
    notify.notifier(words, None, pytest.fail)("IN QUEUE", {"image_id": "i1"})
    got = json.loads((tmp_path / "a; b").read_text())
    assert got == {"status": "IN QUEUE", "image": {"image_id": "i1"}}


def test_a_handler_that_is_stopped_is_started_again(tmp_path: Path) -> None:
    handler = ParticipantHandler(site_of(tmp_path))
    handler.handle_lifecycle_control("stop")
    with pytest.raises(BusyError, match="is stopped"):
        handler.handle_wi(wi())
    handler.handle_lifecycle_control("start")
    assert not handler.is_stopped
    handler.handle_wi_control("cancel")  # nothing is in hand: nothing happens


def test_a_handler_answers_and_tells(tmp_path: Path) -> None:
    told: list[str] = []
    handler = ParticipantHandler(site_of(tmp_path), lambda status, _: told.append(status))
    answer = handler.handle_wi(wi(name="../x"))
    assert answer["fields"]["image"]["error"].startswith("image.name: '../x' is no name")
    assert told == ["IN QUEUE", "ERROR"]


def test_a_process_that_dies_is_an_answer(tmp_path: Path) -> None:
    handler = ParticipantHandler(site_of(tmp_path), command=("false",))
    answered = handler.answer(wi(image_id="/"))
    assert answered.code == ExitCode.FAILED
    assert answered.workitem["fields"]["image"]["error"] == "its process exited with status 1"
