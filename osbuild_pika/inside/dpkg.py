"""What dpkg keeps and says, as values: its database, apt's marks, and the lines of an installation.

Pure: files are read and written by deb.py.
"""

from __future__ import annotations

import re
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import NamedTuple
else:
    from collections import namedtuple

INSTALLED = "install ok installed"
KEPT_LINES = 20  # of a maintainer script's output
_STEP = re.compile(r"(Unpacking|Setting up) ([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)? \(([^)]*)\)")
_FAULT = re.compile(r"dpkg: error processing (package|archive) (\S+) \(-?-?[a-z-]+\):")
_CONSEQUENCES = ("dependency problems", "package is in a very bad inconsistent state")

if TYPE_CHECKING:

    class Package(NamedTuple):
        """A locked package. checksum: "sha256:" and 64 hex digits. auto: nobody asked for it."""

        name: str
        version: str
        arch: str
        checksum: str
        auto: bool

    class Step(NamedTuple):
        """One step of an installation. phase: "unpacking" or "setting up"; done: how many."""

        phase: str
        package: str
        done: int

else:
    Package = namedtuple("Package", "name version arch checksum auto")
    Step = namedtuple("Step", "phase package done")


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The one-line fields of each stanza; of fields with more lines the first one."""
    for block in re.split(r"\n[ \t]*\n", text):
        fields = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            if colon and name[:1] not in ("", " ", "\t", "#"):
                fields[name] = value.strip()
        if fields:
            yield fields


def file_name(package: Package) -> str:
    """What apt calls the package's file."""
    version = package.version.replace(":", "%3a")
    return f"{package.name}_{version}_{package.arch}.deb"


def repository_faults(packages: Iterable[Package], index: str) -> Iterator[str]:
    """What a repository's index says otherwise than the lock. index: of apt-ftparchive, made of
    the files under their `file_name`."""
    found = {fields.get("Filename", "").split("/")[-1]: fields for fields in stanzas(index)}
    for package in packages:
        name = file_name(package)
        fields = found.get(name)
        if fields is None:
            yield f"{package.name}: the input {package.checksum} is no Debian package"
            continue
        if f"sha256:{fields.get('SHA256')}" != package.checksum:
            yield f"{package.name}: the input {package.checksum} has another checksum"
        wanted = {"Package": package.name, "Version": package.version, "Architecture": package.arch}
        for field, value in wanted.items():
            if fields.get(field) != value:
                is_there = fields.get(field, "nothing")
                yield f"{package.name}: {field} is {value} in the lock, {is_there} in the package"


def installed_faults(
    wanted: Iterable[Package], before: Iterable[str], status: str
) -> Iterator[str]:
    """What is not installed as it is locked, or installed though it is not.

    before: names that were installed already. status: /var/lib/dpkg/status.
    """
    found = {fields["Package"]: fields for fields in stanzas(status) if "Package" in fields}
    names = set(before)
    for package in wanted:
        names.add(package.name)
        fields = found.get(package.name, {})
        state, version = fields.get("Status", "not installed"), fields.get("Version")
        if state != INSTALLED:
            yield f"{package.name} is not installed: {state}"
        elif version != package.version:
            yield f"{package.name} is installed as {version}, locked is {package.version}"
    for name in sorted(found.keys() - names):
        yield f"{name} is installed, but not locked"


def installed(status: str) -> list[str]:
    """The names of the packages in /var/lib/dpkg/status."""
    return [fields["Package"] for fields in stanzas(status) if "Package" in fields]


def extended_states(before: str, packages: Iterable[Package], native: str) -> str:
    """/var/lib/apt/extended_states with the marks of these packages, sorted by name.

    before: what it said. native: the architecture that packages of all are filed under, as apt
    does it.
    """
    marks = {
        (fields.get("Package", ""), fields.get("Architecture", native)): fields.get(
            "Auto-Installed", "0"
        )
        for fields in stanzas(before)
    }
    for package in packages:
        arch = native if package.arch == "all" else package.arch
        marks[package.name, arch] = "1" if package.auto else "0"
    return "".join(
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n"
        for (name, arch), mark in sorted(marks.items())
        if mark == "1"
    )


class Said:
    """What dpkg said so far. Steps count each package once: mmdebstrap unpacks some twice."""

    def __init__(self) -> None:
        self.fault = ""  # the first package that failed, and why
        self.last_words: list[str] = []  # of its maintainer script
        self._seen: dict[str, set[str]] = {"unpacking": set(), "setting up": set()}
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._failed = ""
        self._error = ""

    def hear(self, line: str) -> Step | None:
        """Take a line of output; returns the step that it begins."""
        if line.startswith("E: ") and not self._error:
            self._error = line[3:]
        if self._failed:
            self._blame(line.strip())
            return None
        failed = _FAULT.match(line)
        if failed:
            self._failed = failed.group(2)
            return None
        step = _STEP.match(line)
        if step is None:
            self._lines.append(line)
            return None
        self._lines.clear()
        phase = step.group(1).lower()
        self._seen[phase].add(step.group(2))
        return Step(phase, step.group(2), len(self._seen[phase]))

    def _blame(self, reason: str) -> None:
        name, self._failed = self._failed, ""
        if self.fault or reason.startswith(_CONSEQUENCES):
            return
        name = name.rsplit("/", 1)[-1].split("_")[0].partition(":")[0]
        self.fault = f"package {name}: {reason}"
        self.last_words = list(self._lines)

    def explain(self) -> str:
        """Why it failed, in one line; "" if nothing says it."""
        return self.fault or self._error


def option_packages(given: Iterable[Mapping[str, object]]) -> list[Package]:
    """The packages of a stage's options."""
    return [
        Package(
            str(each["name"]),
            str(each["version"]),
            str(each["arch"]),
            str(each["checksum"]),
            bool(each.get("auto", False)),
        )
        for each in given
    ]
