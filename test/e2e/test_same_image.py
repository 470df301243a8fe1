"""The same definition and lock give the same fingerprint, whoever builds them, where and when."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import later
import pytest
import staging
from users import USER, UsersPlace
from workshop import Workshop

IMAGE = "debian-12.tar.zst"


class Elsewhere(UsersPlace):
    """An ordinary user's store, on one processor of the machine."""

    def command(self, fd: int) -> list[str]:
        return ["taskset", "--cpu-list", "0", *super().command(fd)]


@pytest.fixture(name="folder")
def fixture_folder() -> Iterator[Path]:
    """A directory whose parents everybody may search; tmp_path has others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_a_users_image_of_another_time_and_place_is_roots(
    shop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not staging.can_run() or not shutil.which("faketime") or not shutil.which("newuidmap"):
        pytest.skip("needs user namespaces, faketime and newuidmap")
    printed = shop.call("plan", "--manifest", shop.path / "debian-12/image.yaml")
    assert printed.returncode == 0, printed.stderr
    what = json.loads(printed.stdout)
    rootfs = what["pipelines"][0]
    rootfs["stages"] = later.lived(rootfs["stages"])
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("BUILDS_UMASK", "077")
    theirs = Elsewhere(folder / USER)
    code, records = theirs.build(what, exports=("incus-unified",))
    assert code == 0, records[-3:]
    assert later.days(records)
    assert not later.days(records) & later.present()
    known = shop.artifacts("debian-12")[IMAGE]
    image = theirs.output.parent / "incus-unified" / IMAGE
    assert image.stat().st_uid != 0
    assert hashlib.sha256(image.read_bytes()).hexdigest() == known["fingerprint"]
