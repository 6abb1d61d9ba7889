"""`weights_manifest.json`: the models that pyfau knows by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pyfau.errors import WeightsError

STATUSES = ("bundled", "hub", "convert")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One model of the manifest.

    Attributes:
        name: For example "mdhr-resnet50-bp4d-fold1".
        status: "bundled" (in the wheel), "hub" (on the Hugging Face Hub, pinned) or "convert" (nobody has published
            it; the authors' own file must be fetched by hand).
        record: All fields of the entry.
    """

    name: str
    status: str
    record: Mapping[str, Any]

    @property
    def description(self) -> str:
        """One line for people."""
        fold = f", fold {self.record['fold']}" if "fold" in self.record else ""
        return f"{self.record['backbone']} on {self.record['data']}{fold}, {len(self.record['aus'])} AUs"


def _manifest_text() -> str:
    """The wheel carries the manifest inside the package; a checkout has it at the top level."""
    inside = files("pyfau") / "weights_manifest.json"
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    above = Path(__file__).resolve().parents[2] / "weights_manifest.json"
    if above.is_file():
        return above.read_text(encoding="utf-8")
    raise WeightsError("weights_manifest.json is missing from this installation of pyfau: install it again")


@cache
def read_manifest() -> dict[str, ManifestEntry]:
    """All models by name.

    Raises:
        WeightsError: The manifest is missing or malformed.
    """
    try:
        models = json.loads(_manifest_text())["models"]
        entries = {name: ManifestEntry(name, record["status"], record) for name, record in models.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"weights_manifest.json is malformed: {error!r}") from error
    for entry in entries.values():
        if entry.status not in STATUSES:
            raise WeightsError(
                f"weights_manifest.json: {entry.name} has status {entry.status!r}, not one of {STATUSES}"
            )
    return entries
