"""The fast paths give the answers of the plain network: folded, packed, half precision, other
engines, exported.
"""

from __future__ import annotations

import copy
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from test_models import SIZE, largest_difference, noise, tiny_model
from torch import Tensor, nn

from pyfau import AUDetector, load_model
from pyfau.cli import main
from pyfau.errors import DependencyError, OptionError
from pyfau.models import half, inference
from pyfau.models.half import bfloat16_is_faster, has_bfloat16
from pyfau.models.inference import (
    BFLOAT16_BOUND,
    BFLOAT16_DIFFERENCES,
    accelerate,
    prepare,
    resolve_precision,
)
from pyfau.models.mdhr import CONTEXT, MDHR, FrameFeatures, NoDynamics
from pyfau.models.stream import RelateStream
from pyfau.packed import can_pack
from pyfau.video import read_frames
from pyfau.weights.store import save_model

FLOAT32 = 1e-6  # largest difference of a score, float32 paths
needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs pyfau[onnx]",
)
CPU = torch.device("cpu")


def smooth_frames(model: MDHR, count: int, seed: int = 0) -> Tensor:
    """Frames that change slowly from one blurred noise image to another."""
    size = model.config.input_size
    first, last = noise(2, 3, 14, 14, seed=seed)
    steps = torch.linspace(0, 1, count)[:, None, None, None]
    return F.interpolate(first * (1 - steps) + last * steps, size=size, mode="bilinear")


