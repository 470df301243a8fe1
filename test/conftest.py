"""Fails a run in which a test that must run did not.

OSBUILD_PIKA_MUST_RUN names a file with one test id a line; a prefix stands for all tests below it
(a file, or a test without its parameters). .ci/run sets it on machines that can run everything.
"""

import os
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

# Who starts us in the background has us ignore SIGINT, and so all whom we start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("loaded", deadline=None)  # machines are shared
hypothesis.settings.load_profile("loaded")

PASSED: set[str] = set()
SKIPPED: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        SKIPPED.add(report.nodeid)
    elif report.when == "call" and report.passed:
        PASSED.add(report.nodeid)


def missing(wanted: str, passed: set[str], skipped: set[str]) -> list[str]:
    """The ids of a must-run file that no test answers to, or only one that was skipped."""

    def below(name: str, tests: set[str]) -> bool:
        return any(test == name or test.startswith((f"{name}[", f"{name}::")) for test in tests)

    lines = [line.strip() for line in wanted.split("\n")]
    names = [line for line in lines if line and not line.startswith("#")]
    return [name for name in names if below(name, skipped) or not below(name, passed)]


class _Files(LoadFileScheduling):  # type: ignore[misc]
    """A file is one worker's, for its fixtures; test/e2e is, for the Incus that it shares."""

    def _split_scope(self, nodeid: str) -> str:
        return "e2e" if nodeid.startswith("test/e2e/") else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    return _Files(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("OSBUILD_PIKA_MUST_RUN")
    is_worker = hasattr(session.config, "workerinput")  # it has seen a part only
    if not path or is_worker or session.config.option.collectonly:
        return
    names = missing(Path(path).read_text(), PASSED, SKIPPED)
    if names:
        print(f"\nmust run and pass here, but did not: {', '.join(names)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
