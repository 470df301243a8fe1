"""`verify` on what guests and strangers write: a guest's word is no verdict."""

from pathlib import Path

import pytest

from osbuild_pika.lifecycle import Journal, boot_id
from osbuild_pika.verify import verify


@pytest.mark.parametrize("later_boot", ["", "f00d"])
def test_a_guest_may_start_again_after_a_failure(later_boot: str, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with Journal(tmp_path) as journal:
        journal.append("failed", "the unit failed")
        failed = log.read_bytes()
        journal.append_many([("booted", "m", None), ("ready", "it was restarted", None)])
        journal.write_status("ready", "it was restarted")
    boot = (boot_id() or "").encode()
    later = log.read_bytes()[len(failed) :].replace(boot, later_boot.encode() or boot)
    log.write_bytes(failed + later)
    assert verify(tmp_path).faults == ()


def test_a_line_without_end_is_a_fault_and_is_not_read(tmp_path: Path) -> None:
    Journal(tmp_path).append("ready", "m")
    log = tmp_path / "events.jsonl"
    log.write_bytes(b"[" * (2 * 1024 * 1024) + b"\n" + log.read_bytes())
    (fault,) = verify(tmp_path).faults
    assert "has more than 1048576 bytes" in str(fault)