def scores_of(model: MDHR, frames: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.relate(model.encode(frames).unflatten(1, len(frames)))[0]


def has_norms(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())


# ---- float32


@pytest.mark.parametrize("data", ["disfa", "bp4d"])
@pytest.mark.parametrize("packed", [True, False])
def test_an_inference_copy_scores_as_the_plain_network(
    data: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packed and not can_pack():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(inference, "can_pack", lambda dtype: packed)
    plain = tiny_model(5, data=data)
    frames = smooth_frames(plain, 21)
    fast = prepare(copy.deepcopy(plain))
    assert has_norms(plain)
    assert not has_norms(fast)
    want = scores_of(plain, frames)
    assert float(want.std()) > 0.01  # else nothing is compared
    assert largest_difference(scores_of(fast, frames), want) <= 10 * FLOAT32
    assert (
        largest_difference(scores_of(fast, frames[:3]), scores_of(plain, frames[:3]))
        <= 10 * FLOAT32
    )


def test_the_paper_s_way_of_computing_gives_the_same_scores_and_logits() -> None:
    model = tiny_model(6, data="bp4d")
    frames = smooth_frames(model, 32).unflatten(0, (2, 16))
    with torch.inference_mode():
        want, want_logits = oracle.PaperNetwork(model)(frames)
        features = prepare(copy.deepcopy(model)).encode(frames.flatten(0, 1)).unflatten(2, 16)
        got, logits = model.relate_regions(model.encode(frames.flatten(0, 1)).unflatten(2, 16))
        fast = prepare(copy.deepcopy(model)).relate(features)
    assert largest_difference(got, want) <= 10 * FLOAT32
    assert largest_difference(fast, want) <= 10 * FLOAT32
    for a, b in zip(logits, want_logits, strict=True):
        assert largest_difference(a, b) <= 1e-4 * float(b.abs().max())


def test_the_bundled_network_as_an_inference_copy() -> None:
    plain, fast = load_model(), load_model(precision="float32")
    assert has_norms(plain)
    assert not has_norms(fast)
    frames = smooth_frames(plain, 20)
    assert largest_difference(scores_of(fast, frames), scores_of(plain, frames)) <= 10 * FLOAT32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dynamics_that_are_always_zero_are_left_out(dtype: torch.dtype) -> None:
    """Without any change of the scores, in clips, windows and streams."""
    plain = tiny_model(11)
    with torch.no_grad():
        plain.dynamics.output.norm.weight.zero_()
        plain.dynamics.output.norm.bias.zero_()
    frames = smooth_frames(plain, 20)
    fast = prepare(copy.deepcopy(plain), dtype)
    assert isinstance(fast.dynamics, NoDynamics)
    assert fast.encode(frames).dynamic.shape[-1] == 0
    if dtype == torch.float32:
        assert largest_difference(scores_of(fast, frames), scores_of(plain, frames)) <= 10 * FLOAT32
    with torch.inference_mode():
        features = fast.encode(frames).unflatten(1, 20)
        inner = fast.relate(features, "inner")[0]
        stream = RelateStream(fast)
        parts = [stream.push(fast.encode(part)) for part in frames.split([1, 9, 3, 7])]
    assert largest_difference(torch.cat(parts)[: len(inner)], inner) <= 1e-5


def test_dynamics_that_matter_stay() -> None:
    assert not isinstance(prepare(tiny_model(11)).dynamics, NoDynamics)
    plain = tiny_model(11)
    with torch.no_grad():
        plain.dynamics.output.norm.weight.zero_()  # the bias is left
    plain.dynamics.output.norm.bias.data.fill_(1.0)
    assert not isinstance(prepare(plain).dynamics, NoDynamics)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["bp4d_resnet", "disfa_resnet", "bp4d_swin", "disfa_swin"])
def test_the_paper_s_networks_fast(parity: Path, network: str) -> None:
    """Against stored outputs of the official code, within the limits of the parity tests; then
    bfloat16.
    """
    case = 2
    salt, seed, batch, length = oracle.CASES[case]
    plain = oracle.random_model(network, parity / "official_state_dict_keys.json", salt)
    frames = oracle.frames(seed, batch, length)[0]
    fast = prepare(copy.deepcopy(plain))
    with torch.inference_mode():
        scores, logits = fast.relate_regions(fast.encode(frames).unflatten(1, length))
    with np.load(parity / f"{network}.npz") as expected:
        assert np.abs(scores.numpy() - expected[f"case{case}_scores"]).max() <= FLOAT32
        for i, region in enumerate(logits):
            want = expected[f"case{case}_region{i}_logits"]
            assert np.abs(region.numpy() - want).max() <= 1e-5 * np.abs(want).max()
    # Without instructions for bfloat16, a frame takes seconds, so one network has to do.
    if has_bfloat16() or network == "disfa_resnet":
        check_network_in_bfloat16(plain, fast, frames)


def check_network_in_bfloat16(plain: MDHR, fast: MDHR, noisy: Tensor) -> None:
    """Noisy frames, and frames that change slowly."""
    parts = noisy, smooth_frames(plain, 16)
    want = torch.cat([scores_of(fast, part) for part in parts])
    half = prepare(plain, torch.bfloat16)
    limit = BFLOAT16_DIFFERENCES[plain.config.backbone]
    check_bfloat16(torch.cat([scores_of(half, part) for part in parts]), want, limit)


# ---- bfloat16


def check_bfloat16(got: Tensor, want: Tensor, limit: float) -> None:
    difference = (got - want).abs()
    print(f"bfloat16: 99% within {difference.quantile(0.99):.1e}, largest {difference.max():.1e}")
    assert float(difference.max()) > 1e-6  # else it was not bfloat16
    assert float(difference.quantile(0.99)) <= limit
    assert float(difference.mean()) <= 1e-3
    # Where classes of a region, or attention scores, nearly tie.
    assert float(difference.max()) <= 0.05


def test_bfloat16_of_the_bundled_network_on_real_faces(media: Path) -> None:
    detector = AUDetector(precision="float32")
    crops: list[Any] = []
    encode = detector.model.encode
    detector.model.encode = lambda x: (crops.append(x), encode(x))[1]  # type: ignore[method-assign]
    for frame, _ in zip(read_frames(media / "single_face.mp4"), range(48), strict=False):
        crops_before = len(crops)
        detector.detect_image(frame.rgb)
        assert len(crops) <= crops_before + 1
    frames = torch.cat([x[:1] for x in crops])
    assert len(frames) >= 24
    plain = load_model()
    want = scores_of(plain, frames)
    check_bfloat16(scores_of(load_model(precision="bfloat16"), frames), want, BFLOAT16_BOUND)


def test_bfloat16_features_and_float32_scores() -> None:
    model = prepare(tiny_model(), torch.bfloat16)
    features = model.encode(noise(16, 3, SIZE, SIZE))
    assert features.static.dtype == features.dynamic.dtype == torch.bfloat16
    assert model.relate(features.unflatten(1, 16)).dtype == torch.float32


def test_float16_that_cannot_hold_the_features_is_refused() -> None:
    model = tiny_model()
    frames = noise(4, 3, SIZE, SIZE)
    plain = model.encode(frames)
    # As a GPU may.
    model.encoder = lambda _: FrameFeatures(plain.static.half(), scale * plain.dynamic.half())
    scale = 1.0
    assert model.encode(frames).static.dtype == torch.float16
    scale = 1e6
    with pytest.raises(OptionError, match=r"'float16' is too small .* 'bfloat16'"):
        model.encode(frames)


# ---- options


@pytest.mark.parametrize(
    ("precision", "device", "backbone", "is_faster", "expected"),
    [
        ("auto", "cpu", "small", True, torch.bfloat16),
        ("auto", "cpu", "small", False, torch.float32),
        # Their scores are not close enough.
        ("auto", "cpu", "swin_b", True, torch.float32),
        ("auto", "cpu", "resnet50", True, torch.float32),
        ("auto", "cpu", "one that nobody measured", True, torch.float32),
        ("auto", "cuda", "small", True, torch.float32),
        ("bfloat16", "cpu", "resnet50", False, torch.bfloat16),
        ("float16", "cuda", "resnet50", False, torch.float16),
        ("float32", "cpu", "resnet50", True, torch.float32),
    ],
)
def test_precision_that_is_chosen(
    precision: str,
    device: str,
    backbone: str,
    is_faster: bool,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "bfloat16_is_faster", lambda: is_faster)
    monkeypatch.setattr(inference, "can_pack", lambda: True)
    assert resolve_precision(precision, torch.device(device), backbone) == expected


def test_an_older_torch_that_cannot_tell_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_bfloat16() is False
    assert bfloat16_is_faster() is False


@pytest.mark.parametrize(
    ("avx512", "amx", "cpu", "expected"),
    [
        (True, False, "vendor_id\t: AuthenticAMD", True),
        (True, False, "vendor_id\t: GenuineIntel", False),
        (True, True, "vendor_id\t: GenuineIntel", True),
        (False, False, "vendor_id\t: AuthenticAMD", False),
        (True, False, None, True),
    ],
)
def test_where_bfloat16_is_faster(
    avx512: bool,
    amx: bool,
    cpu: str | None,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = tmp_path / "cpuinfo"
    if cpu is not None:
        facts.write_text(f"processor\t: 0\n{cpu}\n", encoding="utf-8")
    monkeypatch.setattr(half, "_CPU_FACTS", facts)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert bfloat16_is_faster() is expected


def test_windows_names_the_vendor_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Intel64 Family 6 Model 207 Stepping 2, GenuineIntel"
    monkeypatch.setattr(half, "_CPU_FACTS", tmp_path / "missing")
    monkeypatch.setattr(platform, "processor", lambda: name)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert bfloat16_is_faster() is False


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"precision": "float16"}, "for a GPU"),
        ({"engine": "tensorrt"}, "unknown engine 'tensorrt'"),
        ({"engine": "onnxruntime", "precision": "bfloat16"}, "computes in float32"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, str], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        AUDetector(device="cpu", aligner="aligned", **options)


