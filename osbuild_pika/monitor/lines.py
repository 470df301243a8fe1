"""Foreign output as lines that can be shown, however it was cut into pieces."""

from typing import TextIO

from osbuild_pika.text import one_line

MAX_LINE = 64 * 1024  # characters; a longer line is taken for several


class Lines:
    """Gives whole lines of a text that comes in pieces."""

    def __init__(self) -> None:
        self._rest = ""

    def take(self, piece: str) -> list[str]:
        """The lines that this piece completes, without their ends."""
        *lines, self._rest = (self._rest + piece).split("\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = ""
        return lines

    def rest(self) -> str:
        """The last line, which has no end; it is gone then."""
        rest, self._rest = self._rest, ""
        return rest


def shown(line: str) -> str:
    """A foreign line, safe and in its whole length; tabs stay."""
    parts = line.split("\t")
    return "\t".join(one_line(part, 2 * len(part) + 8) for part in parts)


def last_lines(output: str, count: int) -> list[str]:
    """The last lines of an output, each safe and cut to a sane length."""
    tail = output[-count * MAX_LINE :].rstrip().split("\n")
    return [one_line(line).rstrip() for line in tail[-count:] if tail != [""]]


def fit(words: str, out: TextIO) -> str:
    """Text with ? for what the encoding of `out` lacks."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    return words.encode(encoding, "replace").decode(encoding)
