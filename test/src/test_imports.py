"""What is not imported: what is started often takes hardly longer than its imports."""

import subprocess
import sys
from pathlib import Path

from syntax import calls

PACKAGE = Path(__file__).parents[2] / "osbuild_pika"

# dataclasses: 20 ms with what it imports, and 1.5 ms for each frozen class.
EXPENSIVE = {"ast", "asyncio", "dataclasses", "inspect", "jsonschema", "ssl", "urllib.request"}
PROGRAM = """
import sys
from osbuild_pika.engine import entry, known, load, reporting, session
print(*sys.modules)
"""


# What only a stage that runs, or an input's service, makes a build need.
OF_STAGES = {"random", "secrets", "shutil", "socket", "tempfile"}


def test_a_build_does_without_what_is_expensive() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE)
    imported = set(done.stdout.decode().split())
    assert "osbuild_pika.engine.build" in imported
    assert not (EXPENSIVE | OF_STAGES) & imported


# re with enum, which it needs: a third of such a process. json imports it, typing and getopt too.
OF_SHORT_LIVES = EXPENSIVE | {"argparse", "enum", "json", "pathlib", "re", "subprocess", "typing"}
STAGE = """
import sys
from osbuild_pika.inside import stage
def main(options, report):
    report.event("is there", options)
try:
    stage.run(main, sys.argv[1])
finally:
    print(*sys.modules)
"""
EVENT = """
import sys
from osbuild_pika.cli import main
try:
    main()
finally:
    print(*sys.modules)
"""


def without_site(program: str, *arguments: str) -> set[str]:
    """The modules of a program of ours, without those that site found on this machine."""
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})"
    words = [sys.executable, "-I", "-S", "-c", f"{path}\n{program}", *arguments]
    return set(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode().split())


def test_a_build_is_started_before_more_is_loaded() -> None:
    imported = without_site("import sys, osbuild_pika.buildprocess; print(*sys.modules)")
    assert "subprocess" in imported
    assert not {"json", "pathlib", "typing"} & imported


def test_a_stage_does_without_what_is_expensive(tmp_path: Path) -> None:
    arguments = tmp_path / "arguments"
    arguments.write_text('{"tree": "/", "options": {"a": [1, null]}}')
    imported = without_site(STAGE, str(arguments))
    assert "osbuild_pika.inside.stage" in imported
    assert not OF_SHORT_LIVES & imported


def test_the_lifecycle_service_does_without_what_is_expensive() -> None:
    program = "import sys, osbuild_pika.lifecycle_service.service; print(*sys.modules)"
    imported = without_site(program)
    assert "osbuild_pika.lifecycle_service.record" in imported
    assert not (OF_SHORT_LIVES - {"enum"}) & imported


def test_one_event_does_without_what_is_expensive(tmp_path: Path) -> None:
    log = ["--events-path", str(tmp_path / "events.jsonl"), "--kind", "ready", "--message", "up"]
    for _ in range(2):  # the second reads what the first wrote
        imported = without_site(
            EVENT, "lifecycle", "event", *log, "--details-json", '{"port": 22, "name": "\\u00e9"}'
        )
        assert "osbuild_pika.lifecycle" in imported
        assert not (OF_SHORT_LIVES | {"collections"}) & imported


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
    found = [call for path in PACKAGE.rglob("*.py") for call in calls(path, "select.select")]
    assert found == []
