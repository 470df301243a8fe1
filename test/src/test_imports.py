"""What is not imported: a cached build, or a check, takes hardly longer than its imports."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"

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


CHECK = """
import sys
from osbuild_pika.cli import verbs
try:
    verbs.osbuild_pika(["check", sys.argv[1]])
finally:
    print(*sys.modules)
"""


def test_a_check_of_a_definition_does_without_what_reads_images(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_text("name: web\nfrom: debian/bookworm\n")
    words = [sys.executable, "-c", CHECK, str(path)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    imported = set(done.stdout.decode().split())
    assert "osbuild_pika.image.definition" in imported
    assert not {"osbuild_pika.imagefile", "osbuild_pika.verify", "tarfile"} & imported


def test_nobody_waits_by_a_call_that_fails_above_1023_descriptors() -> None:
    calls = [
        f"{path}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "select.select"
    ]
    assert calls == []
