"""Foreign text is safe to show once it has passed text.py."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osbuild_pika.text import one_line

SHOWN = {"Zl", "Zp", "Cc", "Cs"}  # categories that must never be shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "plain text, \u017c\u00f3\u0142w \U0001f600",
            "plain text, \u017c\u00f3\u0142w \U0001f600",
        ),
        ("a\nb\r\n\tc", "a b c"),
        ("line\u2028separator\u2029s", "line separator s"),
        ("\x1b[2J\x1b]0;title\x07", "\ufffd[2J\ufffd]0;title\ufffd"),
        ("c1 \x9b31m del \x7f nul \0", "c1 \ufffd31m del \ufffd nul \ufffd"),
        ("abc\u202edcba\u202c", "abc\ufffddcba\ufffd"),
        ("a\u2066b\u2069", "a\ufffdb\ufffd"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("joined \u0645\u06cc\u200c\u062e", "joined \u0645\u06cc\u200c\u062e"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("hidden \U000e0041 tag", "hidden \ufffd tag"),
        ("::error::no", ": :error::no"),
        ("  ::add-mask::x", "  : :add-mask::x"),
        ("\n::error::no", " : :error::no"),
        ("std::string", "std::string"),
        ("##[error]no and ##vso[task]", "# #[error]no and # #vso[task]"),
        ("###[error]", "## #[error]"),
        ("## heading", "## heading"),
        ("", ""),
    ],
)
def test_what_could_do_harm_is_replaced(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_long_text_is_cut_and_says_so() -> None:
    assert one_line("x" * 11, limit=10) == "x" * 7 + "..."
    assert one_line("x" * 10, limit=10) == "x" * 10
    assert one_line("\n" * 11, limit=10) == " ..."
    assert len(one_line("x" * 10**6)) == 1000


@given(st.text(st.characters()), st.integers(5, 40))
def test_every_shown_text_is_one_short_line_that_can_be_encoded(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert len(shown) <= limit
    assert len(shown.encode().decode().splitlines()) <= 1
    assert not {unicodedata.category(char) for char in shown} & SHOWN
    assert not shown.lstrip().startswith("::")


@given(st.text(st.sampled_from("#[:vso \n\t"), max_size=12))
def test_no_order_to_a_ci_system_is_left(text: str) -> None:
    shown = one_line(text)
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    assert "##vso[" not in shown
    assert one_line(shown) == shown
