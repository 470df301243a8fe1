"""Does a template parse? Incus renders templates with pongo2 (v4), only when an instance starts.

A template is text with `{{ expression }}`, `{% tag arguments %}` and `{# comment #}`. The grammar
is that of pongo2's parser; what only shows when it renders (a value's type) is not looked at.
"""

from __future__ import annotations

import re
from typing import NamedTuple  # not dataclasses: they load inspect, 12 ms

from osbuild_pika.inside.lint.expressions import Expressions, Names, PongoError, Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PongoError", "parse"]

# What a template of Incus finds; the rest is empty text.
GIVEN = {"trigger", "path", "instance", "container", "config", "devices", "properties"}
GIVEN |= {"config_get", "forloop", "pongo2", "nil", "None"}
# tag -> the tags that may come before its end, which is "end" + its name
_BLOCKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("autoescape", "block", "filter", "macro", "spaceless", "with"), ()),
    "for": ("empty",),
    "if": ("elif", "else"),
    **dict.fromkeys(("ifchanged", "ifequal", "ifnotequal"), ("else",)),
}
_SINGLE = {"cycle", "firstof", "lorem", "now", "set", "templatetag", "widthratio"}
_FORBIDDEN = {"extends", "import", "include", "ssi"}  # by Incus: they would read other files
_DEFINE = {"macro", "cycle", "widthratio", "block"}

_PIECE = re.compile(r"\{[{%#]")
_VERBATIM, _END_VERBATIM = "{% verbatim %}", "{% endverbatim %}"
_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<name>[A-Za-z_][A-Za-z_0-9]*|[0-9]+[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<string>\"(?:[^\"\\\n]|\\[\"\\])*\"|'(?:[^'\\\n]|\\[\"\\])*')"
    r"|(?P<end>-?\}\}|-?%\})|(?P<symbol>\{\{-?|\{%-?|==|>=|<=|&&|\|\||!=|<>|[-()+*<>/^,.!|:=%\[\]])"
)


class _Piece(NamedTuple):
    """An expression ({{) or a tag ({%) of the template."""

    opening: str
    line: int
    tokens: tuple[Token, ...]


def parse(text: str) -> tuple[str, ...]:
    """Parse a template. Returns the variables that nobody gives it, sorted.

    Raises PongoError with the line and what is wrong.
    """
    names = Names()
    open_tags: list[tuple[str, int]] = []
    for piece in _pieces(text):
        expressions = Expressions(piece.tokens, piece.line, names)
        if open_tags and open_tags[-1][0] == "comment":
            if piece.opening == "{%" and piece.tokens[:1] == (Token("name", "endcomment"),):
                open_tags.pop()
        elif piece.opening == "{{":
            expressions.whole("'}}' expected")
        else:
            _tag(expressions, piece, open_tags)
    if open_tags:
        name, line = open_tags[-1]
        raise PongoError(line, f"{{% {name} %}} is not closed: end{name} is missing")
    return tuple(sorted(names.used - names.defined - GIVEN))


def _tag(expressions: Expressions, piece: _Piece, open_tags: list[tuple[str, int]]) -> None:
    """Check one tag, keep the stack of open ones."""
    name = expressions.take("name", "keyword")
    if name is None:
        raise PongoError(piece.line, "a tag's name is expected behind '{%'")
    tag = name.text
    if tag in _BLOCKS or tag == "comment":
        open_tags.append((tag, piece.line))
    elif tag.startswith("end") and (tag[3:] in _BLOCKS or tag == "endcomment"):
        if not open_tags or open_tags[-1][0] != tag[3:]:
            inner = f", {{% {open_tags[-1][0]} %}} is open" if open_tags else ""
            raise PongoError(piece.line, f"{{% {tag} %}} ends nothing{inner}")
        open_tags.pop()
    elif open_tags and tag in _BLOCKS[open_tags[-1][0]]:
        pass
    elif tag in _FORBIDDEN:
        raise PongoError(piece.line, f"Incus forbids {{% {tag} %}}: write its content here")
    elif tag not in _SINGLE:
        raise PongoError(piece.line, f"{{% {tag} %}} is no tag of pongo2")
    _arguments(tag, expressions)


def _arguments(tag: str, expressions: Expressions) -> None:
    if tag in ("if", "elif"):
        expressions.whole(f"the condition of {{% {tag} %}} is malformed")
    elif tag == "for":
        expressions.loop()
    elif tag in ("else", "empty") or (tag.startswith("end") and tag != "endblock"):
        expressions.nothing(f"{{% {tag} %}} takes no arguments")
    elif tag in ("set", "with"):
        expressions.definitions()
    elif tag in _DEFINE:
        expressions.define_all()


def _pieces(text: str) -> Iterator[_Piece]:
    position = 0
    while match := _PIECE.search(text, position):
        start = match.start()
        line = text.count("\n", 0, start) + 1
        if text.startswith(_VERBATIM, start):
            end = text.find(_END_VERBATIM, start)
            if end < 0:
                raise PongoError(line, "{% verbatim %} is not closed")
            position = end + len(_END_VERBATIM)
        elif match[0] == "{#":
            end = text.find("#}", start + 2)
            if end < 0 or "\n" in text[start:end]:
                raise PongoError(line, "a comment is closed by '#}' on its line")
            position = end + 2
        else:
            tokens, position = _tokens(text, start + 2, line, match[0])
            yield _Piece(match[0], line, tokens)


def _tokens(text: str, position: int, line: int, opening: str) -> tuple[tuple[Token, ...], int]:
    """The tokens up to the end of an expression or a tag, and where it ends."""
    closing = {"{{": "}}", "{%": "%}"}[opening]
    if text.startswith("-", position):
        position += 1
    found: list[Token] = []
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "end":
            if not match[0].endswith(closing):
                raise PongoError(line, f"'{closing}' is expected, not '{match[0]}'")
            return tuple(found), position
        if kind != "space":
            found.append(Token.of(kind, match[0]))
    rest = text[position : position + 1]
    if rest in ("", "\n"):
        raise PongoError(line, f"'{opening}' is not closed by '{closing}' on its line")
    if rest in ("'", '"'):
        raise PongoError(line, 'a string is not closed, or has an escape that is not \\" or \\\\')
    raise PongoError(line, f"{rest!a} has no meaning in '{opening}'")
