"""Variants without stored outputs, against an independent forward pass in plain PyTorch.

No official outputs exist here for ResNet-101, Swin-S, ViT-S, ViT-L and some stages. The plain
forward agrees with the stored outputs of the others, and reads the official names itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from pyfau.models.frame_config import FrameConfig
from pyfau.models.inference import accelerate
from pyfau.models.zoo import fmae_config, megraphau_config, opengraphau_config
from pyfau.weights import official_frames as rules

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from zoo_plain import plain_scores

VARIANTS = {
    config.name: config
    for config in (
        opengraphau_config("resnet18", 2),
        fmae_config("disfa", "vit_s"),
        megraphau_config("disfa", "resnet101", 2),
        megraphau_config("bp4d", "resnet101", 1),
        megraphau_config("bp4d", "swin_t", 2),
        megraphau_config("disfa", "swin_b", 1),
        opengraphau_config("swin_s", 2),
        opengraphau_config("swin_s", 1),
        opengraphau_config("swin_t", 2),
        fmae_config("bp4d", "vit_l"),
    )
}
FAST = ("opengraphau-s2-resnet18-hybrid", "fmae-vits-disfa")


def recognised(state: dict[str, torch.Tensor]) -> FrameConfig:
    found = [recognise(state) for recognise, _ in rules.OFFICIAL.values()]
    (config,) = [config for config in found if config is not None]
    return config


@pytest.mark.parametrize(
    "name", ["libreface-combined", pytest.param("pyfeat-v28", marks=pytest.mark.slow)]
)
def test_the_plain_forward_gives_the_stored_outputs(name: str) -> None:
    state = zoo.official_state(name)
    with np.load(zoo.case_file(name)) as case, torch.inference_mode():
        scores, _ = plain_scores(recognised(state), state, zoo.images(int(case["seed"])))
        keys = [key for key in ("intensity", "occurrence", "scores") if key in case]
        expected = np.concatenate([case[key] for key in keys], axis=1)
    assert np.abs(scores.numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS],
)
def test_variants_without_stored_outputs(name: str) -> None:
    config = VARIANTS[name]
    state = zoo.made_state(config, salt=3)
    assert recognised(state) == config
    model = rules.build(config).eval().requires_grad_(False)
    model.load_state_dict(rules.from_official(state, config))
    x = zoo.images(7)[:1]
    with torch.inference_mode():
        expected, used = plain_scores(config, state, x)
        assert used >= state.keys()  # each tensor of the file takes part
        assert expected.shape == (1, len(config.outputs))
        assert float(expected.std()) > 1e-3
        assert float((model.encode(x) - expected).abs().max()) <= 1e-5
        accelerate(model, "float32")
        assert float((model.encode(x) - expected).abs().max()) <= 1e-5
