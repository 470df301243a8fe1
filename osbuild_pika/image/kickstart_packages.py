"""%packages, and where packages come from: url and repo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from osbuild_pika.image.kickstart_draft import Draft
from osbuild_pika.image.kickstart_rules import REFUSED
from osbuild_pika.image.reading import shown
from osbuild_pika.image.rules import url_problems

Data = Mapping[str, Any]
_APT_LINE = re.compile(r"deb(?:-src)? +(?:\[[^\]]*\] +)?(\S+) +(\S+)((?: +\S+)*) *")
_DISTS = re.compile(r"(.*?)/dists/([^/]+)(?:/([^/]+))?(?:/.*)?")
_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,40}")
_POCKET = re.compile(r"-(updates|security|backports|proposed)$")
_FOR_RPM = re.compile(r"\$releasever|\$basearch|@[A-Z_]+@|/os/?$|/os/|/repodata|/packages/?$")
_OPTIONS = {  # of %packages: pykickstart's name -> what is to be said if it is given
    "excludeDocs": "--excludedocs: documentation stays, or exclude the packages *-doc",
    "instLangs": "--instLangs: languages stay",
    "multiLib": "--multilib: one architecture",
    "excludeWeakdeps": "recommended packages never come along",
}
_REPO_NOTES = {
    "cost": "--cost: apt takes the newest version",
    "priority": "--priority: apt takes the newest version",
    "excludepkgs": "--excludepkgs: exclude them in %packages",
    "includepkgs": "--includepkgs: all of it can be taken",
    "proxy": "--proxy: this machine's apt is asked as it is set up",
    "noverifyssl": "TLS is verified, and so are signatures",
    "--ssl_verify": "TLS is verified, and so are signatures",
    "--check_ssl": "TLS is verified, and so are signatures",
    "--gpgkey": "--gpgkey: the distribution's keyring must have signed it",
    "--source": "--source: sources are not taken",
    "--debuginfo": "--debuginfo: name the packages",
}


def packages(draft: Draft, at: int, options: Data, body: Iterable[tuple[int, str]]) -> None:
    """A section: its options by pykickstart's names, and its lines with their places."""
    count = 0
    for line, text in body:
        name = text.partition("#")[0].strip()
        if name:
            count += 1
            _package(draft, line, name)
    for key, note in _OPTIONS.items():
        if options.get(key):
            draft.note(at, note)
    if options.get("default"):
        draft.refuse(at, "@groups", f"--default: {REFUSED['@groups']}")
    if options.get("handleMissing"):
        draft.note(at, "--ignoremissing: a package that is missing is told by `lock`")
    draft.note(at, f"{count} lines")


def _package(draft: Draft, at: int, name: str) -> None:
    if name.startswith("-@"):
        draft.ignore(at, "@groups", f"{name}: there are no groups to leave out")
    elif name.startswith("@"):
        draft.refuse(at, "@groups", f"{name}: {REFUSED['@groups']}")
    elif name.startswith("-"):
        draft.packages.pop(name[1:], None)
        draft.excluded[name[1:].strip()] = at
    else:
        draft.excluded.pop(name, None)
        draft.packages.setdefault(name, at)


def url(draft: Draft, at: int, data: Data) -> None:
    given = data.get("url")
    if not given:
        draft.fault(at, "names no mirror: lists of mirrors are not taken, write --url=URL")
        return
    _mirror(draft, at, str(given), is_main=True)
    _note_options(draft, at, data)


def repo(draft: Draft, at: int, data: Data) -> None:
    given = data.get("baseurl")
    if not given:
        draft.fault(at, "names no mirror: lists of mirrors are not taken, write --baseurl=URL")
        return
    if "--disable" in data:
        draft.judge(at, "repo", "ignored", "--disable")
        return
    _mirror(draft, at, str(given), is_main=False)
    _note_options(draft, at, data)


def _note_options(draft: Draft, at: int, data: Data) -> None:
    for key, note in _REPO_NOTES.items():
        if data.get(key):
            draft.note(at, note)


def _mirror(draft: Draft, at: int, given: str, is_main: bool) -> None:
    """A mirror as a URL, as URL/dists/SUITE/COMPONENT, or as a line of apt's sources."""
    uri, suite = given, ""
    components: tuple[str, ...] = ()
    if match := _APT_LINE.fullmatch(given):
        uri, suite, components = match[1], match[2], tuple(match[3].split())
    elif match := _DISTS.fullmatch(given):
        uri, suite, components = match[1], match[2], (match[3],) if match[3] else ()
    if _FOR_RPM.search(uri):
        draft.fault(at, f"{shown(uri)} looks like a repository of RPM packages: name one of Debian")
        return
    if problems := url_problems(uri, is_snapshot=False):
        draft.fault(at, f"{shown(uri)}: {problems[0]}: correct it")
        return
    if suite and not _SUITE.fullmatch(suite):
        draft.fault(at, f"{shown(suite)} is no suite such as bookworm: correct it")
        return
    mirror: dict[str, Any] = {"url": uri}
    if suite:
        mirror["suites"] = [suite]
        if is_main or not draft.origin:
            distribution = "ubuntu" if "ubuntu" in uri else "debian"
            draft.origin = f"{distribution}/{_POCKET.sub('', suite)}"
    if components:
        mirror["components"] = list(dict.fromkeys(components))
    draft.append("mirror", mirror, at)
