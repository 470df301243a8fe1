"""Tables for people. All that is in them is made safe; nothing is cut."""

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from osbuild_pika.text import one_line

WIDE = 10_000  # columns of what is no terminal: one line is one row


def form(human: str, json: str = "one object.") -> Callable[[Any], Any]:
    """The option --format of a verb. human: what people get. json: what programs get."""
    return click.option(
        "--format",
        "form",
        type=click.Choice([human, "json"]),
        default=human,
        show_default=True,
        help=f"json: {json}",
    )


def render(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without lines, as wide as the terminal; longer cells go on below."""
    import shutil  # 4 ms, for archives above all

    from rich.console import Console  # 0.1 s, for who asks only
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    out = io.StringIO()
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(file=out, width=width, no_color=True, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n")).rstrip("\n")


def size(count: int | None) -> str:
    """Bytes for people: "1.4 MiB"; "-" if that is not known."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
