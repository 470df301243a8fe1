"""What is wrong with the base of a guest's tree: init, identity, what belongs to no image.

A check that does not fit the tree, such as one of systemd where there is none, is skipped.
"""

from __future__ import annotations

from osbuild_pika.inside.lint import view as tree
from osbuild_pika.inside.lint.finding import error, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.lint.view import View

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
VOLATILE = ("dev", "proc", "run", "sys", "tmp")
MAX_ID = 65535  # an unprivileged container has ids 0-65535
MAX_LISTED = 5  # names in one message
SEEDS = ("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret")
BACKUPS = ("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-")


def is_systemd(view: View) -> bool:
    """Whether the first process is systemd: it is there, and no other init is."""
    if not (view.has("usr/lib/systemd/systemd") or view.has("lib/systemd/systemd")):
        return False
    init = view.resolve("sbin/init")
    return init is None or not view.has("sbin/init") or init.endswith("lib/systemd/systemd")


def lint_init(view: View) -> Iterator[Finding]:
    """/sbin/init is in the tree, links and all; merged directories are relative links."""
    init = view.find("sbin/init")
    if init is None:
        is_link = "sbin/init" in view.entries or "usr/sbin/init" in view.entries
        what = "leads to nothing in the tree" if is_link else "is missing"
        yield error("init", "sbin/init", f"{what}; install an init such as systemd-sysv")
    elif init.kind != tree.FILE or not init.mode & 0o111:
        yield error("init", "sbin/init", "is no program; install an init such as systemd-sysv")
    for name in MERGED:
        entry = view.entries.get(name)
        if entry is not None and entry.kind == tree.LINK and entry.target.startswith("/"):
            text = f"is an absolute link; make it relative: {entry.target.lstrip('/')}"
            yield error("usr-merge", name, text)


def lint_identity(view: View) -> Iterator[Finding]:
    """What each instance must make itself: machine id, host keys, seeds."""
    path = "etc/machine-id"
    content = view.read(path)
    if is_systemd(view) and path not in view.entries:
        text = "is missing: the first boot enables all units of the presets; make it an empty file"
        yield error("machine-id", path, text)
    elif content and content.strip():
        what = "is 'uninitialized'" if content.strip() == b"uninitialized" else "has an id"
        yield error("machine-id", path, f"{what}, which all instances share; make it an empty file")
    other = view.entries.get("var/lib/dbus/machine-id")
    if other is not None and other.kind == tree.FILE and other.size:
        text = "has an id, which all instances share; remove it, or link it to /etc/machine-id"
        yield error("machine-id", "var/lib/dbus/machine-id", text)
    for name in view.children("etc/ssh"):
        if name.startswith("etc/ssh/ssh_host_") and not name.endswith(".pub"):
            yield error("ssh-host-keys", name, "is a key that all instances share; remove it")
    for name in SEEDS:
        if name in view.entries:
            yield error("random-seed", name, "is a secret that all instances share; remove it")


def lint_volatile(view: View) -> Iterator[Finding]:
    """/dev, /proc, /run, /sys and /tmp are hidden when the guest runs: they are empty."""
    for place in VOLATILE:
        found = list(view.below(place))
        odd = [name for name in found if view.entries[name].kind in (tree.FILE, tree.FIFO)]
        if odd:
            text = f"has files: {_listed(odd)}; remove them"
            yield error("volatile", place, text)
        elif found:
            yield warning("volatile", place, f"is not empty: {_listed(found)}; empty it")


def lint_kinds(view: View) -> Iterator[Finding]:
    """No device nodes, no sockets, no ids that a container does not have."""
    by_kind: dict[str, list[str]] = {tree.DEVICE: [], tree.SOCKET: []}
    strange = []
    for name, entry in view.entries.items():
        if entry.kind in by_kind:
            by_kind[entry.kind].append(name)
        if entry.uid > MAX_ID or entry.gid > MAX_ID:
            strange.append(name)
    device = "is a device node, which a container cannot have; remove it"
    yield from _each("device-node", by_kind[tree.DEVICE], device)
    yield from _each(
        "socket", by_kind[tree.SOCKET], "is a socket, which no archive keeps; remove it"
    )
    yield from _each(
        "ids", strange, f"belongs to an id above {MAX_ID}, which no container has; chown"
    )
    for name in view.unreadable:
        path, _, why = name.rpartition(": ")
        yield warning("unreadable", path, f"{why}: what is in it is not looked at")


def lint_leftovers(view: View) -> Iterator[Finding]:
    """Backups of databases; a locale; in a container, an empty fstab."""
    for name in BACKUPS:
        if name in view.entries:
            yield warning("backup-file", name, "is a backup; remove it")
    old = [name for name in view.children("var/backups") if view.entries[name].kind == tree.FILE]
    if old:
        yield warning("backup-file", "var/backups", f"has backups: {_listed(old)}; remove them")
    if is_systemd(view):
        texts = view.text("etc/locale.conf") + view.text("etc/default/locale")
        if not any(line.startswith(("LANG=", "LC_ALL=")) for line in texts.splitlines()):
            yield warning("locale", "etc/locale.conf", "sets no LANG; write LANG=C.UTF-8")


def lint_fstab(view: View) -> Iterator[Finding]:
    for line in view.text("etc/fstab").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            text = f"mounts '{' '.join(line.split()[:2])}'; in a container it is empty"
            yield error("fstab", "etc/fstab", text)


def _each(code: str, names: list[str], text: str) -> Iterator[Finding]:
    """A finding for each of the first names; the last one tells how many more there are."""
    names = sorted(names)
    more = f" (and {len(names) - MAX_LISTED} more)" if len(names) > MAX_LISTED else ""
    for number, name in enumerate(names[:MAX_LISTED], 1):
        yield error(code, name, f"{text}{more if number == MAX_LISTED else ''}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{', '.join(names[:MAX_LISTED])}{more}"
