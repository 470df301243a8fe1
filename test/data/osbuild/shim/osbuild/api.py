"""What a stage says to the engine."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from .util import jsoncomm


def metadata(data: Any, path: str = "/run/osbuild/meta") -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file)


@contextlib.contextmanager
def exception_handler(path: str = "/run/osbuild/api/osbuild") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        lines = "".join(traceback.format_tb(error.__traceback__))
        said = {"type": type(error).__name__, "value": str(error), "traceback": lines}
        sys.stderr.flush()
        jsoncomm.Socket(path).send({"method": "exception", "exception": said})
        sys.exit(2)