def test_an_engine_without_a_precision_is_refused() -> None:
    with pytest.raises(OptionError, match="give a precision"):
        load_model(engine="openvino")


def test_a_result_says_what_was_chosen_and_resume_heeds_the_precision() -> None:
    made = {
        p: AUDetector(device="cpu", aligner="aligned", precision=p)
        for p in ("auto", "float32", "bfloat16")
    }
    auto = str(resolve_precision("auto", CPU, made["auto"].model.config.backbone)).removeprefix(
        "torch."
    )
    image = np.zeros((112, 112, 3), np.uint8)
    metadata = made["auto"].detect_image(image).metadata
    assert (metadata["precision"], metadata["engine"]) == (auto, "torch")
    assert made["float32"].settings() != made["bfloat16"].settings()
    assert made["auto"].settings() == made[auto].settings()
    assert "engine" not in made["auto"].settings()


def test_info_says_what_auto_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    line = next(
        text for text in capsys.readouterr().out.splitlines() if text.startswith("precision auto")
    )
    assert str(resolve_precision("auto", CPU, "small")).removeprefix("torch.") in line


# ---- frames that keep coming


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stream_gives_the_scores_of_inner_frames(precision: str) -> None:
    model = prepare(tiny_model(7), getattr(torch, precision))
    features = model.encode(smooth_frames(model, 40))
    want = model.relate(features.unflatten(1, 40), "inner")[0]
    for sizes in ([1] * 40, [13, 1, 1, 20, 5], [40], [3, 37]):
        stream, start, parts = RelateStream(model), 0, []
        for size in sizes:
            parts.append(stream.push(features[start : start + size]))
            start += size
            assert sum(map(len, parts)) == max(0, start - 2 * CONTEXT)
        assert largest_difference(torch.cat(parts), want) <= 10 * FLOAT32


