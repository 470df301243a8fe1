"""What runs in a sandbox fits into every build root: Python 3.9 and a handful of our files."""

import ast
from pathlib import Path

from modules import executables
from syntax import imports, statements

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"
INSIDE = [*sorted((PACKAGE / "inside").rglob("*.py")), *executables("stages")]
# Only these of our files are in the sandbox.
CARRIED = {"osbuild_pika.inside", "osbuild_pika.wire", "osbuild_pika.lifecycle"}
OLDEST_PYTHON = (3, 9)


def postpones_annotations(path: Path) -> bool:
    """Say whether no annotation is evaluated, or there is none that Python 3.9 could not."""
    text = path.read_text()
    nodes = statements(path, OLDEST_PYTHON)
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imported for alias in node.names}
    is_plain = path.parent.name == "stages" and " | " not in text
    return "annotations" in names or is_plain or not imported


def test_it_parses_as_the_oldest_python() -> None:
    # What only fails when it runs is seen by test/mod/test_report_shell.py and test_stage.py.
    paths = [*INSIDE, PACKAGE / "wire.py"]
    assert not [path for path in paths if not postpones_annotations(path)]


def test_it_imports_only_what_is_carried_along() -> None:
    assert not [
        f"{path}: imports {name}"
        for path in INSIDE
        for name in imports(path)
        if name.startswith("osbuild_pika") and ".".join(name.split(".")[:2]) not in CARRIED
    ]
