"""Every image file is opened through the list of formats in pyfau.media."""

from __future__ import annotations

import ast
from pathlib import Path

import pyfau

PACKAGE = Path(pyfau.__file__).parent


def calls_without_formats(path: Path) -> list[int]:
    """Lines of the calls of `Image.open` that do not limit the formats."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        named = {keyword.arg for keyword in node.keywords}
        is_open = node.func.attr == "open" and getattr(node.func.value, "id", "") == "Image"
        if is_open and "formats" not in named:
            lines.append(node.lineno)
    return lines


def test_no_module_lets_pillow_choose_the_format() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {path.name: lines for path in files if (lines := calls_without_formats(path))}
    assert found == {}


def test_the_check_sees_a_call(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("from PIL import Image\nImage.open(x)\nImage.open(x, formats=['PNG'])\n")
    assert calls_without_formats(path) == [2]
