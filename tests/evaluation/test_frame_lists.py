"""BP4D's lists with networks that score single frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import Miniature
from PIL import Image
from toy_network import Toy, toy_config

from pyfau.errors import OptionError
from pyfau.evaluation import ListOptions, evaluate_lists
from pyfau.evaluation.lists import read_list
from pyfau.evaluation.protocol import aligned_part, predict, read_aligned
from pyfau.models.frame_config import FrameConfig
from pyfau.models.paper import DATA_SETS
from pyfau.models.protocol import Crop
from pyfau.models.zoo import megraphau_config, opengraphau_config
from pyfau.weights.networks import NETWORKS, single_frame
from pyfau.weights.store import save_model

pytest.importorskip("sklearn", reason="figures need scikit-learn")

WHOLE = Crop("template", template=DATA_SETS["bp4d"].template)


def toy(crop: Crop) -> Toy:
    torch.manual_seed(0)
    return Toy(toy_config(crop)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return Miniature(tmp_path_factory.mktemp("bp4d"), "bp4d", frames=8)


def test_a_list_is_scored_frame_by_frame(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "toy", single_frame(Toy, lambda state: None, "a toy"))
    model = toy(WHOLE)
    save_model(model, tmp_path / "toy")
    options = ListOptions(
        root=mini.root,
        model=str(tmp_path / "toy"),
        fold=1,
        predictions=tmp_path / "predictions",
        more=True,
        device="cpu",
        batch_size=5,
    )
    report = evaluate_lists("bp4d", mini.lists, options)
    assert set(report["folds"]["1"]["aus"]) == {"AU01", "AU12"}
    assert report["folds"]["1"]["aus"]["AU12"]["auc"] is not None
    frames = read_list("bp4d", mini.lists, 1)
    folder = mini.root / "img"
    scores = predict(model, frames, folder, batch_size=3).scores
    assert scores.shape == (len(frames), len(model.config.outputs))
    for i in (0, len(frames) - 1):
        crop = read_aligned(folder / frames.paths[i], 224)
        alone = model.encode(model.preprocess(crop[None]))[0].numpy()
        np.testing.assert_allclose(scores[i], alone, atol=1e-6)
    # The stored scores give the same figures, without network and images.
    again = ListOptions(rescore=True, fold=1, predictions=tmp_path / "predictions", more=True)
    assert evaluate_lists("bp4d", mini.lists, again)["folds"] == report["folds"]


def test_the_middle_of_aligned_images(tmp_path: Path) -> None:
    assert aligned_part(toy_config(WHOLE), "bp4d") == 1.0
    middle = megraphau_config("bp4d", "resnet50", 2)
    assert aligned_part(middle, "bp4d") == pytest.approx(224 / 256)
    assert aligned_part(middle, "disfa") == 1.0  # another template: the report has a note
    with pytest.raises(OptionError, match="needs raw images and --align"):
        aligned_part(opengraphau_config("resnet18", 1), "bp4d")
    rows = np.mgrid[:256, :256][0].astype(np.uint8)
    Image.fromarray(np.stack([rows] * 3, axis=2)).save(tmp_path / "a.png")
    part = read_aligned(tmp_path / "a.png", 224, 224 / 256)
    assert part.shape == (224, 224, 3)
    assert part[0, 0, 0] == 16
    assert part[-1, 0, 0] == 239


def test_a_crop_of_another_kind_needs_raw_images(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "toy", single_frame(Toy, lambda state: None, "a toy"))
    save_model(toy(Crop("ffhq")), tmp_path / "toy")
    options = ListOptions(
        root=mini.root,
        model=str(tmp_path / "toy"),
        fold=1,
        predictions=tmp_path / "predictions",
        device="cpu",
    )
    with pytest.raises(OptionError, match="needs raw images"):
        evaluate_lists("bp4d", mini.lists, options)
    assert FrameConfig.from_json(toy_config(WHOLE).to_json()) == toy_config(WHOLE)
