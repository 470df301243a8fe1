"""The expressions of pongo2 (v4), by recursive descent; nothing is evaluated."""

from __future__ import annotations

from typing import NamedTuple  # not dataclasses: they load inspect, 12 ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 60
KEYWORDS = {"in", "and", "or", "not", "true", "false", "as", "export"}
_FILTERS = """
    escape safe escapejs add addslashes capfirst center cut date default default_if_none
    divisibleby first float floatformat get_digit iriencode join last length length_is linebreaks
    linebreaksbr linenumbers ljust lower make_list phone2numeric pluralize random removetags rjust
    slice split stringformat striptags time title truncatechars truncatechars_html truncatewords
    truncatewords_html upper urlencode urlize urlizetrunc wordcount wordwrap yesno integer
    """
FILTERS = set(_FILTERS.split())
_COMPARE = ("==", "<=", ">=", "!=", "<>", ">", "<")


class PongoError(Exception):
    """A template does not parse. line: from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Token(NamedTuple):
    kind: str  # name, keyword, number, string, symbol
    text: str

    @classmethod
    def of(cls, kind: str, text: str) -> Token:
        return cls("keyword" if text in KEYWORDS and kind == "name" else kind, text)


class Names:
    """The variables that a template uses, and those that it makes itself."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.defined: set[str] = set()


class Expressions:
    """Reads the tokens of one `{{ }}` or `{% %}`. Every method raises PongoError."""

    def __init__(self, tokens: Sequence[Token], line: int, names: Names) -> None:
        self._tokens = tokens
        self._line = line
        self._names = names
        self._at = 0
        self._depth = 0

    def whole(self, otherwise: str) -> None:
        """One expression and nothing behind it."""
        self._expression()
        self.nothing(otherwise)

    def nothing(self, otherwise: str) -> None:
        if self._at < len(self._tokens):
            raise self._error(otherwise)

    def loop(self) -> None:
        """`key[, value] in expression [reversed] [sorted]`."""
        for _ in range(2):
            name = self.take("name")
            if name is None:
                raise self._error("{% for %} needs a name")
            self._names.defined.add(name.text)
            if not self._match("symbol", ","):
                break
        if not self._match("keyword", "in"):
            raise self._error("{% for %} needs 'in'")
        self._expression()
        for word in ("reversed", "sorted"):
            self._match("name", word)
        self.nothing("the arguments of {% for %} are malformed")

    def definitions(self) -> None:
        """`name=expression ...`, or `expression as name`."""
        if Token("keyword", "as") in self._tokens:
            self._expression()
            self._match("keyword", "as")
            self._define()
        while self._at < len(self._tokens):
            self._define()
            if not self._match("symbol", "="):
                raise self._error("'=' is expected")
            self._expression()

    def _define(self) -> None:
        name = self.take("name")
        if name is None:
            raise self._error("a name is expected")
        self._names.defined.add(name.text)

    def define_all(self) -> None:
        """Every name here is one that the template makes; how is not looked at."""
        rest = self._tokens[self._at :]
        self._names.defined.update(token.text for token in rest if token.kind == "name")

    def take(self, *kinds: str) -> Token | None:
        """The next token if it is of one of the kinds."""
        if self._at < len(self._tokens) and self._tokens[self._at].kind in kinds:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _match(self, kind: str, *texts: str) -> bool:
        if self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token.kind == kind and token.text in texts:
                self._at += 1
                return True
        return False

    def _error(self, message: str) -> PongoError:
        is_there = self._at < len(self._tokens)
        near = f" at '{self._tokens[self._at].text}'" if is_there else ""
        return PongoError(self._line, f"{message}{near}")

    def _expression(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise PongoError(self._line, f"expressions are nested deeper than {MAX_DEPTH}")
        while True:
            self._relation()
            if not (self._match("symbol", "&&", "||") or self._match("keyword", "and", "or")):
                break
        self._depth -= 1

    def _relation(self) -> None:
        self._sum()
        while self._match("symbol", *_COMPARE):
            self._sum()
        if self._match("keyword", "in"):
            self._sum()

    def _sum(self) -> None:
        self._match("symbol", "+", "-")
        self._match("symbol", "!") or self._match("keyword", "not")
        self._product()
        while self._match("symbol", "+", "-"):
            self._product()

    def _product(self) -> None:
        self._factor()
        while self._match("symbol", "*", "/", "%", "^"):
            self._factor()

    def _factor(self) -> None:
        if not self._match("symbol", "("):
            self._value()
            while self._match("symbol", "|"):
                self._filter()
            return
        self._expression()
        if not self._match("symbol", ")"):
            raise self._error("')' is expected")

    def _filter(self) -> None:
        name = self.take("name")
        if name is None:
            raise self._error("a filter's name is expected behind '|'")
        if name.text not in FILTERS:
            raise self._error(f"'{name.text}' is no filter of pongo2")
        if self._match("symbol", ":"):
            self._value()

    def _value(self) -> None:
        if self.take("number", "string") or self._match("keyword", "true", "false"):
            return
        name = self.take("name")
        if name is None:
            raise self._error("an expression is expected")
        self._names.used.add(name.text)
        while True:
            if self._match("symbol", "."):
                if self.take("name", "number") is None:
                    raise self._error("a name or a number is expected behind '.'")
            elif self._match("symbol", "("):
                count = self._arguments()
                if name.text == "config_get" and count != 2:
                    raise self._error("config_get needs a key and a default")
            else:
                return

    def _arguments(self) -> int:
        """The arguments of a call. Returns how many they are."""
        count = 0
        while not self._match("symbol", ")"):
            self._expression()
            count += 1
            if self._match("symbol", ")"):
                break
            if not self._match("symbol", ","):
                raise self._error("',' or ')' is expected")
        return count
