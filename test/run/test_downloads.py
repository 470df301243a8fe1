"""Downloads from a server that breaks off, redirects, lies and is not there."""

import hashlib
import http.server
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from modules import needs

from osbuild_pika import downloads
from osbuild_pika.datadir import data_folder
from osbuild_pika.host import ServiceManager
from osbuild_pika.sources import UNVERIFIED

CURL = str(data_folder("sources") / "org.osbuild.curl")
CONTENT = bytes(range(256)) * 4096  # 1 MiB
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
DEAD = "http://127.0.0.1:9/"  # nobody listens there


class Server(http.server.ThreadingHTTPServer):
    """asked: (path, Range or "") of each request. breaks: how many answers end in the middle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.breaks = 0
        self.fails: list[int] = []
        self.together = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        with self.server.lock:
            self.server.asked.append((self.path, asked))
            self.server.together += 1
            self.server.most = max(self.server.most, self.server.together)
        try:
            self.answer(self.path.lstrip("/"), asked)
        finally:
            with self.server.lock:
                self.server.together -= 1

    def answer(self, path: str, asked: str) -> None:
        if path.startswith("to/"):
            self.send_response(302)
            self.send_header("Location", path[3:])
            self.end_headers()
        elif path.startswith("gone"):
            self.send_error(404)
        elif self.server.fails:
            self.send_error(self.server.fails.pop())
        else:
            self.send_content(path, asked)

    def send_content(self, path: str, asked: str) -> None:
        content = b"x" * 1000 if path.startswith("wrong") else CONTENT
        if path.startswith("slow"):
            time.sleep(0.3)
        begin = 0
        if asked and path != "no-range":
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = len(content)
        if self.server.breaks:
            self.server.breaks -= 1
            end = begin + (end - begin) // 2
        self.wfile.write(content[begin:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="server")
def fixture_server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


Fetch = Callable[..., Any]


@pytest.fixture(name="fetch")
def fixture_fetch(tmp_path: Path) -> Fetch:
    def fetch(items: Any, **environment: str) -> Any:
        clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        lines: list[str] = []
        signals: list[Any] = []
        with ServiceManager(
            lambda _, line: lines.append(line), environment={**clean, **environment}
        ) as services:
            service = services.start("source/org.osbuild.curl", CURL)
            service.on_signal(signals.append)
            if isinstance(items, str):
                items = {CHECKSUM: items}
            arguments = {"items": items, "options": {}, "cache": str(tmp_path), "output": None}
            reply = service.call("download", arguments, timeout_s=60)
        return {**reply, "lines": lines, "signals": signals}

    return fetch


def files(tmp_path: Path) -> dict[str, bytes]:
    place = tmp_path / "org.osbuild.files"
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


def test_a_file_is_had(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    reply = fetch(f"{server.url}file")
    assert reply["success"]
    assert reply["lines"] == [f"downloaded {server.url}file"]
    assert files(tmp_path) == {CHECKSUM: CONTENT}
    size = len(CONTENT)
    assert reply["signals"][-1] == {"progress": {"done": size, "total": size, "unit": "bytes"}}
    again = fetch(f"{server.url}file")
    assert again["results"][0]["metadata"] == {"checksum": CHECKSUM, "cached": True}
    assert len(server.asked) == 1


@pytest.mark.parametrize("path", ["file", "no-range"])
def test_what_breaks_off_is_gone_on_with(
    path: str, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.breaks = 2
    assert fetch(f"{server.url}{path}")["success"]
    half = len(CONTENT) // 2
    ranges = [asked for _, asked in server.asked]
    assert ranges[:2] == ["", f"bytes={half}-"]
    assert files(tmp_path) == {CHECKSUM: CONTENT}


def test_a_later_build_goes_on_too(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    server.breaks = 99
    failed = fetch(f"{server.url}file")
    assert not failed["success"]
    assert "ended after" in failed["output"]
    assert files(tmp_path) == {}
    had = (tmp_path / "org.osbuild.files" / UNVERIFIED / CHECKSUM).stat().st_size
    server.breaks = 0
    server.asked.clear()
    assert fetch(f"{server.url}file")["success"]
    assert server.asked == [("/file", f"bytes={had}-")]


def test_what_was_left_of_another_file_is_dropped(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    place = tmp_path / "org.osbuild.files" / UNVERIFIED
    place.mkdir(parents=True)
    (place / CHECKSUM).write_bytes(b"rubbish")
    assert fetch(f"{server.url}file")["success"]
    assert files(tmp_path) == {CHECKSUM: CONTENT}


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_failure_that_may_pass_is_tried_again(status: int, server: Server, fetch: Fetch) -> None:
    server.fails = [status]
    assert fetch(f"{server.url}file")["success"]
    assert len(server.asked) == 2


def test_what_is_not_there_is_not_tried_again(server: Server, fetch: Fetch) -> None:
    reply = fetch(f"{server.url}gone")
    assert reply["results"][0]["error"] == f"{server.url}gone: 404 Not Found"
    assert len(server.asked) == 1


def test_wrong_content_never_gets_the_name(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    reply = fetch(f"{server.url}wrong")
    assert f"Checksum mismatch for {CHECKSUM}: {server.url}wrong has sha256:" in reply["output"]
    assert files(tmp_path) == {}
    assert list((tmp_path / "org.osbuild.files" / UNVERIFIED).iterdir()) == []


@pytest.mark.parametrize("mirror", ["{url}gone?", "{url}wrong?", DEAD])
def test_a_bad_mirror_is_passed_over(mirror: str, server: Server, fetch: Fetch) -> None:
    known = json.dumps({server.url: [mirror.format(url=server.url)]})
    assert fetch(f"{server.url}file", OSBUILD_PIKA_MIRRORS=known)["success"]


def test_a_mirror_comes_first(server: Server, fetch: Fetch) -> None:
    known = json.dumps({"http://example.invalid/": [f"{server.url}mirror/"]})
    assert fetch("http://example.invalid/a/b", OSBUILD_PIKA_MIRRORS=known)["success"]
    assert server.asked == [("/mirror/a/b", "")]


def test_mirrors_that_are_none_are_said(fetch: Fetch) -> None:
    assert "is no JSON object" in fetch(DEAD, OSBUILD_PIKA_MIRRORS="[1]")["output"]


def test_redirects_are_followed(server: Server, fetch: Fetch) -> None:
    assert fetch(f"{server.url}to/{server.url}file")["success"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_redirects_lead_to_the_web_only(
    target: str, server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    checksum = f"sha256:{hashlib.sha256(Path('/etc/passwd').read_bytes()).hexdigest()}"
    reply = fetch({checksum: f"{server.url}to/{target}"})
    assert not reply["success"]
    assert files(tmp_path) == {}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "only http and https are taken"),
        ("ftp://example.invalid/x", "only http and https are taken"),
        ("http:///x", "only http and https are taken"),
        ("http://[::1/x", "Invalid IPv6 URL"),
        ("http://me:secret@example.invalid/x", "has a password in it"),
        ("http://example.invalid:99999/x", "Port out of range"),
    ],
)
def test_urls_that_are_not_asked_for(url: str, said: str, fetch: Fetch) -> None:
    reply = fetch(url)
    assert said in reply["results"][0]["error"]
    assert "secret@" not in json.dumps(reply)


@pytest.mark.parametrize(
    ("name", "said"),
    [("org.osbuild.rhsm", "are unknown"), ("org.osbuild.mtls", "CLIENT_CERT and")],
)
def test_secrets_that_are_not_there(name: str, said: str, server: Server, fetch: Fetch) -> None:
    item = {"url": f"{server.url}file", "secrets": {"name": name}}
    assert said in fetch({CHECKSUM: item})["output"]
    assert server.asked == []


def test_several_at_once(server: Server, fetch: Fetch) -> None:
    items = {CHECKSUM: f"{server.url}slow"}
    for name in ("md5", "sha1", "sha384", "sha512"):
        items[f"{name}:{hashlib.new(name, CONTENT).hexdigest()}"] = f"{server.url}slow-{name}"
    assert fetch(items)["success"]
    assert server.most > 1


def test_a_proxy_is_asked(server: Server, fetch: Fetch) -> None:
    assert fetch("http://example.invalid/file", OSBUILD_SOURCES_CURL_PROXY=server.url)["success"]
    assert server.asked == [("http://example.invalid/file", "")]


@pytest.fixture(name="keys")
def fixture_keys(tmp_path: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    needs("openssl")
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    subprocess.run([*words, *names, *files], check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize("asks", [False, True], ids=["", "with a client's certificate"])
def test_certificates(asks: bool, keys: tuple[str, str], server: Server, fetch: Fetch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*keys)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(keys[0])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    item: dict[str, Any] = {"url": server.url.replace("http:", "https:") + "file"}
    assert "certificate verify failed" in fetch({CHECKSUM: item})["output"]
    variables = dict(zip(("CLIENT_CERT", "CLIENT_KEY", "CA_CERT"), (*keys, keys[0]), strict=True))
    given = {f"OSBUILD_SOURCES_CURL_SSL_{name}": value for name, value in variables.items()}
    assert fetch({CHECKSUM: {**item, "insecure": True}})["success"] is not asks
    assert fetch({CHECKSUM: {**item, "secrets": {"name": "org.osbuild.mtls"}}}, **given)["success"]


def test_what_is_no_ascii_is_escaped() -> None:
    url = "http://h/a b/\xe4%20?q=\xe4#x"
    assert downloads.checked(url) == "http://h/a%20b/%C3%A4%20?q=%C3%A4"


def test_nothing_to_get(fetch: Fetch) -> None:
    assert fetch({})["results"] == []
