"""Fails a run in which a test that must run did not.

OSBUILD_PIKA_MUST_RUN names a file with one test id a line; a prefix stands for all tests below it
(a file, or a test without its parameters). .ci/run sets it on machines that can run everything.
"""

import os
from pathlib import Path

import pytest

PASSED: set[str] = set()
SKIPPED: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        SKIPPED.add(report.nodeid)
    elif report.when == "call" and report.passed:
        PASSED.add(report.nodeid)


def below(name: str, tests: set[str]) -> list[str]:
    """The tests that an id or prefix stands for."""
    return [test for test in tests if test == name or test.startswith((f"{name}[", f"{name}::"))]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("OSBUILD_PIKA_MUST_RUN")
    if not path or session.config.option.collectonly:
        return
    lines = [line.strip() for line in Path(path).read_text().split("\n")]
    wanted = [line for line in lines if line and not line.startswith("#")]
    missing = [name for name in wanted if below(name, SKIPPED) or not below(name, PASSED)]
    if missing:
        print(f"\nmust run and pass here, but did not: {', '.join(missing)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
