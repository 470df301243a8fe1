"""The one place that makes foreign text safe to show.

Messages, names and logs come from stages, guests and downloads. Shown as they are they could move
the cursor, forge lines, hide or reorder what stands beside them, or give orders to a CI system
that reads our output.
"""

import re

MAX_CHARS = 1000  # of one shown text

_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# C0, DEL and C1 controls; what is invisible or turns the direction of text; lone surrogates; tags.
# The joiners U+200C and U+200D stay: scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
# Orders to CI systems: `::name::` begins a line; `##[name]` and `##vso[name]` work anywhere.
_ORDER = re.compile(r"^(\s*):(?=:)")
_OLD_ORDER = re.compile(r"##(?=(?:vso)?\[)")


def one_line(text: str, limit: int = MAX_CHARS) -> str:
    """Return foreign text as one line that can be shown anywhere.

    Line breaks and tabs become a space; every other control, invisible, direction-turning or
    unencodable character becomes U+FFFD. What a CI system would take for an order is broken by a
    space. limit: characters; what is longer ends with "...".
    """
    shown = _UNSAFE.sub("\ufffd", _BREAKS.sub(" ", text[:limit]))
    shown = _OLD_ORDER.sub("# #", _ORDER.sub(r"\1: ", shown))
    is_whole = max(len(text), len(shown)) <= limit
    return shown if is_whole else shown[: limit - 3] + "..."
