"""How a stage tells what the linter found, and fails for it."""

from __future__ import annotations

from osbuild_pika.inside.lint.finding import ERROR
from osbuild_pika.inside.reporter import note
from osbuild_pika.inside.stage import StageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from osbuild_pika.inside.lint.finding import Finding
    from osbuild_pika.inside.reporter import Reporter

MAX_EVENTS = 50  # findings that are told one by one


def judge(findings: Sequence[Finding], report: Reporter) -> None:
    """Tell each finding in a line of its own. Raises StageError if one of them is an error."""
    for finding in findings:
        note(str(finding))
    for finding in findings[:MAX_EVENTS]:
        details = {"code": finding.code, "severity": finding.severity, "path": finding.path}
        report.event(str(finding), details, name=f"lint.{finding.severity}")
    errors = [str(finding) for finding in findings if finding.severity == ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if errors[1:] else ""
        raise StageError(f"{errors[0]}{more}")
