"""Who can log in to a guest: root's password and keys, and who may read the passwords."""

from __future__ import annotations

from osbuild_pika.inside.lint.finding import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.lint.view import View

ELSEWHERE = "x"  # in passwd: the password is in shadow


def lint_accounts(view: View) -> Iterator[Finding]:
    yield from _root_password(view)
    keys = "root/.ssh/authorized_keys"
    for name in (keys, f"{keys}2"):
        lines = [line.strip() for line in view.text(name).splitlines()]
        if any(line and not line.startswith("#") for line in lines):
            text = "lets the owner of a key in as root; remove it, or allow root-keys"
            yield error("root-keys", name, text)
    yield from _shadow_mode(view)


def _root_password(view: View) -> Iterator[Finding]:
    for path in ("etc/shadow", "etc/passwd"):
        for line in view.text(path).splitlines():
            name, _, rest = line.partition(":")
            password = rest.partition(":")[0]
            if name != "root" or password == ELSEWHERE:
                continue
            if not password:
                text = "root has no password: anybody gets in; lock it with '*'"
                yield error("root-password", path, text)
            elif password[0] not in "*!":
                text = "root has a password, which all instances share; lock it with '*'"
                yield error("root-password", path, text)


def _shadow_mode(view: View) -> Iterator[Finding]:
    group = _group_id(view, "shadow")
    for path in ("etc/shadow", "etc/gshadow"):
        entry = view.find(path)
        if entry is None:
            continue
        if entry.mode & 0o7037:
            text = f"has mode {entry.mode:04o}: chmod 0640"
            yield error("shadow-mode", path, text)
        is_known = entry.gid in (0, group) if group is not None else entry.gid == 0
        if entry.uid or not is_known:
            yield error(
                "shadow-mode", path, f"belongs to {entry.uid}:{entry.gid}: chown root:shadow"
            )


def _group_id(view: View, wanted: str) -> int | None:
    for line in view.text("etc/group").splitlines():
        fields = line.split(":")
        if fields[0] == wanted and len(fields) > 2 and fields[2].isdecimal():
            return int(fields[2])
    return None
