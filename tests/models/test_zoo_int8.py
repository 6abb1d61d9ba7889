"""int8 for networks that score single frames: the heavy part in an engine, the rest in torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn
from toy_network import Toy, toy_config, toy_state

from pyfau import AUDetector
from pyfau.choices import Engine
from pyfau.cli import main
from pyfau.errors import OptionError, WeightsError
from pyfau.models.frame_inference import use_heavy_engine
from pyfau.models.inference import accelerate
from pyfau.models.int8 import score_crops
from pyfau.models.quantise import quantise_encode
from pyfau.weights.quantise import quantise_model
from pyfau.weights.store import load_model

needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs pyfau[onnx]",
)


class Pair(nn.Module):
    """A part with two outputs, of which the network reads the second."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return [x], self.linear(x)


class PairToy(Toy):
    heavy_part = "pair"

    def __init__(self) -> None:
        super().__init__(toy_config())
        self.pair = Pair()

    def score_frames(self, x: Tensor) -> Tensor:
        return self.pair(x.mean(dim=(2, 3)))[1].sigmoid() * self.ranges


@pytest.mark.parametrize("kind", ["one output", "two outputs"])
def test_the_engine_computes_the_heavy_part_only(kind: str) -> None:
    model: Toy = PairToy() if kind == "two outputs" else Toy(toy_config())
    model.eval().requires_grad_(False)
    seen = []

    def run(x: Tensor) -> list[Tensor]:
        seen.append(x)
        return [x.new_zeros(len(x), 6)]

    use_heavy_engine(model, run)
    with torch.inference_mode():
        scores = model(zoo.images(7)[None])
    assert [tuple(x.shape) for x in seen] == [(2, 3)]
    torch.testing.assert_close(scores[0, 0], model.ranges / 2)  # the sigmoid of 0


def test_scores_of_crops_have_a_range_of_one() -> None:
    model = Toy(toy_config()).eval()
    model.load_state_dict(toy_state())
    crops = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3), np.uint8)
    scores = score_crops(model, crops)
    assert scores.shape == (9, 6)
    assert 0 <= float(scores.min()) <= float(scores.max()) <= 1
    torch.testing.assert_close(scores * model.ranges, model.encode(model.preprocess(crops)))


def test_a_network_without_a_heavy_part_has_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "heavy_part", "")
    model = Toy(toy_config()).eval()
    with pytest.raises(OptionError, match="toy computes in float32 only"):
        quantise_encode(model, torch.zeros(2, 3, 224, 224))
    with pytest.raises(OptionError, match="toy computes in float32 only"):
        accelerate(model, "int8")


@needs_onnx
def test_without_a_file_the_command_is_named() -> None:
    with pytest.raises(OptionError, match="run `pyfau quantise"):
        accelerate(Toy(toy_config()).eval(), "int8")


@pytest.fixture(scope="module")
def libreface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "libreface.pt"
    torch.save({"model": zoo.official_state("libreface-combined")}, path)
    return path


@needs_onnx
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_libreface_in_int8(
    libreface: Path, engine: Engine, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine)
    faces = tmp_path / "faces.txt"
    faces.write_text(f"{media / 'multi_face.jpg'}\n{media / 'single_face.jpg'}\n")
    made = tmp_path / "made"
    assert main(["quantise", str(libreface), "--frames", str(faces), "-o", str(made)]) == 0
    assert "99 % within" in capsys.readouterr().out
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "| AU12_r | lip corner puller | intensity |" in card
    assert "## int8" in card
    detector = AUDetector(made, device="cpu", precision="int8", engine=engine)
    assert detector.settings()["precision"] == "int8"
    got = detector.detect_image(media / "multi_face.jpg")
    plain = AUDetector(libreface, device="cpu", precision="float32")
    want = plain.detect_image(media / "multi_face.jpg")
    differences = np.abs(
        np.stack([row.scores for row in got]) - np.stack([row.scores for row in want])
    )
    assert 1e-5 < np.nanmax(differences) < 0.3  # rounded, but the same network
    assert np.nanmedian(differences) < 0.02
    (made / "encode-int8.onnx").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged"):
        AUDetector(made, device="cpu", precision="int8")


def test_aligned_crops_need_a_template(libreface: Path, media: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is for models with a template"):
        quantise_model(libreface, media / "multi_face.jpg", tmp_path / "made", aligner="aligned")
    assert load_model(libreface).config.template == ()
