"""What the files of a service cannot hold, and what a shell script that starts it cannot set."""

from __future__ import annotations

# dash ends at an OPTIND that is no number; the others are readonly to bash, which ends there, too.
_OWN = ("OPTIND", "PPID", "UID", "EUID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO")


def is_own(key: str) -> bool:
    """Whether a variable of that name is the shell's own: to export it can end the script."""
    return key in _OWN


def why_not(text: str) -> str:
    """Why a text cannot stand in the files of a service; "" if it can."""
    if "\0" in text:
        return "holds a NUL byte"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"is not UTF-8 text: {ascii(text)[:80]}"
    return ""
