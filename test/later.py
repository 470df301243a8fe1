"""A tree whose programs live 40 days later. (Those of the engine and the build root do not: their
Python fails at faketime's sleeps.)
"""

from __future__ import annotations

import re
import time
from typing import Any

import builds

DAYS = 40
BEGIN = f"""
cp /usr/lib/*/faketime/libfaketime.so.1 usr/lib/later.so
echo /usr/lib/later.so > etc/ld.so.preload; echo +{DAYS}d > etc/faketimerc
"""
END = "rm etc/ld.so.preload etc/faketimerc usr/lib/later.so"
SAY = {"name": "last", "script": "date --iso-8601"}
Stages = list[dict[str, Any]]


def lived(stages: Stages) -> Stages:
    """The stages of a tree, which live later from the second to the one that cleans up."""
    end = [each["type"] for each in stages].index("org.osbuild-pika.clean")
    say = {"type": "org.osbuild-pika.hook", "options": SAY}
    between = [builds.sh(BEGIN), *stages[1:end], say, builds.sh(END)]
    return [stages[0], *between, *stages[end:]]


def days(records: builds.Records) -> set[str]:
    """The days that programs of the tree saw."""
    texts = "".join(record.get("text", "") for record in records)
    return set(re.findall(r"^\d{4}-\d\d-\d\d$", texts, re.MULTILINE))


def present() -> set[str]:
    """Today, also if midnight has just been."""
    return {time.strftime("%Y-%m-%d", time.gmtime(time.time() + n)) for n in (-300, 0)}
