"""No file holds what a merge left."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("bench", "docs", "examples", "nix", "osbuild_pika", "schemas", "stages", "test")
LEFT = re.compile(rb"^(<{7} |>{7} |={7}$)", re.MULTILINE)


def test_no_merge_left_its_marks() -> None:
    texts = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file()]
    texts += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    assert len(texts) > 500
    assert not [path for path in texts if LEFT.search(path.read_bytes())]
