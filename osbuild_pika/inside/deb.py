"""Debian packages: a tree from nothing, more packages into a tree, or nothing but their files.

All packages come as inputs, named by their checksums: a stage never resolves dependencies and has
no network. mmdebstrap makes the first tree out of a flat repository of just these packages; apt,
in the tree, installs more out of another one. Afterwards dpkg's database has to say what the lock
says, and of the repository nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from osbuild_pika.inside import dpkg, intree
from osbuild_pika.inside.places import read_text, resolve
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from osbuild_pika.inside.dpkg import Package
    from osbuild_pika.inside.reporter import Reporter

# Program of the build root -> Debian package.
PROGRAMS = {"mmdebstrap": "mmdebstrap", "apt-ftparchive": "apt-utils", "dpkg-deb": "dpkg"}
STATUS, MARKS = "/var/lib/dpkg/status", "/var/lib/apt/extended_states"
SHOWN = "/run/osbuild-pika"  # where the tree's apt finds the repository
MAX_STATUS = 64 * 1024 * 1024  # characters
# What mmdebstrap configures for its own time; of the image it says nothing.
_LEFT = (
    *("etc/apt/sources.list", "etc/apt/sources.list.d/0000main.sources"),
    *("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"),
    *("etc/resolv.conf", "etc/hostname"),
)
_CACHES = ("var/lib/apt/lists", "var/cache/apt/archives")
_LIB64 = ("amd64", "ppc64el", "loong64")  # where the loader is below /lib64
_FTPARCHIVE_CONF = """
APT::FTPArchive { MD5 "false"; SHA1 "false"; SHA512 "false"; };
"""
_APT = """
set -e
mkdir -p /run/apt/lists/partial /run/apt/cache/archives/partial /run/apt/log
apt-get update
exec apt-get install "$@"
"""
_APT_CONF = f"""
Dir::Etc::SourceList "{SHOWN}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "/run/apt/lists";
Dir::Cache "/run/apt/cache";
Dir::Log "/run/apt/log";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Get::Remove "false";
APT::Color "false";
Acquire::Languages "none";
Dpkg::Use-Pty "false";
Dpkg::Progress-Fancy "false";
DPkg::Options {{ "--force-unsafe-io"; }};
DPkg::Post-Invoke {{}};
"""


def bootstrap(
    tree: Path, architecture: str, packages: Sequence[Package], source: str, report: Reporter
) -> None:
    """Make a Debian tree of the packages in an empty one. source: the directory of the inputs.

    Raises StageError.
    """
    _merge_usr(tree, architecture)
    with _repository(packages, source) as place:
        temporary = os.path.join(place, "tmp")
        os.mkdir(temporary)
        words = [
            *("mmdebstrap", "--verbose", "--mode=root", "--variant=custom", "--format=directory"),
            f"--include={','.join(each.name for each in packages)}",
            '--aptopt=Apt::Install-Recommends "false"',
            *("--dpkgopt=force-unsafe-io", f"--architectures={architecture}"),
            "--skip=check/empty,check/qemu,cleanup/apt/lists",
            *("", os.fspath(tree), f"deb [trusted=yes] copy:{place}/pool ./"),
        ]
        variables = {**os.environ, "HOME": "/root", "TMPDIR": temporary, "LC_ALL": "C.UTF-8"}
        variables.update(DEBIAN_FRONTEND="noninteractive", DEBCONF_NONINTERACTIVE_SEEN="true")

        def install(on_line: Callable[[str], None]) -> int:
            return intree.watched(words, on_line, variables)

        _heard(install, len(packages), report)
    for name in _LEFT:
        _remove(tree, name)
    for name in _CACHES:
        _empty(tree, name)
    _settle(tree, architecture, packages, [])


def install(
    tree: Path, architecture: str, packages: Sequence[Package], source: str, report: Reporter
) -> None:
    """Install more packages into a Debian tree, by its own apt. source: as of `bootstrap`.

    Raises StageError.
    """
    if not intree.has_program(tree, "apt-get"):
        raise StageError("the tree has no apt-get: install apt with its first packages")
    before = dpkg.installed(read_text(tree, STATUS, MAX_STATUS))
    names = [f"{each.name}:{each.arch}={each.version}" for each in packages]
    with _repository(packages, source) as place:
        _write(place, "apt.conf", _APT_CONF)
        _write(place, "sources.list", f"deb [trusted=yes] file:{SHOWN}/pool ./\n")
        words = ["env", f"APT_CONFIG={SHOWN}/apt.conf", "sh", "-c", _APT, "apt-get", *names]
        shown = {SHOWN: place, source: source}  # the pool's links lead to the inputs

        def install(on_line: Callable[[str], None]) -> int:
            return intree.run(tree, words, shown, on_line)

        _heard(install, len(packages), report)
    _settle(tree, architecture, packages, before)


def extract(tree: Path, packages: Sequence[Package], source: str, report: Reporter) -> None:
    """Unpack the files of packages, and nothing else: no script runs. Raises StageError."""
    with _repository(packages, source) as place:
        for number, package in enumerate(packages, 1):
            words = ["dpkg-deb", "--extract", f"{place}/pool/{dpkg.file_name(package)}", str(tree)]
            said: list[str] = []
            if intree.watched(words, said.append):
                why = said[0] if said else "dpkg-deb ended without a word"
                raise StageError(f"package {package.name} cannot be unpacked: {why}")
            report.progress(number, len(packages), "packages", f"unpacking {package.name}")


def _merge_usr(tree: Path, architecture: str) -> None:
    """Make /bin and its like links into /usr, as every supported release has them: some packages
    can only be unpacked there."""
    for name in ("bin", "sbin", "lib", *(["lib64"] if architecture in _LIB64 else [])):
        if not os.path.lexists(tree / name):
            (tree / "usr" / name).mkdir(mode=0o755, parents=True, exist_ok=True)
            (tree / name).symlink_to(f"usr/{name}")


@contextlib.contextmanager
def _repository(packages: Sequence[Package], source: str) -> Iterator[str]:
    """A directory with a flat repository `pool` of the packages, which are links to `inputs`.
    Raises StageError if an input is not what it should be."""
    for program, debian in PROGRAMS.items():
        if shutil.which(program) is None:
            raise StageError(f"{program} is not installed in the build root: install {debian}")
    with contextlib.suppress(OSError):  # apt warns of it at each call; a sandbox has none
        os.makedirs("/etc/apt/apt.conf.d", exist_ok=True)
    # /var/tmp of a sandbox is on disk; in its /tmp packages would take memory.
    with tempfile.TemporaryDirectory(prefix="deb-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)  # noqa: S103 - the tree's apt reads it
        os.mkdir(f"{place}/pool")
        _write(place, "ftparchive.conf", _FTPARCHIVE_CONF)
        os.symlink(source, f"{place}/inputs")
        for package in packages:
            if not os.path.isfile(os.path.join(source, package.checksum)):
                raise StageError(f"{package.name}: no input is {package.checksum}")
            link = f"{place}/pool/{dpkg.file_name(package)}"
            if os.path.lexists(link):
                raise StageError(f"{package.name}: is given twice")
            os.symlink(f"../inputs/{package.checksum}", link)
        index = _archive(place, "packages")
        for fault in dpkg.repository_faults(packages, index):
            raise StageError(fault)
        _write(place, "pool/Packages", index)
        _write(place, "pool/Release", _archive(place, "release"))
        yield place


def _archive(place: str, what: str) -> str:
    """What apt-ftparchive says of the pool."""
    done = subprocess.run(
        ["apt-ftparchive", what, "."],
        cwd=f"{place}/pool",
        env={**os.environ, "APT_CONFIG": f"{place}/ftparchive.conf"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise StageError(f"apt-ftparchive exited with status {done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape")


def _heard(install: Callable[[Callable[[str], None]], int], total: int, report: Reporter) -> None:
    """Run an installation and report how far it is. Raises StageError with what went wrong."""
    said = dpkg.Said()

    def hear(line: str) -> None:
        step = said.hear(line)
        if step is not None:
            done = min(step.done, total)
            report.progress(done, total, "packages", f"{step.phase} {step.package}")

    report.progress(0, total, "packages", "unpacking")
    status = install(hear)
    if status:
        for line in said.last_words:
            print(f"  | {line}", flush=True)
        why = said.explain() or f"the installation exited with status {status}"
        raise StageError(why)


def _settle(
    tree: Path, architecture: str, packages: Sequence[Package], before: Sequence[str]
) -> None:
    """Mark what nobody asked for, as apt would have, and see that all is as it is locked."""
    marks = dpkg.extended_states(read_text(tree, MARKS, MAX_STATUS), packages, architecture)
    _write(resolve(tree, "/"), MARKS, marks)
    for fault in dpkg.installed_faults(packages, before, read_text(tree, STATUS, MAX_STATUS)):
        raise StageError(fault)
    found: list[str] = []
    status = intree.run(tree, ["dpkg", "--audit"], on_line=found.append)
    if status or found:
        raise StageError(f"dpkg --audit: {' '.join(' '.join(found).split())[:300]}")


def _write(root: str | os.PathLike[str], path: str, text: str) -> None:
    place = resolve(root, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(place, 0o644)


def _remove(tree: Path, name: str) -> None:
    path = resolve(tree, name, follow=False)
    if os.path.lexists(path):
        os.unlink(path)


def _empty(tree: Path, name: str) -> None:
    """Remove what is in a directory of the tree, but for apt's own directory there."""
    path = resolve(tree, name)
    for entry in os.scandir(path) if os.path.isdir(path) else ():
        if entry.name == "partial":
            _empty(tree, f"{name}/partial")
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
