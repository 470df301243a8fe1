"""Sizes as they are given on the command line: 20GiB, 500 MB, unlimited."""

import re
import sys

import click

UNLIMITED = sys.maxsize
_SIZE = re.compile(r"\s*([0-9]{1,19})\s*(?:([kMGT])(i?)B)?\s*", re.ASCII)
_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4}


def parse_size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Bytes; kB, MB, GB and TB are thousands, kiB (also KiB), MiB, GiB and TiB are 1024s."""
    if text is None:
        return None
    if text.strip() == "unlimited":
        return UNLIMITED
    match = _SIZE.fullmatch(text.replace("KiB", "kiB"))
    if match is None:
        raise click.BadParameter(f"{ascii(text)[:40]} is not a size such as 20GiB, or unlimited")
    number, unit, is_binary = match.groups()
    factor: int = (1024 if is_binary else 1000) ** _POWERS.get(unit, 0)
    return int(number) * factor
