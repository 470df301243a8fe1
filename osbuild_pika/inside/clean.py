"""Remove from a tree what tells two builds of the same image apart, and what only they needed.

What is removed is what two builds of Debian images, at other times and places, were seen to
differ in; see test/run/test_debian.py. Nothing outside the tree is touched, links are not
followed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat

from osbuild_pika.inside.places import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY_S = 86400
# Directories that are there, and empty, in an image that never ran.
EMPTIED = (
    *("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/lib/apt/lists", "var/lib/apt/mirrors"),
    "var/lib/apt/periodic",
    *("var/cache/apt", "var/cache/ldconfig", "var/cache/man", "var/cache/osbuild-pika"),
    *("var/log/journal", "var/lib/dpkg/updates", "root/.cache"),
)
# ... but for these directories in them, which apt wants.
KEPT = (
    *("var/lib/apt/lists/partial", "var/lib/apt/mirrors/partial"),
    "var/cache/apt/archives/partial",
)
REMOVED = (
    *("etc/.pwd.lock", "etc/mtab.lock", "etc/.updated", "var/.updated", "root/.bash_history"),
    *("var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/urandom/random-seed"),
    *("var/lib/systemd/credential.secret", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend"),
    *("var/lib/dpkg/triggers/Lock", "var/cache/debconf/passwords.dat", "var/lib/apt/daily_lock"),
    *("var/lib/ucf/cache.lock", "etc/ssl/certs/.lock", "var/lib/dpkg/available-old"),
    *("var/lib/systemd/deb-systemd-helper-enabled/.lock",),
)
# File names below directories: backups and locks.
SWEPT = {
    "etc": re.compile(
        r"((passwd|group|shadow|gshadow|subuid|subgid)[-+]|ld\.so\.cache~|.*\.lock)\Z"
    ),
    "var/lib/dpkg": re.compile(r"(status|available|diversions|statoverride)-old\Z|lock\Z"),
    "var/lib/apt": re.compile(r"extended_states-old\Z|.*\.lock\Z"),
    "var/cache/debconf": re.compile(r".*-old\Z"),
    "var/lib/ucf": re.compile(r"(hashfile|registry)\.\d+\Z"),
    "etc/ssh": re.compile(r"ssh_host_.*_key(\.pub)?\Z"),
}
SHADOW = "etc/shadow"
MACHINE_ID = "etc/machine-id"


def clean(tree: Path, source_epoch: int | None) -> str:
    """Clean a tree. source_epoch: Unix seconds; passwords were last changed on its day at the
    latest. Returns what was done. Times of files are left to the engine, which sets those of
    each layer: here it would copy the whole tree into one."""
    count = _empty_logs(tree)
    for name in EMPTIED:
        count += _empty(tree, name)
    for name in REMOVED:
        count += _remove(resolve(tree, name, follow=False))
    for name, pattern in SWEPT.items():
        folder = resolve(tree, name)
        for entry in list(os.scandir(folder)) if os.path.isdir(folder) else ():
            if pattern.match(entry.name) and not entry.is_dir(follow_symlinks=False):
                count += _remove(entry.path)
    _clear_machine_id(tree)
    if source_epoch is not None:
        _date_passwords(resolve(tree, SHADOW), source_epoch // DAY_S)
    return f"removed {count} files"


def date_passwords(text: str, day: int) -> str:
    """/etc/shadow as if no password was changed after a day, counted from 1970-01-01."""
    lines = []
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) == 9 and fields[2].isdecimal() and int(fields[2]) > day:
            fields[2] = str(day)
        lines.append(":".join(fields))
    return "\n".join(lines)


def _all(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a tree, each directory after what it holds."""
    for folder, directories, names in os.walk(root, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            yield path, os.lstat(path)
        for name in directories:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                yield path, os.lstat(path)
        yield folder, os.lstat(folder)


def _empty_logs(tree: Path) -> int:
    """Remove what was logged, but keep the files that packages bring: some want them there."""
    count = 0
    for path, facts in list(_all(resolve(tree, "var/log"))):
        if not stat.S_ISREG(facts.st_mode):
            continue
        if os.path.basename(path) in ("btmp", "wtmp", "lastlog", "faillog"):
            os.truncate(path, 0)
        else:
            count += _remove(path)
    return count


def _empty(tree: Path, name: str) -> int:
    """Remove all that is in a directory, but for directories that are kept."""
    folder = resolve(tree, name)
    if not os.path.isdir(folder):
        return 0
    count = 0
    kept = {part for each in KEPT for part in _with_parents(each)}
    for entry in list(os.scandir(folder)):
        inside = f"{name}/{entry.name}"
        if inside in kept and entry.is_dir(follow_symlinks=False):
            count += _empty(tree, inside)
        else:
            count += _remove(entry.path)
    return count


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _remove(path: str) -> int:
    """Remove a file, or a directory and all in it; returns how many things that were."""
    if not os.path.lexists(path):
        return 0
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return 1


def _clear_machine_id(tree: Path) -> None:
    """An empty machine-id is made anew at the first boot; systemd wants the file there."""
    path = resolve(tree, MACHINE_ID, follow=False)
    if os.path.lexists(path) and not os.path.islink(path):
        os.truncate(path, 0)


def _date_passwords(path: str, day: int) -> None:
    """Change /etc/shadow in place: owner and mode stay."""
    if not os.path.isfile(path):
        return
    with open(path, "r+", encoding="utf-8", errors="surrogateescape") as file:
        text = date_passwords(file.read(), day)
        file.seek(0)
        file.write(text)
        file.truncate()
