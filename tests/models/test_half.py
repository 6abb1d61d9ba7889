"""The precision "auto" of networks that score single frames: measured with their own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_network import Toy, toy_config, toy_state

from pyfau.models import half
from pyfau.models.frame_inference import _prepare, accelerate_frames
from pyfau.models.half import choose_precision, measure_bfloat16


def toy(seed: int = 0) -> Toy:
    model = Toy(toy_config()).eval()
    model.load_state_dict(toy_state(seed))
    return model


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A CPU with bfloat16, an empty cache, and differences that are taken from this list."""
    differences: list[float] = []
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(half, "bfloat16_is_faster", lambda: True)
    monkeypatch.setattr(half, "can_pack", lambda dtype: True)
    monkeypatch.setattr(half, "measure_bfloat16", lambda *arguments: differences.pop(0))
    return differences


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0.004, "bfloat16"), (0.006, "float32"), (float("nan"), "float32")],
)
def test_the_measured_difference_decides(
    measured: list[float], difference: float, expected: str
) -> None:
    measured.append(difference)
    assert choose_precision(toy(), _prepare) == expected


def test_a_network_is_measured_once(measured: list[float], tmp_path: Path) -> None:
    measured += [0.001, 0.002, 0.003]
    model = toy()
    assert [choose_precision(model, _prepare) for _ in range(2)] == ["bfloat16"] * 2
    assert len(measured) == 2
    assert choose_precision(toy(seed=1), _prepare) == "bfloat16"  # other weights
    assert len(measured) == 1
    for path in (tmp_path / "cache" / "bfloat16").iterdir():
        path.write_text('{"difference": "none"}')
    choose_precision(model, _prepare)  # a damaged file
    assert measured == []


def test_without_a_cache_it_is_measured_again(
    measured: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "file" / "cache"))  # cannot be made
    measured += [0.001, 0.1]
    assert choose_precision(toy(), _prepare) == "bfloat16"
    assert choose_precision(toy(), _prepare) == "float32"


def test_nothing_is_measured_where_bfloat16_is_slow(
    measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "bfloat16_is_faster", lambda: False)
    assert choose_precision(toy(), _prepare) == "float32"


def test_a_network_without_a_heavy_part_computes_in_float32(
    measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toy, "heavy_part", "")
    assert choose_precision(toy(), _prepare) == "float32"


def test_the_measurement_compares_both_precisions() -> None:
    model = toy()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def prepare(network: torch.nn.Module, dtype: torch.dtype) -> None:
        assert dtype == torch.bfloat16
        with torch.no_grad():
            network.get_parameter("linear.bias").add_(0.01)

    difference = measure_bfloat16(model, prepare)
    assert 1e-4 < difference < 0.0026  # a sigmoid has a slope of at most 1 / 4
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert 0 < measure_bfloat16(model, _prepare) < 0.01


def test_auto_uses_what_was_measured(measured: list[float]) -> None:
    measured += [0.001]
    model = toy()
    assert accelerate_frames(model, "auto") == ("bfloat16", "torch")
    assert model.linear.dtype == torch.bfloat16
