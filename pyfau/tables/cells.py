"""Text in CSV files that people open with a spreadsheet.

A spreadsheet treats a cell that begins with "=", for example, as a formula, and runs it. File names
can begin with any character. So such text gets an apostrophe in front, which spreadsheets read as
"this is text". `read_cell` removes it again, so every text is read back unchanged.
"""

from __future__ import annotations

import re

_FORMULA = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"  # the last four are full-width forms
_TO_GUARD = re.compile(f"'*{_FORMULA}")
_GUARDED = re.compile(f"'+{_FORMULA}")


def guard_cell(text: str) -> str:
    """The text for a CSV file, so that a spreadsheet treats it as text.

    If apostrophes are in front of the start of a formula, one more is added, so that `read_cell`
    restores the text exactly.
    """
    return f"'{text}" if _TO_GUARD.match(text) else text


def read_cell(text: str) -> str:
    """The text that `guard_cell` wrote."""
    return text[1:] if _GUARDED.match(text) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may treat a text as a formula."""
    return re.match(_FORMULA, text) is not None
