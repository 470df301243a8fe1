"""What a shell script that starts a service cannot put into its environment."""

from __future__ import annotations

# dash ends at an OPTIND that is no number; the others are readonly to bash, which ends there, too.
_OWN = ("OPTIND", "PPID", "UID", "EUID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO")


def is_own(key: str) -> bool:
    """Whether a variable of that name is the shell's own: to export it can end the script."""
    return key in _OWN
