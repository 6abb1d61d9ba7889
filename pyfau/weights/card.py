"""Model cards: the README.md of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyfau.aus import AU_NAMES
from pyfau.models.config import MDHRConfig
from pyfau.types import au_name


def model_card(config: MDHRConfig, facts: Mapping[str, Any] | None = None) -> str:
    """The text of a model card, in Markdown with the header that the Hugging Face Hub reads.

    Args:
        config: Of the network.
        facts: The manifest's entry of this model: licences, training data and its terms, source, reported metrics. What
            it lacks is said to be not stated.
    """
    facts = facts or {}

    def fact(name: str) -> str:
        return str(facts.get(name, "not stated"))

    units = "\n".join(
        f"| {i} | {au_name(au)} | {AU_NAMES.get(au_name(au), '')} | {threshold:g} |"
        for i, (au, threshold) in enumerate(zip(config.aus, config.thresholds, strict=True))
    )
    points = "\n".join(
        f"| {name} | {x:g} | {y:g} |"
        for name, (x, y) in zip(
            ("left eye of the picture", "right eye of the picture", "nose", "left mouth corner", "right mouth corner"),
            config.template,
            strict=True,
        )
    )
    regions = "; ".join(
        f"{r.name} (rows {r.rows[0]} to {r.rows[1] - 1} of the grid): {' '.join(map(str, r.aus))}"
        for r in config.regions
    )
    calibrated = "calibrated on data like those of training" if config.calibration else "not a calibrated probability"
    return f"""---
library_name: pyfau
license: other
tags:
- facial-action-units
- facs
- {config.network}
---
# {config.name}

Facial action units (AUs) with pyfau: network `{config.network}`, backbone `{config.backbone}`, version
{config.version}.

```python
from pyfau import AUDetector

detector = AUDetector("path/to/this/folder")  # on the Hub: AUDetector("user/repo", revision="<commit>")
result = detector.detect_video("clip.mp4")
```

## What comes out
One score for each AU and frame, in this order. A score is in [0, 1] and says how surely the AU is present. It is
**not** an intensity, and {calibrated}. `active` means score >= threshold.

| column | AU | name | threshold |
|---|---|---|---|
{units}

Regions: {regions}.

## What goes in
Face crops of {config.input_size} x {config.input_size} pixels, RGB, aligned so that the landmarks come to lie here, in
fractions of the crop (pyfau does it). Mean {", ".join(f"{m:g}" for m in config.mean)}, standard deviation \
{", ".join(f"{s:g}" for s in config.std)}, for pixels in [0, 1].

| landmark | x | y |
|---|---|---|
{points}

## Licence and data
- Code: {fact("code_licence")}
- Weights: {fact("weights_licence")}
- Training data: {fact("training_data")}
- Its terms: {fact("training_terms")}
- Source: {fact("source")}
- These weights: {config.source or "not stated"}

## Reported accuracy
{_metrics(facts.get("reported_metrics"))}

## Limits
Action units describe movements of a face. They do not say what a person feels, thinks or intends, and these scores must
not be used to decide about people.
"""


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not stated."
    lines = [f"Protocol: {metrics['protocol']}. These are the source's figures; pyfau has not repeated them.", ""]
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
