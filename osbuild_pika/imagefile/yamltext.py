"""metadata.yaml of foreign images: YAML, by PyYAML's safe loader; ours is JSON and needs none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from osbuild_pika.inside.lint.unpacked import ParseError

MAX_DEPTH = 50


def parse(text: bytes) -> Any:
    """What a YAML text says; dates and numbers as Python's. Raises ParseError in one line."""
    if text.lstrip().startswith(b"{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # YAML takes more than JSON
    import yaml  # 15 ms that our own images do not need

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml.parse(text, loader))
        return yaml.load(text, loader)  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ParseError(f"{place}is no YAML: {problem.problem}") from None
    except (yaml.YAMLError, ValueError) as problem:
        raise ParseError(f"is no YAML: {' '.join(str(problem).split())}") from None


def _check_depth(events: Iterator[Any]) -> None:
    """The C loader overflows its stack where lists lie in lists in lists. Raises ParseError."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MAX_DEPTH:
            raise ParseError(f"is nested more than {MAX_DEPTH} deep")
