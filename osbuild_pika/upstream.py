"""Makes the module directory with which an unmodified upstream osbuild (v191) runs our modules.

Upstream looks for modules in one directory only, `osbuild --libdir DIR`. This merges its tree and
ours into one by copying: what DIR holds is bound into sandboxes, where a link would lead nowhere.

`plan` says which file comes from where, `make_libdir` copies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from osbuild_pika.datadir import data_folder
from osbuild_pika.errors import InputError, PikaError

INSTALLED = Path("/usr/lib/osbuild")
MARKER = ".osbuild-pika-libdir"
FOLDERS = ("assemblers", "devices", "inputs", "mounts", "runners", "schemas", "sources", "stages")
NEEDED = ("runners", "schemas", "stages")  # without them it is no tree of upstream
HOST_SIDE = ("devices", "inputs", "mounts", "sources")  # run by the host's Python
OURS = (*HOST_SIDE, "stages")
PACKAGE = Path(__file__).parent
SANDBOX = ("__init__.py", "lifecycle.py", "wire.py", "inside/**/*.py")  # of our package
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MAX_SHEBANG = 255  # bytes of a first line with its #!, of Linux

Folders = Mapping[str, Mapping[str, Path]]  # folder -> name of a file -> where it lies


class Entry(NamedTuple):
    """A file of the merged directory.

    target: relative to it. is_hosted: it is ours and run by the host: its first line names the
    interpreter that has our package.
    """

    target: str
    source: Path
    is_hosted: bool = False


class Made(NamedTuple):
    """What was made: whose files are how many, and how upstream is started with it."""

    directory: Path
    osbuild: Path
    theirs: int
    ours: int
    command: str


def plan(theirs: Folders, ours: Folders, package: Mapping[str, Path]) -> list[Entry]:
    """Say which files the merged directory holds, and from where.

    package: files of our package that sandboxes need. Of modules of one name upstream's wins,
    with what describes it: its schema never stands beside our program.
    """
    entries = [
        Entry(f"{folder}/{name}", source)
        for folder, files in theirs.items()
        for name, source in files.items()
    ]
    for folder, files in ours.items():
        taken = set(map(module_of, theirs.get(folder, {})))
        entries += [
            Entry(f"{folder}/{name}", source, folder in HOST_SIDE)
            for name, source in files.items()
            if module_of(name) not in taken
        ]
    return entries + [Entry(f"osbuild_pika/{name}", path) for name, path in package.items()]


def module_of(name: str) -> str:
    """The module that a file belongs to: `X` and `X.meta.json` are those of X."""
    return name.removesuffix(".meta.json")


def shebang_of(interpreter: str) -> bytes:
    """The first line that names an interpreter. Raises InputError if none can."""
    line = b"#!" + os.fsencode(interpreter)
    if interpreter.split() != [interpreter] or len(line) > MAX_SHEBANG:
        raise InputError(
            f"{interpreter or 'the interpreter'}: cannot stand in the first line of a program: "
            f"its path must have 1 to {MAX_SHEBANG - 2} bytes and no blanks; "
            "install osbuild-pika in another place"
        )
    return line


def with_shebang(program: bytes, shebang: bytes) -> bytes:
    """A Python program with another first line; anything else as it is."""
    first, newline, rest = program.partition(b"\n")
    is_python = first.startswith(b"#!") and b"python" in first
    return shebang + newline + rest if is_python else program


def make_libdir(directory: Path, osbuild: Path | None, interpreter: str) -> Made:
    """Make, or make anew, the merged directory; it is whole or as it was before.

    directory: what it becomes; not there yet, or made by this. osbuild: a checkout of upstream or
    its installed module directory; None: where packages install that. interpreter: a Python that
    finds our package by itself; upstream gives our services a PYTHONPATH of its own.
    Raises InputError for a wrong argument, PikaError if copying fails.
    """
    place = Path(os.path.abspath(directory))
    shebang = shebang_of(interpreter)
    try:
        check_place(place)
        upstream = find_upstream(osbuild, place)
        theirs = {folder: files_in(upstream / folder) for folder in FOLDERS}
        entries = plan(theirs, our_files(), package_files())
        if any(entry.is_hosted for entry in entries):
            check_interpreter(interpreter)
        with place_beside(place) as beside:
            copy(entries, beside / "new", shebang)
            check_place(place)  # somebody may have come meanwhile
            put(beside / "new", place)
    except OSError as error:
        raise PikaError(f"{error.filename or place}: {error.strerror or error}") from error
    count = sum(map(len, theirs.values()))
    is_checkout = (upstream / "osbuild/__main__.py").is_file()
    start = f"cd {shlex.quote(str(upstream))} && python3 -m osbuild" if is_checkout else "osbuild"
    command = f"{start} --libdir {shlex.quote(str(place))}"
    return Made(place, upstream, count, len(entries) - count, command)


def find_upstream(osbuild: Path | None, place: Path) -> Path:
    """The root of upstream's tree, absolute. Raises InputError if it is none."""
    if osbuild is None and not INSTALLED.is_dir():
        raise InputError(f"{INSTALLED}: not there; name upstream's checkout with --osbuild PATH")
    root = Path(os.path.abspath(osbuild or INSTALLED))
    missing = [folder for folder in NEEDED if not (root / folder).is_dir()]
    if missing:
        raise InputError(f"{root}: holds no {missing[0]}/; it is no tree of upstream osbuild")
    if (root / MARKER).exists():
        raise InputError(f"{root}: was made by osbuild-pika; name upstream's own tree")
    if root.resolve().is_relative_to(place.resolve()):
        raise InputError(f"{place}: holds the upstream tree {root}; name another DIR")
    return root


