"""Write the tables of docs/action-units.md from the manifest and the model card.

python docs/au_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "action-units.md"
BUNDLED = "mdhr-lite"
# The paper's networks. The manifest's figures are means over folds, so fold 1 stands for all.
PAPER = {
    "BP4D, ResNet-50": "mdhr-resnet50-bp4d-fold1",
    "BP4D, Swin-B": "mdhr-swinb-bp4d-fold1",
    "DISFA, ResNet-50": "mdhr-resnet50-disfa-fold1",
    "DISFA, Swin-B": "mdhr-swinb-disfa-fold1",
}
CARD_COLUMNS = (
    "r faces",
    "coder faces",
    "F1 faces",
    "r frames",
    "coder frames",
    "F1 frames",
    "intensity r",
    "threshold",
)


def rendered(page: str) -> str:
    """Return the page with its tables up to date."""
    from pyfau.aus import AU_NAMES

    models = json.loads(
        (ROOT / "weights_manifest.json").read_text(encoding="utf-8")
    )["models"]
    # Networks of other projects have more; docs/models.md lists them.
    own = [model for model in models.values() if model["network"] == "mdhr"]
    numbers = sorted({number for model in own for number in model["aus"]})
    names = {
        f"AU{number:02d}": AU_NAMES[f"AU{number:02d}"] for number in numbers
    }
    version = json.loads(
        (ROOT / "pyfau/assets" / BUNDLED / "config.json").read_text(
            encoding="utf-8"
        )
    )["version"]
    card = _card()
    columns = [
        name
        for name in CARD_COLUMNS
        if any(name in row for row in card.values())
    ]
    assert columns, (
        "the model card has none of the columns that the guide shows"
    )

    bundled = [
        [f"{au} {name}", *(card[au].get(c, "") for c in columns)]
        for au, name in names.items()
        if au in card
    ]
    f1 = {
        label: models[name]["reported_metrics"]["f1"]
        for label, name in PAPER.items()
    }
    paper = [
        [f"{au} {name}", *(str(scores.get(au, "")) for scores in f1.values())]
        for au, name in names.items()
    ]
    tables = {
        "bundled": [
            f"`{BUNDLED}`, version {version}:",
            "",
            *_table(["action unit", *columns], bundled),
        ],
        "paper": _table(
            ["action unit", *f1], [row for row in paper if any(row[1:])]
        ),
    }
    for mark, lines in tables.items():
        block = "\n".join(
            [
                f"<!-- {mark}: written by docs/au_tables.py -->",
                "",
                *lines,
                "",
                f"<!-- end {mark} -->",
            ]
        )
        page, count = re.subn(
            rf"<!-- {mark}: .*?<!-- end {mark} -->",
            lambda _, b=block: b,
            page,
            flags=re.S,
        )
        assert count == 1, f"the page lacks its mark {mark}"
    return page


def _card() -> dict[str, dict[str, str]]:
    """Return the model card's table of figures: AU to column to cell."""
    text = (ROOT / "pyfau/assets" / BUNDLED / "README.md").read_text(
        encoding="utf-8"
    )
    for header, body in re.findall(
        r"^(\| AU \|.*)\n\|[-|: ]+\n((?:\|.*\n)+)", text, flags=re.M
    ):
        names = _cells(header)
        if "r faces" in names:
            rows = [
                dict(zip(names, _cells(line), strict=True))
                for line in body.splitlines()
            ]
            return {row["AU"]: row for row in rows}
    raise ValueError("the model card has no table with columns AU and r faces")


def _cells(line: str) -> list[str]:
    """Return the cells of a table row, without their parts in brackets."""
    return [
        cell.partition(" (")[0].strip()
        for cell in line.strip().strip("|").split("|")
    ]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(row)} |"
        for row in (header, ["---"] * len(header), *rows)
    ]


if __name__ == "__main__":
    PAGE.write_text(
        rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8"
    )
