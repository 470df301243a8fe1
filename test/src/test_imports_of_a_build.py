"""What a build's process does not import: a cached build takes hardly longer than its imports."""

import subprocess
import sys

# dataclasses: 20 ms with what it imports, and 1.5 ms for each frozen class.
EXPENSIVE = {"ast", "asyncio", "dataclasses", "inspect", "jsonschema", "ssl", "urllib.request"}
PROGRAM = """
import sys
from osbuild_pika.engine import __main__, known, load, reporting, session
print(*sys.modules)
"""


def test_a_build_does_without_what_is_expensive() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE)
    imported = set(done.stdout.decode().split())
    assert "osbuild_pika.engine.build" in imported
    assert not EXPENSIVE & imported
