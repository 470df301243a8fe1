"""What dpkg and apt leave in a tree, and what they need in it. Skipped where they are not."""

from __future__ import annotations

import re

from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import error, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.lint.view import View

MAX_LISTED = 5
GOOD = {b"install ok installed", b"deinstall ok config-files", b"hold ok installed"}
LEFT = (".dpkg-new", ".dpkg-dist", ".dpkg-tmp", ".dpkg-old", ".dpkg-bak")
# What builders put in the place of programs; a tree is given away with the program itself.
STUBS = [
    "usr/sbin/policy-rc.d",
    "sbin/start-stop-daemon.REAL",
    "sbin/initctl.REAL",
    "usr/sbin/start-stop-daemon.REAL",
    "usr/sbin/update-initramfs.REAL",
]
LOCAL = re.compile(r"\b(file|copy|cdrom):")
LOOPBACK = re.compile(r"://(localhost|127\.[0-9.]+|\[::1\])(?=[:/\s])")
STATUS = re.compile(rb"^(Package|Status): *([^\n]*)", re.MULTILINE)


def lint_dpkg(view: View) -> Iterator[Finding]:
    if not view.has("var/lib/dpkg"):
        return
    content = view.read(tree.DATABASE)
    if content is None:
        yield error("dpkg", tree.DATABASE, "cannot be read: no package can be managed in the guest")
    package = b""
    bad = []
    for key, value in STATUS.findall(content or b""):
        if key == b"Package":
            package = value
        elif value not in GOOD:
            bad.append((package.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
    for name, status in bad[:MAX_LISTED]:
        text = "is not installed as it should be; run dpkg --configure -a"
        yield error("dpkg", tree.DATABASE, text, f"{name} ({status})")
    for name in view.children("var/lib/dpkg/updates"):
        yield error("dpkg", name, "is a change that dpkg has not finished; run dpkg --configure -a")
    for place in ("etc", "usr/lib/systemd"):
        for name in view.below(place):
            if name.endswith(LEFT):
                yield error("dpkg-leftover", name, "is a leftover of dpkg; decide, and remove it")
    for name in STUBS:
        if name in view.entries:
            yield error(
                "builder-stub", name, "is a builder's stub: services do not start; remove it"
            )


def lint_apt(view: View) -> Iterator[Finding]:
    if not view.has("usr/bin/apt-get"):
        return
    parts = view.children("etc/apt/sources.list.d")
    names = ["etc/apt/sources.list", *(n for n in parts if n.endswith((".list", ".sources")))]
    lines = [(name, line) for name in names for line in _lines(view.text(name))]
    if not lines:
        text = "no package can be installed in the guest; write the mirror of the distribution"
        yield error("apt-sources", "etc/apt/sources.list", text)
    for name, line in lines:
        if LOCAL.search(line) or re.search(r"(?i)\btrusted[=:] *yes", line):
            text = f"'{line}' is the builder's; write the mirror of the distribution"
            yield error("apt-sources", name, text)
        elif LOOPBACK.search(line):
            yield warning("apt-sources", name, f"'{line}' is this host; write a mirror for guests")
    yield from _keys(view, lines)
    left = [
        name
        for name in view.children("var/lib/apt/lists")
        if view.entries[name].kind == tree.FILE and not name.endswith("/lock")
    ]
    if left:
        text = f"has {len(left)} lists of packages, soon out of date; remove them"
        yield error("apt-lists", "var/lib/apt/lists", text)
    debs = [n for n in view.children("var/cache/apt/archives") if n.endswith(".deb")]
    if debs:
        yield error("apt-lists", "var/cache/apt/archives", f"has {len(debs)} packages; remove them")


def _keys(view: View, lines: list[tuple[str, str]]) -> Iterator[Finding]:
    """Each named keyring is there; where none is named apt looks at its own."""
    is_named = False
    for name, line in lines:
        match = re.search(r"(?i)signed-by[=:] *([^\]\s,]+)", line)
        if match and match[1].startswith("/"):
            is_named = True
            if not view.has(match[1].lstrip("/")):
                text = f"the keyring {match[1]} is not in the tree; install its package"
                yield error("apt-keyring", name, text)
    own = ("etc/apt/trusted.gpg.d", "usr/share/keyrings")
    is_kept = any(
        n.endswith((".gpg", ".asc", ".pgp")) for place in own for n in view.children(place)
    )
    if lines and not is_named and not (is_kept or view.has("etc/apt/trusted.gpg")):
        text = "has no keyring, so apt trusts nothing; install that of the distribution"
        yield error("apt-keyring", own[0], text)


def _lines(text: str) -> list[str]:
    stripped = [line.strip() for line in text.splitlines()]
    return [line for line in stripped if line and not line.startswith("#")]
