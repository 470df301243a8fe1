"""Downloads over http and https: gone on with where they broke off, tried again, from mirrors.

What comes is not trusted: who asks verifies it, and asks for the next place if it is wrong. Only
http and https are spoken, also after a redirect.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import platform
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from osbuild_pika.errors import PikaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO, Any

    Asker = urllib.request.OpenerDirector

TRIES = 4
FIRST_PAUSE_S = 0.5  # doubled after each try
TIMEOUT_S = 30.0  # without a byte
SLOW_WINDOW_S, SLOW_BYTES = 30.0, 30_000  # slower than this counts as stuck, as upstream's 1000 B/s
PIECE = 256 * 1024
AGAIN = (408, 416, 425, 429, 500, 502, 503, 504)  # 416: what we have is of another file
MIRRORS = "OSBUILD_PIKA_MIRRORS"
PROXY = "OSBUILD_SOURCES_CURL_PROXY"
_TLS = "OSBUILD_SOURCES_CURL_SSL_"
_SAFE = "/%:@!$&'()*+,;=~-._"


class DownloadError(PikaError):
    """A file cannot be had from a place. may_help: whether to try again."""

    def __init__(self, message: str, may_help: bool = False) -> None:
        super().__init__(message)
        self.may_help = may_help


class Counter:
    """How many bytes have come, of how many that are known of; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done = self.total = 0

    def add(self, done: int = 0, total: int = 0) -> None:
        with self._lock:
            self.done += done
            self.total += total


# --- where a file is looked for ------------------------------------------------------------------


