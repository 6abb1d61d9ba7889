"""Model cards: the README.md of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyfau.aus import AU_NAMES, au_name
from pyfau.models.config import MDHRConfig

CARD_LIMITS = """## Limits
Action units describe movements of a face. They do not show what a person feels, thinks or intends.
Do not use these scores to decide about people.
"""
_LANDMARKS = (
    "left eye of the image",
    "right eye of the image",
    "nose",
    "left mouth corner",
    "right mouth corner",
)


def card_head(name: str, network: str) -> str:
    """The start of a model card: the header that the Hugging Face Hub reads, and the title."""
    return f"""---
library_name: pyfau
license: other
tags:
- facial-action-units
- facs
- {network}
---
# {name}
"""


def model_card(config: MDHRConfig, facts: Mapping[str, Any] | None = None) -> str:
    """The text of a model card, in Markdown with the header that the Hugging Face Hub reads.

    Args:
        config: Of the network.
        facts: The manifest's entry of this model: licences, training data and its terms, source,
            reported metrics. For missing facts, the card says "not stated".
    """
    facts = facts or {}

    def fact(name: str) -> str:
        return str(facts.get(name, "not stated"))

    calibrated = (
        "calibrated on data like those of training"
        if config.calibration
        else "not a calibrated probability"
    )
    return f"""{card_head(config.name, config.network)}
Facial action units (AUs) with pyfau: network `{config.network}`, backbone `{config.backbone}`,
version {config.version}.

```python
from pyfau import AUDetector

# From the Hub: AUDetector("user/repo", revision="<commit>")
detector = AUDetector("path/to/this/folder")
result = detector.detect_video("clip.mp4")
```

## What comes out
One score for each AU and frame, in this order. A score is in [0, 1]: the higher it is, the
surer the model is that the AU is present. It is **not** an intensity, and {calibrated}.
`active` means score >= threshold.

| column | AU | name | threshold |
|---|---|---|---|
{_units(config)}

Regions: {_regions(config)}.

## What goes in
Face crops of {config.input_size} x {config.input_size} pixels, RGB, which pyfau makes with the
aligner `{config.aligner}`, unless the user selects another one. The landmarks are at these
positions, in fractions of the crop. Pixels in [0, 1] are normalised with
the mean {", ".join(f"{m:g}" for m in config.mean)} and the standard deviation
{", ".join(f"{s:g}" for s in config.std)}.

| landmark | x | y |
|---|---|---|
{_points(config)}

## Licence and data
- Code: {fact("code_licence")}
- Weights: {fact("weights_licence")}
- Training data: {fact("training_data")}
- Its terms: {fact("training_terms")}
- Source: {fact("source")}
- These weights: {config.source or "not stated"}

## Reported accuracy
{_metrics(facts.get("reported_metrics"))}

{CARD_LIMITS}"""


def _units(config: MDHRConfig) -> str:
    """The rows of the table of action units."""
    units = zip(config.aus, config.thresholds, strict=True)
    return "\n".join(
        f"| {i} | {au_name(au)} | {AU_NAMES.get(au_name(au), '')} | {threshold:g} |"
        for i, (au, threshold) in enumerate(units)
    )


def _points(config: MDHRConfig) -> str:
    """The rows of the table of landmarks."""
    points = zip(_LANDMARKS, config.template, strict=True)
    return "\n".join(f"| {name} | {x:g} | {y:g} |" for name, (x, y) in points)


def _regions(config: MDHRConfig) -> str:
    return "; ".join(
        f"{r.name} (rows {r.rows[0]} to {r.rows[1] - 1} of the grid): {' '.join(map(str, r.aus))}"
        for r in config.regions
    )


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not stated."
    lines = [
        f"Protocol: {metrics['protocol']}. These are the source's figures; "
        f"pyfau has not repeated them.",
        "",
    ]
    for name, value in metrics.items():
        if name in ("protocol", "version"):
            continue
        if isinstance(value, Mapping):
            names, values = zip(*value.items(), strict=True)
            lines += [f"| {name} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
            lines += [f"| | {' | '.join(f'{v:g}' for v in values)} |", ""]
        else:
            lines += [f"{name}: {value:g}", ""]
    return "\n".join(lines).rstrip()
