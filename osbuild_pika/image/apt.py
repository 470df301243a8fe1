"""apt with a state of its own, and its complaints in one line.

This machine's apt is neither read nor changed: APT_CONFIG sets every directory aside. apt verifies
what a repository signed, and gives SHA-256 for each package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from osbuild_pika.errors import HostError, InputError, PikaError
from osbuild_pika.image.mirrors import AptSource
from osbuild_pika.text import one_line

TIMEOUT_S = "30"  # of a connection without a byte
_CONFIG = """\
Dir "/";
Dir::State "{0}/state";
Dir::State::Lists "{0}/state/lists";
Dir::State::status "{0}/state/status";
Dir::State::extended_states "{0}/state/extended_states";
Dir::Cache "{0}/cache";
Dir::Cache::archives "{0}/cache/archives";
Dir::Log "{0}/log";
Dir::Etc "{0}/etc";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{0}/sources";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::netrc "/dev/null";
Dir::Etc::netrcparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "{0}/trusted";
APT::Architecture "{1}";
APT::Architectures {{ "{1}"; }};
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "1";
Acquire::http::Timeout "{2}";
Acquire::https::Timeout "{2}";
"""


class Apt:
    """A private apt. Its calls return what it prints, and raise InputError or HostError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environment = {
            **os.environ,
            "APT_CONFIG": str(directory / "apt.conf"),
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }

    @property
    def lists(self) -> Path:
        """Where the indexes lie, with what was signed."""
        return self._directory / "state/lists"

    def call(self, *words: str) -> str:
        """Run a program of apt's: what it printed. Raises InputError or HostError."""
        done = self.run(*words)
        if done.returncode:
            raise complaint(done.stdout, done.stderr)
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of apt's to its end, whatever that is."""
        return run(words, self._environment)


def run(
    words: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and take what it prints. environment: None for ours."""
    return subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@contextmanager
def private(sources: Sequence[AptSource], architecture: str) -> Iterator[Apt]:
    """An apt that knows these sources only, gone at the end. Raises HostError without apt."""
    if shutil.which("apt-get") is None:
        raise HostError(
            "apt-get is not on this machine: make the lock where it is, on Debian or Ubuntu, with "
            "`osbuild-pika lock`, and bring image.lock.json here"
        )
    with tempfile.TemporaryDirectory(prefix="osbuild-pika-apt-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # as root, apt reads and downloads as a user without rights
        for part in ("state/lists/partial", "cache/archives/partial", "etc", "sources", "trusted"):
            (directory / part).mkdir(parents=True)
        (directory / "state/status").touch()
        config = _CONFIG.format(directory, architecture, TIMEOUT_S)
        (directory / "apt.conf").write_text(config)
        (directory / "sources/lock.sources").write_text(
            "\n".join(_stanza(each, _readable(each, directory)) for each in sources)
        )
        yield Apt(directory)


def _readable(source: AptSource, directory: Path) -> str:
    """A copy of a keyring where apt's user can read it: the original may lie in a home."""
    suffix = ".asc" if Path(source.signed_by).read_bytes().startswith(b"-----") else ".gpg"
    copy = directory / f"trusted-{Path(source.signed_by).stem}{suffix}"
    shutil.copyfile(source.signed_by, copy)
    copy.chmod(0o644)
    return str(copy)


def _stanza(source: AptSource, keyring: str) -> str:
    is_dated = "no" if source.is_any_age else "yes"
    return (
        f"Types: deb\nURIs: {source.uri}\nSuites: {' '.join(source.suites)}\n"
        f"Components: {' '.join(source.components)}\nSigned-By: {keyring}\n"
        f"Check-Valid-Until: {is_dated}\nCheck-Date: {is_dated}\n"
    )


# --- what apt complains of -----------------------------------------------------------------------

# The first that is found decides: (what apt says, what that means, whether the input is wrong).
_UNSIGNED = r"NO_PUBKEY|public key is not available|Missing key"
# By gpgv; by sqv, which is what apt has asked since Debian 13.
_BAD_SIGNATURE = (
    r"BADSIG|invalid signature|not valid: |EXPKEYSIG|REVKEYSIG|Splitting up|been manipulated"
)
_DOWN = r"connect|resolve|timed out|unreachable|onnection failed|reset by peer"
_NEWER = "install a newer keyring package, or give a `keyring:`"
_MEANINGS = (
    (_UNSIGNED, f"no key of the keyring signed it: {_NEWER}", False),
    (_BAD_SIGNATURE, "its signature is bad", False),
    (r"is not signed|unauthenticated", "it is not signed", False),
    (r"is expired|is not valid yet", "its Release file is out of date", False),
    (r"Hash Sum mismatch|unexpected size", "what it serves is not what it signed", False),
    (r"Conflicting distribution|doesn't have the component", "it has not what was asked for", True),
    (r"does not have a Release file", "there is no such suite", True),
    (_DOWN, "it cannot be reached", False),
    (r"unmet dependencies|Unable to correct problems", "the packages do not go together", True),
)


def complaint(stdout: str, stderr: str) -> PikaError:
    """The error that apt's words amount to: its meaning, then apt's line."""
    lines = [line.strip() for line in stderr.split("\n")]
    said = [line[2:].strip() for line in lines if line.startswith(("E:", "W:"))]
    text = "\n".join(said)
    for pattern, meaning, is_input in _MEANINGS:
        matching = next((line for line in said if re.search(pattern, line)), None)
        if matching is None and re.search(pattern, stderr):
            matching = said[0] if said else text
        if matching is not None:
            kind = InputError if is_input else HostError
            return kind(one_line(f"{_place(matching)}{meaning}: {_detail(matching, stdout)}", 600))
    return HostError(one_line(f"apt: {said[0] if said else 'ended without a word'}", 600))


def _place(line: str) -> str:
    """The URL that a line is about, with a colon."""
    found = re.search(r"https?://[^\s']+", line)
    return f"{found[0].rstrip(':')}: " if found else ""


def _detail(line: str, stdout: str) -> str:
    """apt's own line; of packages that do not go together what it prints about them."""
    _, _, unmet = stdout.partition("unmet dependencies:")
    return f"apt: {' '.join(unmet.split())}" if unmet else f"apt: {line}"