def mirrors(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """The host's mirrors: prefix of URLs -> prefixes to try before it. Raises PikaError."""
    text = environment.get(MIRRORS, "{}")
    try:
        found = json.loads(text)
        return {str(prefix): [str(each) for each in places] for prefix, places in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise PikaError(f"{MIRRORS} is no JSON object of lists of URLs") from None


def places(url: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The URLs to try, in order: those of the longest prefix's mirrors, then the URL itself."""
    prefixes = [prefix for prefix in known if url.startswith(prefix)]
    if not prefixes:
        return [url]
    prefix = max(prefixes, key=len)
    return [*(mirror + url[len(prefix) :] for mirror in known[prefix]), url]


def checked(url: str) -> str:
    """A URL that may be asked for, with what is no ASCII escaped. Raises DownloadError."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{ascii(url)[:200]}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise DownloadError(f"{ascii(url)[:200]}: only http and https are taken")
    if parts.username is not None or parts.password is not None:
        raise DownloadError(f"a URL at {host!a} has a password in it: use secrets instead")
    path = urllib.parse.quote(parts.path, _SAFE)
    query = urllib.parse.quote(parts.query, f"{_SAFE}?")
    return urllib.parse.urlunsplit((parts.scheme, _ascii_host(parts), path, query, ""))


def _ascii_host(parts: urllib.parse.SplitResult) -> str:
    try:
        return parts.netloc.encode("idna").decode("ascii")
    except UnicodeError:
        raise DownloadError(f"{ascii(parts.netloc)[:200]} is no host") from None


# --- how it is asked -----------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """args: request, file, code, message, headers, URL. Raises DownloadError."""
        allowed = (*args[:5], checked(args[5]))
        return super().redirect_request(*allowed)


def opener(item: Mapping[str, Any], environment: Mapping[str, str]) -> Asker:
    """What asks for an item, with its secrets; it speaks http and https only.

    item: {"url", "insecure"?, "secrets"? {"name"}}. Raises DownloadError.
    """
    context = _tls((item.get("secrets") or {}).get("name"), bool(item.get("insecure")), environment)
    proxy = environment.get(PROXY)
    proxies = {"http": proxy, "https": proxy} if proxy else None
    made = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    )
    for handler in handlers:
        made.add_handler(handler)
    made.addheaders = [("User-Agent", f"osbuild-pika (Linux.{platform.machine()})")]
    return made


def _tls(secrets: str | None, insecure: bool, environment: Mapping[str, str]) -> ssl.SSLContext:
    if secrets not in (None, "org.osbuild.mtls"):
        raise DownloadError(f"the secrets {ascii(secrets)[:80]} are unknown: use org.osbuild.mtls")
    if secrets is None:
        return _plain_tls(insecure)
    names = ("CA_CERT", "CLIENT_CERT", "CLIENT_KEY")
    authority, certificate, key = (environment.get(f"{_TLS}{name}") for name in names)
    if not certificate or not key:
        raise DownloadError(f"org.osbuild.mtls needs {_TLS}CLIENT_CERT and {_TLS}CLIENT_KEY")
    try:
        context = ssl.create_default_context(cafile=authority or None)
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise DownloadError(f"the certificates of {_TLS}* cannot be read: {error}") from None
    return _without_checks(context) if insecure else context


@functools.cache
def _plain_tls(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    return _without_checks(context) if insecure else context


def _without_checks(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- one file ------------------------------------------------------------------------------------


def fetch(urls: Sequence[str], file: IO[bytes], asker: Asker, counter: Counter) -> Iterator[str]:
    """Fill the file, which may hold its begin, and yield from which URL. Who goes on says that
    the content is wrong: it is got anew, or from the next URL.

    Raises DownloadError that names all places that failed; what has come stays in the file.
    """
    errors = []
    for url in urls:
        for _ in range(2):
            try:
                is_resumed = _get(checked(url), file, asker, counter)
            except DownloadError as error:
                errors.append(str(error))
                break
            yield url
            file.seek(0)
            file.truncate()
            if not is_resumed:
                break
    if errors:
        raise DownloadError("; ".join(errors))


def _get(url: str, file: IO[bytes], asker: Asker, counter: Counter) -> bool:
    """Get a file, with some tries. Returns whether it was gone on with."""
    is_resumed = False
    for number in range(TRIES):
        try:
            return _try(url, file, asker, counter) or is_resumed
        except DownloadError as error:
            if not error.may_help or number == TRIES - 1:
                raise
            is_resumed = file.seek(0, os.SEEK_END) > 0
            time.sleep(FIRST_PAUSE_S * 2**number)
    raise AssertionError


def _try(url: str, file: IO[bytes], asker: Asker, counter: Counter) -> bool:
    had = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310
    if had:
        request.add_header("Range", f"bytes={had}-")
    try:
        with asker.open(request, timeout=TIMEOUT_S) as answer:
            is_part = answer.status == 206
            if not is_part or not _begins_at(answer, had):
                file.seek(0)
                file.truncate()
            if is_part and not _begins_at(answer, had):
                raise DownloadError(f"{url}: answered with another part", may_help=True)
            _receive(url, answer, file, counter)
            return had > 0 and is_part
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            file.seek(0)
            file.truncate()
        raise DownloadError(f"{url}: {error.code} {error.reason}", error.code in AGAIN) from None
    except urllib.error.URLError as error:
        is_lasting = isinstance(error.reason, ssl.SSLCertVerificationError | str)
        raise DownloadError(f"{url}: {error.reason}", not is_lasting) from None
    except (OSError, http.client.HTTPException) as error:
        text = str(error) or type(error).__name__
        raise DownloadError(f"{url}: {text}", may_help=True) from None


def _begins_at(answer: Any, had: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {had}-")


def _receive(url: str, answer: Any, file: IO[bytes], counter: Counter) -> None:
    """Write what comes to the file. Raises DownloadError if it ends early or is too slow."""
    wanted = answer.length  # None: not known
    counter.add(total=wanted or 0)
    came = window = 0
    begin = time.monotonic()
    while piece := answer.read1(PIECE):
        _write(url, piece, file)
        counter.add(len(piece), 0 if wanted else len(piece))
        came += len(piece)
        window += len(piece)
        if time.monotonic() - begin > SLOW_WINDOW_S:
            if window < SLOW_BYTES:
                raise DownloadError(f"{url}: too slow: {window} bytes in {SLOW_WINDOW_S:g} s", True)
            window, begin = 0, time.monotonic()
    if wanted is not None and came < wanted:
        counter.add(total=came - wanted)
        raise DownloadError(f"{url}: ended after {came} of {wanted} bytes", may_help=True)


def _write(url: str, piece: bytes, file: IO[bytes]) -> None:
    try:
        file.write(piece)
    except OSError as error:  # the disk, not the network
        raise DownloadError(f"{url}: cannot be written: {error.strerror}") from None
