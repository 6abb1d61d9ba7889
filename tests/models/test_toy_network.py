"""A new network is one file and one line: the toy goes through every part of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_network import OUTPUTS, Toy, recognise, toy_config, toy_state

from pyfau import AUDetector
from pyfau.cli import main
from pyfau.errors import OptionError, WeightsError
from pyfau.models.export import export_model
from pyfau.models.inference import accelerate
from pyfau.weights.networks import NETWORKS, single_frame
from pyfau.weights.store import load_model


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the registered toy."""
    monkeypatch.setitem(NETWORKS, "toy", single_frame(Toy, recognise, "a toy"))
    torch.save({"state_dict": toy_state()}, tmp_path / "toy.pth")
    return tmp_path / "toy.pth"


def frames(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def test_it_loads_and_scores_clips(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    x = frames(4)
    scores = model(x.view(2, 2, 3, 224, 224))
    assert scores.shape == (2, 2, len(OUTPUTS))
    mean = x.mean(dim=(2, 3)) @ toy_state()["linear.weight"].T + toy_state()["linear.bias"]
    expected = mean.sigmoid() * torch.tensor([output.range[1] for output in OUTPUTS])
    torch.testing.assert_close(scores.flatten(0, 1), expected)


def test_it_converts_and_detects(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoint), "--net", "toy", "-o", str(tmp_path / "made")]) == 0
    assert (
        "| AU12L | lip corner puller | occurrence | left |"
        in (tmp_path / "made/README.md").read_text()
    )
    detector = AUDetector(tmp_path / "made", device="cpu")
    assert detector.aus == ("AU01", "AU12", "AU05", "AU12L", "AU12R")
    (row,) = detector.detect_image(media / "single_face.jpg")
    assert np.isnan(row["AU05"])
    assert 0 <= row["AU12L"] <= 1
    # No later frame is needed.
    stream = detector.stream(fps=25)
    rgb = np.zeros((64, 64, 3), np.uint8)
    assert [len(stream.push(rgb)) for _ in range(3)] == [1, 1, 1]
    assert stream.flush() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear.more": torch.zeros(2)}, "is not a checkpoint of"),
        ({"linear.bias": torch.zeros(2)}, "linear.bias (2,)"),
    ],
)
def test_other_tensors_are_refused(
    checkpoint: Path, tmp_path: Path, change: dict[str, torch.Tensor], words: str
) -> None:
    torch.save(toy_state() | change, tmp_path / "b.pth")
    with pytest.raises(WeightsError) as caught:
        load_model(tmp_path / "b.pth")
    assert words in str(caught.value)


def test_it_becomes_onnx(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    differences = export_model(load_model(checkpoint), tmp_path / "onnx")
    assert differences["scores.onnx"] < 1e-5
    readme = (tmp_path / "onnx/README.md").read_text()
    assert "| AU05_r | intensity | 0 to 5 |" in readme
    session = onnxruntime.InferenceSession(
        str(tmp_path / "onnx/scores.onnx"), providers=["CPUExecutionProvider"]
    )
    x = frames(5)
    (got,) = session.run(None, {"frames": x.numpy()})
    np.testing.assert_allclose(got, load_model(checkpoint)(x[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "engine", "limit"),
    [("float32", "torch", 1e-6), ("bfloat16", "torch", 0.1), ("auto", "onnxruntime", 1e-5)],
)
def test_precisions_and_engines(
    checkpoint: Path, precision: str, engine: str, limit: float
) -> None:
    if engine != "torch":
        pytest.importorskip("onnxscript")
        pytest.importorskip(engine)
    model = load_model(checkpoint)
    x = frames(10)
    expected = model(x[None])
    used = accelerate(model, precision, engine)
    assert used == ("bfloat16" if precision == "bfloat16" else "float32", engine)
    with torch.inference_mode():
        assert float((model(x[None]) - expected).abs().max()) <= limit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "is for a GPU"),
        ({"precision": "bfloat16", "engine": "onnxruntime"}, "in float32 only"),
        ({"precision": "int4"}, "int4"),
        ({"precision": "int8", "engine": "torch"}, "needs the engine 'onnxruntime'"),
    ],
)
def test_precisions_that_are_refused(checkpoint: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        accelerate(load_model(checkpoint), **options)


def test_a_network_without_a_heavy_part_stays_in_float32() -> None:
    class Plain(Toy):
        heavy_part = ""

    with pytest.raises(OptionError, match="computes in float32 only"):
        accelerate(Plain(toy_config()).eval(), "bfloat16")
