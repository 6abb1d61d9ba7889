"""What every network states about itself."""

from __future__ import annotations

import pytest
import torch

from pyfau.errors import InputError
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import CONTEXT
from pyfau.models.protocol import AUNetwork, Crop, Licence, Output
from pyfau.models.zoo import (
    fmae_config,
    libreface_config,
    megraphau_config,
    opengraphau_config,
    pyfeat_config,
)
from pyfau.weights.store import load_model

CONFIGS = {
    "opengraphau": opengraphau_config("resnet18", 2),
    "megraphau": megraphau_config("disfa", "swin_t", 1),
    "libreface": libreface_config(joint=True),
    "fmae": fmae_config("bp4d", "vit_s"),
    "pyfeat": pyfeat_config(),
}


class Brightness(FrameNetwork):
    """A toy network: the mean of each channel of a frame."""

    def score_frames(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)).sigmoid()


def toy() -> Brightness:
    config = FrameConfig(
        name="toy",
        network="toy",
        backbone="none",
        variant="mean",
        outputs=(Output(1), Output(12, side="left"), Output(12, side="right")),
        crop=Crop("ffhq"),
        licence=Licence("MIT", "MIT", commercial=True),
        thresholds=(0.5,) * 3,
    )
    return Brightness(config)


def test_mdhr_states_its_context_outputs_and_crop() -> None:
    model = load_model()
    assert isinstance(model, AUNetwork)
    assert model.context == CONTEXT == 7
    assert tuple(output.column for output in model.config.outputs) == model.config.au_names
    assert model.config.crop == Crop("template", model.config.template)


def test_frames_are_scored_one_by_one() -> None:
    model = toy()
    assert isinstance(model, AUNetwork)
    assert model.context == 0
    pixels = torch.randint(0, 256, (2, 3, 224, 224, 3), dtype=torch.uint8)
    x = model.preprocess(pixels)
    scores = model(x)
    assert scores.shape == (2, 3, 3)
    single = model(x[1:, 2:])
    torch.testing.assert_close(single[0, 0], scores[1, 2])
    assert torch.equal(model.preprocess(pixels.numpy()), x)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 3, 224, 224),
        torch.zeros(1, 2, 3, 112, 112),
        torch.zeros(1, 0, 3, 224, 224),
        torch.zeros(1, 2, 3, 224, 224, dtype=torch.float64),
    ],
)
def test_other_inputs_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(
        InputError, match=r"expected normalised float32 frames \(B, T, 3, 224, 224\)"
    ):
        toy()(x)
    with pytest.raises(InputError, match="expected uint8 crops"):
        toy().preprocess(x)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_its_file(name: str) -> None:
    config = CONFIGS[name]
    assert FrameConfig.from_json(config.to_json()) == config
    assert not config.licence.commercial
    assert len(config.au_names) == len(set(config.au_names))


def test_columns_state_kind_and_side() -> None:
    libreface, opengraphau = CONFIGS["libreface"], CONFIGS["opengraphau"]
    assert libreface.au_names[:2] == ("AU01_r", "AU02_r")
    assert libreface.au_names[12:14] == ("AU01", "AU02")
    assert libreface.outputs[0].range == (0.0, 5.0)
    assert opengraphau.au_names[-4:] == ("AU12L", "AU12R", "AU14L", "AU14R")
    # The template of MDHR in the middle 224 of 256 pixels.
    assert CONFIGS["megraphau"].template[0] == pytest.approx((0.351, 0.260), abs=1e-3)