def check_place(place: Path) -> None:
    """Refuse a place that is not ours to replace."""
    if not place.parent.is_dir():
        raise InputError(f"{place}: cannot be made: {place.parent} is no directory")
    if os.path.lexists(place) and (place.is_symlink() or not (place / MARKER).is_file()):
        raise InputError(f"{place}: is there already, and not made by osbuild-pika; name another")


def files_in(folder: Path) -> dict[str, Path]:
    """The files right in a folder; none if it is not there. What lies deeper are tests.

    Raises InputError for a link that leads nowhere.
    """
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if not path.exists():
            raise InputError(f"{path}: is a link that leads nowhere")
        if path.is_file() and not path.name.startswith("."):
            found[path.name] = path
    return found


def our_files() -> dict[str, dict[str, Path]]:
    found = {}
    for folder in OURS:
        with contextlib.suppress(FileNotFoundError):  # not each of them has to be there
            found[folder] = files_in(data_folder(folder))
    return found


def package_files() -> dict[str, Path]:
    paths = [path for pattern in SANDBOX for path in sorted(PACKAGE.glob(pattern))]
    return {str(path.relative_to(PACKAGE)): path for path in paths}


def check_interpreter(interpreter: str) -> None:
    """Refuse an interpreter that does not find our package without PYTHONPATH's help."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [interpreter, "-c", "import osbuild_pika.host"]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"{interpreter}: does not find osbuild_pika by itself; install it there")


@contextlib.contextmanager
def place_beside(place: Path) -> Iterator[Path]:
    """A new directory on the same file system, gone at the end whatever happens but SIGKILL.

    SIGINT and SIGTERM wait while it is made and while it is removed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield beside
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            shutil.rmtree(beside)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def copy(entries: Iterable[Entry], target: Path, shebang: bytes) -> None:
    """Copy files with their run bits to a new directory; links become what they lead to.

    Its osbuild/ is empty: then upstream binds the package that it runs from there. It would take
    a copy for that package, and its services would find our few files beside it first.
    """
    for folder in ("", "osbuild", *FOLDERS):
        (target / folder).mkdir()
    (target / MARKER).write_text("Made by `osbuild-pika upstream libdir`, which may replace it.\n")
    for entry in entries:
        path = target / entry.target
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.is_hosted:
            path.write_bytes(with_shebang(entry.source.read_bytes(), shebang))
            shutil.copymode(entry.source, path)
        else:
            shutil.copy(entry.source, path)


def put(new: Path, place: Path) -> None:
    """Give `new` its place; what was made there earlier is beside it then, to be removed."""
    if not place.exists():
        new.rename(place)
        return
    try:
        exchange(new, place)
    except (AttributeError, OSError):  # an older libc, a file system that cannot
        put_in_two_steps(new, place)


def put_in_two_steps(new: Path, place: Path) -> None:
    """As `put`; between its steps, which only SIGKILL parts, the place is empty."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        old = place.rename(new.parent / "old")
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step. Raises OSError, AttributeError without renameat2(2)."""
    at_cwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(at_cwd, names[0], at_cwd, names[1], rename_exchange):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