def test_a_copy_of_a_stream_goes_its_own_way() -> None:
    model = prepare(tiny_model(7))
    features = model.encode(smooth_frames(model, 30))
    stream = RelateStream(model)
    stream.push(features[:20])
    other = copy.copy(stream)
    other.push(features[5:9])
    want = model.relate(features.unflatten(1, 30), "inner")[0, -10:]
    assert largest_difference(stream.push(features[20:]), want) <= 10 * FLOAT32


def test_a_stream_of_a_detector_at_once_and_7_frames_late() -> None:
    detector = AUDetector(device="cpu", aligner="aligned", precision="float32")
    images = [
        np.random.default_rng(i).integers(0, 256, (112, 112, 3), dtype=np.uint8) for i in range(12)
    ]
    batch = detector.detect_frames(images).scores
    late, prompt = detector.stream(), detector.stream(latency=0)
    rows = [row for image in images for row in late.push(image)] + late.flush()
    np.testing.assert_allclose(np.stack([row.scores for row in rows]), batch, rtol=0, atol=1e-5)
    for i, image in enumerate(images):
        (row,) = prompt.push(image)
        assert row.frame == i
        prefix = detector.detect_frames(images[: i + 1]).scores[-1]
        np.testing.assert_allclose(row.scores, prefix, rtol=0, atol=1e-5)
    assert prompt.flush() == []
    given = list(detector.iter_frames(images, batch_size=1, latency=0))
    np.testing.assert_allclose(given[-1].scores, batch[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("latency", "window"), [(3, "continuous"), (0, "clips"), (True, "continuous"), (7.5, "clips")]
)
def test_a_latency_that_does_not_exist(latency: Any, window: str) -> None:
    detector = AUDetector(device="cpu", aligner="aligned", window=window)
    with pytest.raises(OptionError, match="latency"):
        detector.stream(latency=latency)


# ---- ONNX


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("data", ["disfa", "bp4d"])
def test_export_of_a_network_is_checked_and_takes_any_number_of_frames(
    data: str, tmp_path: Path
) -> None:
    import onnxruntime

    model = tiny_model(8, data=data)
    save_model(model, tmp_path / "tiny")
    assert main(["export", str(tmp_path / "tiny"), "-o", str(tmp_path / "onnx")]) == 0
    assert sorted(p.name for p in (tmp_path / "onnx").iterdir()) == [
        "README.md",
        "config.json",
        "encode.onnx",
        "relate.onnx",
    ]
    encode, relate = (
        onnxruntime.InferenceSession(str(tmp_path / f"onnx/{n}.onnx")) for n in ("encode", "relate")
    )
    frames = smooth_frames(model, 24, seed=3)
    for batch, length in ((1, 24), (2, 12), (4, 5), (12, 2)):
        static, dynamic = encode.run(None, {"frames": frames[: batch * length].numpy()})
        clips = {
            "static": static.reshape(batch, length, *static.shape[1:]),
            "dynamic": dynamic.reshape(batch, length, *dynamic.shape[1:]),
        }
        want = model(frames[: batch * length].unflatten(0, (batch, length)))
        assert largest_difference(torch.from_numpy(relate.run(None, clips)[0]), want) <= 1e-4
    text = (tmp_path / "onnx/README.md").read_text()
    assert ", ".join(model.config.au_names) in text


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_engines_encode_alike(engine: str) -> None:
    pytest.importorskip(engine)
    plain, other = tiny_model(9), tiny_model(9)
    assert accelerate(other, "float32", engine) == ("float32", engine)
    frames = smooth_frames(plain, 20)
    assert largest_difference(scores_of(other, frames), scores_of(plain, frames)) <= 1e-4
    assert not any("backbone" in name for name, _ in other.named_modules())  # held once


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_that_is_not_installed_is_named(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("onnx", engine):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match="pip install"):
        accelerate(tiny_model(), "float32", engine)


# ---- GPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "limit"), [("float32", 1e-3), ("bfloat16", 2e-2), ("float16", 2e-2)]
)
def test_cpu_and_gpu_agree(precision: str, limit: float) -> None:
    plain = load_model()
    crops = (smooth_frames(plain, 32).clamp(-2, 2) * 60 + 127).byte().movedim(1, -1)
    want = scores_of(plain, plain.preprocess(crops))
    gpu = load_model(device="cuda", precision=precision)
    assert largest_difference(scores_of(gpu, gpu.preprocess(crops)).cpu(), want) <= limit
