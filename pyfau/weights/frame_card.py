"""Model cards of networks that score single frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyfau.aus import AU_NAMES, au_name
from pyfau.models.frame_config import FrameConfig
from pyfau.models.protocol import Crop
from pyfau.weights.card import CARD_LIMITS, card_head


def frame_card(config: FrameConfig, facts: Mapping[str, Any] | None = None) -> str:
    """The text of a model card, in Markdown with the header that the Hugging Face Hub reads.

    Args:
        config: Configuration of the network.
        facts: The manifest's entry of this model, such as its training data.
    """
    facts = facts or {}
    use = "yes" if config.licence.commercial else "**no**"
    mean = ", ".join(f"{value:g}" for value in config.mean)
    std = ", ".join(f"{value:g}" for value in config.std)
    return f"""{card_head(config.name, config.network)}
Facial action units (AUs) with pyfau: network `{config.network}` ({config.variant}), backbone
`{config.backbone}`, version {config.version}. It scores single frames.

```python
import pyfau

network = pyfau.load_model("path/to/this/folder")
```

## Outputs

In this order:

| column | AU | kind | side | threshold |
|---|---|---|---|---|
{_rows(config)}

{_kinds(config)}

An occurrence says how sure the network is that the AU is present. It is not an intensity. An output
at or above its threshold is active.

## Input

Face crops of {config.input_size} x {config.input_size} pixels, RGB. Mean {mean}, standard deviation
{std}, for pixels in [0, 1]. Crop: {describe_crop(config.crop)}
Default aligner: `{config.aligner}`.

## Licence and data

- Code of the authors: {config.licence.code}
- Weights: {config.licence.weights}
- Commercial use: {use}
- Training data: {facts.get("training_data", "not stated")}
- These weights: {config.source or "not stated"}

{CARD_LIMITS}"""


def _rows(config: FrameConfig) -> str:
    """The rows of the table of outputs."""
    outputs = zip(config.outputs, config.thresholds, strict=True)
    return "\n".join(
        f"| {output.column} | {AU_NAMES.get(au_name(output.au), '')} | {output.kind} "
        f"| {output.side or 'both'} | {threshold:g} |"
        for output, threshold in outputs
    )


def _kinds(config: FrameConfig) -> str:
    """The range of each kind of output."""
    ranges = {output.kind: output.range for output in config.outputs}
    return "\n".join(
        f"- {kind}: in [{low:g}, {high:g}]" for kind, (low, high) in sorted(ranges.items())
    )


def describe_crop(crop: Crop) -> str:
    """How the face is cut out, in a sentence."""
    middle = ""
    if crop.keep < 1:
        middle = f" The network gets the middle {crop.keep:.1%} of each side."
    if crop.kind == "template":
        points = ", ".join(f"({x:.3f}, {y:.3f})" for x, y in crop.template)
        return f"the landmarks come to lie on {points}, in fractions of the crop.{middle}"
    if crop.kind == "ffhq":
        return f"the similarity of the FFHQ data set.{middle}"
    shape = "grown to a square by its longer side" if crop.square else "stretched to a square"
    return (
        f"the box of {crop.detector}, with {crop.margin:.0%} added on each side, {shape}. Pixels "
        f"outside the image: {crop.outside}.{middle}"
    )
