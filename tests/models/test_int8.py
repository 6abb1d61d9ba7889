"""The encoder in 8-bit integers: made once, cached, close to float32, and clear where it cannot
be.
"""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_models import tiny_model

from pyfau import AUDetector, load_model
from pyfau.choices import Engine
from pyfau.cli import main
from pyfau.errors import DependencyError, MediaError, OptionError, WeightsError
from pyfau.files import cache_folder
from pyfau.locks import FileLock
from pyfau.models import int8
from pyfau.models.inference import accelerate
from pyfau.models.int8 import compare_scores, included_crops, open_int8, score_crops
from pyfau.models.quantise import ActivationValues
from pyfau.weights.store import save_model

needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs pyfau[onnx]",
)
MADE = b"an ONNX file"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A cache of its own, and a quantiser that only notes its calls."""
    calls: list[bytes] = []

    def quantise(model: Any, frames: Any, float_sums: bool) -> bytes:
        calls.append(MADE)
        return MADE

    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(int8, "quantise_encode", quantise)
    monkeypatch.setattr(int8, "open_quantised", lambda data, engine: data)
    return calls


def cached_files() -> list[Path]:
    return sorted((cache_folder() / "int8").iterdir())


# ---- the cache


@needs_onnx
def test_the_file_is_made_once(made: list[bytes]) -> None:
    model = load_model()
    assert open_int8(model) == MADE
    assert open_int8(model) == MADE
    assert len(made) == 1
    (path,) = cached_files()
    assert path.name.startswith("mdhr-lite-")


@needs_onnx
def test_other_weights_get_another_file(made: list[bytes]) -> None:
    model = load_model()
    open_int8(model)
    with torch.no_grad():
        model.classifier += 1
    open_int8(model)
    assert len(made) == 2
    assert len(cached_files()) == 2


@needs_onnx
@pytest.mark.parametrize("content", [b"", b"short", bytes(100)])
def test_a_damaged_file_is_made_again(made: list[bytes], content: bytes) -> None:
    model = load_model()
    open_int8(model)
    (path,) = cached_files()
    whole = path.read_bytes()
    path.write_bytes(content)
    assert open_int8(model) == MADE
    assert len(made) == 2
    assert path.read_bytes() == whole


@needs_onnx
def test_without_a_cache_the_file_is_made_in_memory(
    made: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYFAU_CACHE", str(tmp_path / "file" / "cache"))  # cannot be made
    assert open_int8(load_model()) == MADE
    assert len(made) == 1


@needs_onnx
def test_a_cache_that_cannot_be_written_is_no_error(
    made: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(int8, "FileLock", refuse)
    monkeypatch.setattr(int8, "replace_file", refuse)
    assert open_int8(load_model()) == MADE


@needs_onnx
def test_a_second_process_waits_for_the_first(made: list[bytes]) -> None:
    model = load_model()
    open_int8(model)
    (path,) = cached_files()
    whole = path.read_bytes()
    path.unlink()
    lock = FileLock(path)  # another process is making the file
    waiting = threading.Thread(target=open_int8, args=(model,))
    waiting.start()
    waiting.join(3 * int8._WAIT_S)
    assert waiting.is_alive()
    path.write_bytes(whole)
    lock.release()
    waiting.join(30)
    assert not waiting.is_alive()
    assert len(made) == 1


def test_resume_heeds_the_engine_of_int8(made: list[bytes]) -> None:
    engines: tuple[Engine, ...] = ("onnxruntime", "openvino")
    for engine in engines:
        pytest.importorskip(engine)
    first, second = (
        AUDetector(device="cpu", aligner="aligned", precision="int8", engine=engine)
        for engine in engines
    )
    assert first.settings() != second.settings()


# ---- where it cannot be


def test_int8_needs_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"onnxruntime: pip install"):
        accelerate(load_model(), "int8")


def test_torch_has_no_int8() -> None:
    with pytest.raises(OptionError, match="needs the engine 'onnxruntime'"):
        AUDetector(device="cpu", aligner="aligned", precision="int8", engine="torch")


def test_each_engine_has_a_file_of_its_own(made: list[bytes]) -> None:
    model = load_model()
    for engine in ("onnxruntime", "openvino"):
        pytest.importorskip(engine)
        open_int8(model, engine=engine)
    assert len(cached_files()) == 2


def test_int8_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model()
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    with pytest.raises(OptionError, match="'int8' is for the CPU"):
        accelerate(model, "int8")


@needs_onnx
def test_another_template_needs_the_command() -> None:
    with pytest.raises(OptionError, match="pyfau quantise"):
        open_int8(tiny_model(3))


def test_a_network_that_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyfau.models import quantise

    def fail(*arguments: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand a long trace")

    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(quantise, "export_encode", fail)
    model = tiny_model(3)
    with pytest.raises(OptionError, match=r"its export failed: no such operator$"):
        quantise.quantise_encode(model, torch.zeros(1, 3, 1, 1))


def test_the_crops_in_the_package_fit_the_bundled_model() -> None:
    crops = included_crops(load_model())
    assert crops.shape == (56, 112, 112, 3)
    assert crops.std(axis=(1, 2, 3)).min() > 10  # each of them shows something


# ---- the scores


def test_comparing_scores() -> None:
    difference = compare_scores(torch.tensor([0.5, 0.52, 0.2, 1.0]), torch.tensor([0.5] * 4))
    assert difference.largest == pytest.approx(0.5)
    assert (difference.within_01, difference.within_03) == (0.25, 0.5)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_bundled_network_in_int8_on_real_faces(media: Path, engine: Engine) -> None:
    """Frames of another clip than those that calibrate."""
    pytest.importorskip(engine)
    plain = AUDetector(device="cpu", precision="float32")
    quantised = AUDetector(device="cpu", precision="int8", engine=engine)
    scores = []
    for detector in (quantised, plain):
        result = detector.detect_video(media / "noface_face.mov")
        scores.append(torch.from_numpy(np.stack([row.scores for row in result if row.success])))
    assert quantised.settings()["precision"] == "int8"
    difference = compare_scores(*scores)
    print(difference)
    assert difference.largest > 1e-4  # else it was not int8
    assert difference.within_03 >= 0.99
    assert not any("backbone" in name for name, _ in quantised.model.named_modules())


@needs_onnx
@pytest.mark.slow
def test_quantising_a_converted_network(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tiny_model(4), tmp_path / "plain")
    (tmp_path / "faces.txt").write_text(
        f"{media / 'multi_face.jpg'}\n{media / 'single_face.jpg'}\n"
    )
    out = tmp_path / "int8"
    command = ["quantise", str(tmp_path / "plain"), "--frames", str(tmp_path / "faces.txt")]
    assert main([*command, "-o", str(out)]) == 0
    assert "99 % within" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "config.json",
        "encode-int8.json",
        "encode-int8.onnx",
        "model.safetensors",
    ]
    assert "int8" in (out / "README.md").read_text(encoding="utf-8")
    detector = AUDetector(out, device="cpu", precision="int8")
    assert len(detector.detect_image(media / "multi_face.jpg")) == 5
    crops = np.zeros((2, *[detector.model.config.input_size] * 2, 3), np.uint8)
    assert bool(score_crops(detector.model, crops).isfinite().all())
    assert main([*command, "-o", str(out)]) == 1  # the directory is not empty
    (out / "encode-int8.onnx").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged"):
        AUDetector(out, device="cpu", precision="int8")
    assert AUDetector(out, device="cpu", precision="float32") is not None
    save_model(tiny_model(5), out)
    with pytest.raises(WeightsError, match=r"damaged|other weights"):
        AUDetector(out, device="cpu", precision="int8")


@pytest.mark.parametrize("text", ["", "missing.jpg\n"])
def test_frames_without_faces(tmp_path: Path, text: str) -> None:
    from pyfau.weights.quantise import quantise_model

    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(MediaError):
        quantise_model("mdhr-lite", tmp_path / "list.txt", tmp_path / "out")


# ---- the range of an activation


def range_of(*values: np.ndarray) -> tuple[float, float]:
    seen = ActivationValues()
    for part in values:
        seen.add(part.astype(np.float32))
    return seen.best_range()


def test_evenly_spread_values_keep_their_extremes() -> None:
    low, high = range_of(np.linspace(-3, 1, 5000), np.linspace(0, 2, 5000))
    assert (low, high) == (-3, 2)


def test_a_few_large_values_do_not_widen_the_range() -> None:
    values = np.random.default_rng(1).exponential(size=(8, 50, 50))
    values[3, 4, 5] = 40
    low, high = range_of(values)
    assert low == 0
    assert 0.9 * np.quantile(values, 0.999) < high < 30


def test_values_that_are_all_zero_have_a_range() -> None:
    assert range_of(np.zeros((2, 3))) == (0, 0)
