"""Fails a run in which a test that must run did not.

OSBUILD_PIKA_MUST_RUN names a file with one test id a line (a prefix also counts: a file, or a
test without its parameters). .ci/run sets it on machines that can run everything.
"""

import os
from pathlib import Path

import pytest

PASSED: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        PASSED.add(report.nodeid)
    elif report.skipped or report.failed:
        PASSED.discard(report.nodeid)


def not_run(wanted: list[str], passed: set[str]) -> list[str]:
    """The wanted ids that no passed test answers to."""
    return [
        name
        for name in wanted
        if not any(test == name or test.startswith((f"{name}[", f"{name}::")) for test in passed)
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("OSBUILD_PIKA_MUST_RUN")
    if not path or session.config.option.collectonly:
        return
    lines = (line.strip() for line in Path(path).read_text().split("\n"))
    missing = not_run([line for line in lines if line and not line.startswith("#")], PASSED)
    if missing:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"\nmust run and pass here, but did not: {', '.join(missing)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
