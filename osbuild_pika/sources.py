"""Sources: host services that get content from outside and put it where inputs find it.

`SourceService` is the base of the executables in sources/. Content lies in
<cache>/<type of content>/<checksum>, as upstream's (v191), and gets this name only after it was
verified and is durable. What is not whole yet has the same name below `.unverified/`; a later
call goes on with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from functools import partial

from osbuild_pika import host, wire
from osbuild_pika.errors import PikaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO, Any

    Filling = Iterator[str]
    Fill = Callable[[str, IO[bytes]], Filling]

UNVERIFIED = ".unverified"
PROGRESS_INTERVAL_S = 0.2
_CHECKSUM = re.compile(r"(md5|sha1|sha256|sha384|sha512):([0-9a-f]+)\Z")
_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_ARGUMENTS = {"download": ("items", "cache"), "copy": ("items", "cache", "dst_cache")}


class ChecksumMismatch(PikaError):
    """The content is another one. got: its checksum."""

    def __init__(self, checksum: str, got: str) -> None:
        super().__init__(f"Checksum mismatch for {checksum}")
        self.got = got


def is_checksum(name: str) -> bool:
    """Whether a name is a whole checksum, and so may be a file's name."""
    found = _CHECKSUM.match(name)
    return found is not None and len(found[2]) == _DIGITS[found[1]]


class Cache:
    """The content of one type. Several processes may use one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        os.makedirs(os.path.join(directory, UNVERIFIED), exist_ok=True)

    def path(self, checksum: str) -> str:
        return os.path.join(self.directory, checksum)

    def has(self, checksum: str) -> bool:
        path = self.path(checksum)
        return os.path.isfile(path) and not os.path.islink(path)

    @contextlib.contextmanager
    def unverified(self, checksum: str) -> Iterator[IO[bytes] | None]:
        """The file to fill, with what an earlier call has left in it; nobody else has it.

        Waits for who has it. None: the content has come meanwhile.
        """
        path = os.path.join(self.directory, UNVERIFIED, checksum)
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o644), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self.has(checksum):
                    if _is_at(path, file):  # it was made only now
                        os.unlink(path)
                    yield None
                    return
                # Who had it has renamed or removed it, and failed since then: open the new one.
                if _is_at(path, file):
                    yield file
                    return

    def keep(self, checksum: str, file: IO[bytes]) -> None:
        """Give a filled file its name. Raises ChecksumMismatch; the file is empty then."""
        import hashlib  # loads OpenSSL: not where all is cached

        file.flush()
        file.seek(0)
        algorithm = checksum.partition(":")[0]
        got = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"  # type: ignore[arg-type]
        if got != checksum:
            file.seek(0)
            file.truncate()
            raise ChecksumMismatch(checksum, got)
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
        os.rename(os.path.join(self.directory, UNVERIFIED, checksum), self.path(checksum))
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def get(self, checksum: str, fill: Fill) -> None:
        """Get content. Raises PikaError, OSError.

        fill: fills the file and yields from where; it is asked again if that was wrong.
        """
        with self.unverified(checksum) as file:
            if file is None:
                return
            wrong = PikaError("there is nothing to get it from")
            for origin in fill(checksum, file):
                try:
                    self.keep(checksum, file)
                except ChecksumMismatch as error:
                    more = f": {origin} has {error.got}" if origin else ""
                    wrong = PikaError(f"{error}{more}")
                else:
                    return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, UNVERIFIED, checksum))
            raise wrong


class SourceService(host.Service):
    """Base of a source's executable: implement `fill`."""

    content_type = "org.osbuild.files"
    workers = 1  # how many items are got at once

    def fill(self, checksum: str, item: Any, file: IO[bytes]) -> Filling:
        """Fill the file, which may hold the begin of the content, and yield from where it is
        ("": that goes without saying). It is verified then; who goes on was wrong.

        Raises PikaError, OSError. Runs in one of `workers` threads.
        """
        raise NotImplementedError

    def progress(self) -> Any:
        """What is signalled while items are got; None: nothing."""
        return None

    def dispatch(self, name: str, args: Any, fds: Sequence[int]) -> tuple[Any, Sequence[int]]:
        if name not in _ARGUMENTS:
            return super().dispatch(name, args, fds)
        if not isinstance(args, dict) or not isinstance(args.get("items"), dict):
            raise wire.ProtocolError(f"{name} needs an object with items")
        for each in _ARGUMENTS[name][1:]:
            if not isinstance(args.get(each), str):
                raise wire.ProtocolError(f"the argument {each} of {name} is missing")
        return self.download(args) if name == "download" else self.copy(args), ()

    def download(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Get all items that are not there; returns upstream's result."""
        cache = Cache(os.path.join(args["cache"], self.content_type))
        items = args["items"]
        cached = {checksum for checksum in items if is_checksum(checksum) and cache.has(checksum)}

        def fill(checksum: str, file: IO[bytes]) -> Filling:
            return self.fill(checksum, items[checksum], file)

        missing = [checksum for checksum in items if checksum not in cached]
        errors = self._get_all(partial(_get, cache, fill), missing)
        results = [
            _result(errors.get(each, ""), checksum=each, cached=each in cached) for each in items
        ]
        return _results(self.service_id.removeprefix("source/"), results)

    def _get_all(self, get: Callable[[str], str], names: list[str]) -> dict[str, str]:
        """Get items, and signal the progress meanwhile. Returns their errors."""
        if self.workers == 1 or not names:
            return {name: get(name) for name in names}
        from concurrent import futures

        with futures.ThreadPoolExecutor(self.workers) as pool:
            running = {pool.submit(get, name): name for name in names}
            waiting, last = set(running), None
            while waiting:
                waiting = futures.wait(waiting, PROGRESS_INTERVAL_S)[1]
                if (now := self.progress()) != last:
                    self.emit_signal(now)
                    last = now
        return {name: future.result() for future, name in running.items()}

    def copy(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Copy items to the same place of another cache; returns upstream's result."""
        source = Cache(os.path.join(args["cache"], self.content_type))
        target = Cache(os.path.join(args["dst_cache"], self.content_type))

        def fill(checksum: str, file: IO[bytes]) -> Filling:
            import shutil

            with open(source.path(checksum), "rb") as content:
                file.truncate(0)
                shutil.copyfileobj(content, file)
            yield source.path(checksum)

        results = [_result(_get(target, fill, each), checksum=each) for each in args["items"]]
        return _results(self.service_id, results)


def _is_at(path: str, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _get(cache: Cache, fill: Fill, checksum: str) -> str:
    """Get an item; returns why that failed, "" if it did not."""
    if not is_checksum(checksum):
        return f"{ascii(checksum)[:160]} is no checksum"
    try:
        cache.get(checksum, fill)
    except OSError as error:  # a full disk does not say of what; a file says it as upstream's does
        return str(error) if error.filename else f"{cache.directory}: {error.strerror or error}"
    except PikaError as error:
        return str(error) or type(error).__name__
    return ""


def _result(error: str, **metadata: Any) -> dict[str, Any]:
    return {"success": not error, "metadata": metadata, "error": error}


def _results(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Upstream's form of all results."""
    errors = [each["error"] for each in results if each["error"]]
    end = f"unsuccessfully: {errors[-1]}" if errors else "successfully"
    return {
        "name": f"source {name}",
        "source_type": name,
        "success": not errors,
        "output": f"source {name} finished {end}",
        "results": results,
    }
