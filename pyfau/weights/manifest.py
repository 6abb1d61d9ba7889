"""`weights_manifest.json`: the models that have a name in pyfau.
`docs/weights_manifest.schema.json` states the same rules as JSON Schema; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pyfau.choices import DEFAULT_ALIGNER, MODEL_ALIGNERS
from pyfau.errors import WeightsError
from pyfau.records import parse_json

Status = Literal["bundled", "hub", "official", "convert", "unpinned"]
STATUSES: tuple[Status, ...] = get_args(Status)
MAX_BYTES = (
    4_000_000_000  # of a weights file; an official checkpoint with its optimizer's state has 1.3
)
HUB_ID = (
    r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
)
_MODEL_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
_PLAIN_FILE = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One model of the manifest.

    Attributes:
        name: For example "mdhr-resnet50-bp4d-fold1".
        status: "bundled" (in the wheel), "hub" (on the Hugging Face Hub, pinned), "official" (the
            authors' own file on the Hub, pinned), "convert" (nobody has published it; the
            authors' own file must be fetched by hand) or "unpinned" (nobody has stated its
            commit and hash yet; `pyfau.weights.pin` computes them).
        record: All fields of the entry.
    """

    name: str
    status: Status
    record: Mapping[str, Any]

    @property
    def on_hub(self) -> bool:
        """Whether the Hugging Face Hub has the file."""
        return "repo" in self.record

    @property
    def description(self) -> str:
        """One line for people."""
        fold = f", fold {self.record['fold']}" if "fold" in self.record else ""
        count = len(self.record["aus"])
        return (
            f"{self.record['backbone']} on {self.record['data']}{fold}, {count} AUs, "
            f"aligner {self.aligner}"
        )

    @property
    def aligner(self) -> str:
        """The aligner of `AUDetector(aligner="auto")`, as the config of the model names it."""
        named: str = self.record.get("aligner", DEFAULT_ALIGNER)
        return named


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule for a field, as a check and in words."""

    holds: Callable[[Any], bool]
    expected: str


def _matching(pattern: str, expected: str, most: int = 2000) -> _Rule:
    return _Rule(
        lambda v: isinstance(v, str) and len(v) <= most and bool(re.fullmatch(pattern, v)), expected
    )


def _whole(low: int, high: int) -> _Rule:
    return _Rule(lambda v: type(v) is int and low <= v <= high, f"a whole number in {low}..{high}")


def _is_number(value: Any, low: float = -1e6, high: float = 1e6) -> bool:
    return type(value) in (int, float) and low <= value <= high  # NaN is not


def _are_units(value: Any) -> bool:
    unit = _whole(1, 99).holds
    return (
        isinstance(value, list)
        and 0 < len(value) <= 64
        and all(map(unit, value))
        and len({*value}) == len(value)
    )


def _is_template(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 5
        and all(
            isinstance(p, list) and len(p) == 2 and all(_is_number(c) and 0 < c < 1 for c in p)
            for p in value
        )
    )


def _are_metrics(value: Any) -> bool:
    if not isinstance(value, dict) or "protocol" not in value or len(value) > 100:
        return False
    return all(
        _TEXT.holds(v)
        if key in ("protocol", "version")
        else _is_number(v)
        or (isinstance(v, dict) and len(v) <= 100 and all(map(_is_number, v.values())))
        for key, v in value.items()
    )


_TEXT = _Rule(lambda v: isinstance(v, str) and 0 < len(v) <= 2000, "text of 1..2000 characters")
_WORD = _matching(r"[a-z0-9_]{1,40}", "lower-case letters, digits and _")
_SHA256 = _matching(r"[0-9a-f]{64}", "64 hexadecimal digits")
_COMMON = {
    "status": _Rule(lambda v: v in STATUSES, f"one of {STATUSES}"),
    "network": _WORD,
    "backbone": _WORD,
    "data": _TEXT,
    "aus": _Rule(_are_units, "1..64 different action units in 1..99"),
    "code_licence": _TEXT,
    "weights_licence": _TEXT,
    "training_data": _TEXT,
    "training_terms": _TEXT,
    "source": _TEXT,
}
_OPTIONAL = {
    "fold": _whole(1, 100),
    "version": _TEXT,
    "aligner": _Rule(lambda v: v in MODEL_ALIGNERS, f"one of {MODEL_ALIGNERS}"),
    # Networks with a crop of another kind have none.
    "template": _Rule(_is_template, "five points [x, y] with coordinates in (0, 1)"),
    "reported_metrics": _Rule(_are_metrics, "a protocol in words, numbers, and numbers by name"),
}
_EMPTY = _matching("", 'empty text, "", until `pyfau pin` computes it')
_BYTES = _whole(1, MAX_BYTES)
_REPO = _matching(HUB_ID, "user/repo", 96)
_LINK = _matching(r"https://[!-~]+", "an https:// link", 500)
_REVISION = _matching(r"[0-9a-f]{40}", "a commit of 40 hexadecimal digits, never a branch or tag")
_SAFETENSORS = _matching(
    rf"{_PLAIN_FILE}\.safetensors", "a plain file name ending in .safetensors, no folder", 100
)
_OFFICIAL_FILE = _matching(
    rf"{_PLAIN_FILE}\.(pth|pt|safetensors)",
    "a plain file name ending in .pth, .pt or .safetensors, no folder",
    100,
)
_WEIGHTS = {"file": _SAFETENSORS, "sha256": _SHA256, "bytes": _BYTES}
_BY_STATUS = {
    "bundled": _WEIGHTS | {"version": _TEXT},
    "hub": _WEIGHTS | {"repo": _REPO, "revision": _REVISION, "config_sha256": _SHA256},
    "official": {
        "repo": _REPO,
        "revision": _REVISION,
        "file": _OFFICIAL_FILE,
        "sha256": _SHA256,
        "bytes": _BYTES,
    },
    "convert": {"official_file": _OFFICIAL_FILE, "official_folder": _LINK},
    # The second form is for files that are not on the Hub.
    "unpinned": {"sha256": _EMPTY, "repo": _REPO, "revision": _EMPTY, "file": _OFFICIAL_FILE},
}
_UNPINNED_BY_HAND = {
    "sha256": _EMPTY,
    "official_file": _OFFICIAL_FILE,
    "official_folder": _LINK,
}
# Fields that an entry of this status can have besides those that it must have.
_ALLOWED_BY_STATUS = {"convert": {"sha256": _SHA256, "bytes": _BYTES}}


def parse_manifest(text: str, origin: str = "weights_manifest.json") -> dict[str, ManifestEntry]:
    """Read and check a manifest.

    Args:
        text: The file's contents.
        origin: Name of the file for error messages.

    Raises:
        WeightsError: Not JSON, or a field is missing, unknown or not what it may be; the field is
            named.
    """
    manifest = parse_json(text, origin, WeightsError)
    shaped = isinstance(manifest, dict) and manifest.keys() == {"format", "models"}
    if not shaped or type(manifest["format"]) is not int or manifest["format"] != 1:
        raise WeightsError(
            f'{origin} is malformed: expected {{"format": 1, "models": {{...}}}} and nothing else'
        )
    models = manifest["models"]
    if not isinstance(models, dict) or len(models) > 1000:
        raise WeightsError(
            f"{origin} is malformed: models must be an object of at most 1000 entries"
        )
    return {name: _check_entry(name, record, origin) for name, record in models.items()}


def _check_entry(name: str, record: Any, origin: str) -> ManifestEntry:
    where = f"{origin}: model {name[:100]!r}"
    if not re.fullmatch(_MODEL_NAME, name) or len(name) > 100:
        raise WeightsError(
            f"{where} must be named by lower-case letters and digits with single hyphens between"
        )
    if not isinstance(record, dict):
        raise WeightsError(f"{where} must be an object, got {type(record).__name__}")
    if not _COMMON["status"].holds(record.get("status")):
        raise WeightsError(
            f"{where}: status must be one of {STATUSES}, got {_shown(record.get('status'))}"
        )
    required = _COMMON | _required(record)
    known = _OPTIONAL | _ALLOWED_BY_STATUS.get(record["status"], {}) | required
    missing, unknown = sorted(required.keys() - record.keys()), sorted(record.keys() - known.keys())
    if missing or unknown:
        raise WeightsError(
            f"{where} has status {record['status']!r}: missing fields {missing}, unknown {unknown}"
        )
    for field, value in record.items():
        if not known[field].holds(value):
            raise WeightsError(
                f"{where}: {field} must be {known[field].expected}, got {_shown(value)}"
            )
    return ManifestEntry(name, record["status"], record)


def _required(record: Mapping[str, Any]) -> dict[str, _Rule]:
    """The fields that an entry of this status must have."""
    if record["status"] == "unpinned" and "repo" not in record:
        return _UNPINNED_BY_HAND
    return _BY_STATUS[record["status"]]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _manifest_text() -> str:
    """The wheel has the manifest inside the package; a checkout has it at the top level."""
    inside = files("pyfau") / "weights_manifest.json"
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    above = Path(__file__).resolve().parents[2] / "weights_manifest.json"
    if above.is_file():
        return above.read_text(encoding="utf-8")
    raise WeightsError(
        "weights_manifest.json is missing from this installation of pyfau: install it again"
    )


@cache
def read_manifest() -> dict[str, ManifestEntry]:
    """All models by name.

    Raises:
        WeightsError: The manifest is missing or malformed.
    """
    return parse_manifest(_manifest_text())
