"""The files of tests/data: listed with their hashes, unchanged, and small."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
LIMIT = 6_000_000  # bytes


def listed() -> dict[str, str]:
    """The sha256 of each file that a README names, by its path in tests/data."""
    hashes = {}
    for readme in DATA.rglob("README.md"):
        for name, digest in re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", readme.read_text()):
            hashes[(readme.parent / name).relative_to(DATA).as_posix()] = digest
    return hashes


def test_every_file_is_listed_and_unchanged() -> None:
    files = [path for path in DATA.rglob("*") if path.is_file() and path.name != "README.md"]
    found = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert found == listed()


def test_every_clip_and_image_has_a_source_and_a_licence() -> None:
    rows = re.findall(
        r"^\| `([^`/]+)` \| .+ \| .+ \| .+ \|$", (DATA / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(path.name for path in (DATA / "media").iterdir())


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < LIMIT
