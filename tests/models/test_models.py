from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.errors import ConfigError, InputError
from pyfau.models.config import GRID, IMAGENET_MEAN, IMAGENET_STD, MDHRConfig, Region
from pyfau.models.config import read_config as read_config_file
from pyfau.models.mdhr import CONTEXT, MDHR, TOKENS, FrameFeatures, PatchProjection
from pyfau.models.paper import DATA_SETS, paper_config

WIDTH, CHANNELS, SIZE = 16, 8, 112
DISFA = DATA_SETS["disfa"]


def tiny_config(data: str = "disfa", **changes: Any) -> MDHRConfig:
    record = DATA_SETS[data]
    fields: dict[str, Any] = {
        "name": "tiny",
        "backbone": "small",
        "aus": record.aus,
        "regions": record.regions,
        "project_regions": record.project_regions,
        "template": record.template,
        "thresholds": (0.5,) * len(record.aus),
        "input_size": SIZE,
        "width": WIDTH,
        "dynamic_channels": CHANNELS,
        "backbone_options": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
    }
    return MDHRConfig(**(fields | changes))


def randomised(config: MDHRConfig, seed: int = 0) -> MDHR:
    """A network in eval mode whose weights and running statistics are seeded noise, none left at 0
    or 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MDHR(config)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.2)
                nn.init.normal_(module.running_mean, 0.0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            elif isinstance(module, nn.Conv2d | nn.Linear | PatchProjection):
                nn.init.kaiming_normal_(module.weight)  # keeps signals as large as they come in
        nn.init.normal_(model.cross_region.bias, 0.0, 0.2)
    return model.eval().requires_grad_(False)


def tiny_model(seed: int = 0, **changes: Any) -> MDHR:
    return randomised(tiny_config(**changes), seed)


def random_features(frames: int, seed: int) -> FrameFeatures:
    """Features of a tiny network's frames, without the trouble of encoding any."""
    source = torch.Generator().manual_seed(seed)
    static = torch.randn(frames, TOKENS, WIDTH, generator=source).relu()
    return FrameFeatures(static, torch.randn(frames, 4, TOKENS, CHANNELS, generator=source))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.fixture(scope="module")
def model() -> MDHR:
    return tiny_model()


# ---- what depends on one frame


def check_encoding(model: MDHR, x: Tensor) -> None:
    together = model.encode(x)
    alone = FrameFeatures.cat([model.encode(x[i : i + 1]) for i in range(len(x))])
    assert together.static.shape == (len(x), TOKENS, model.config.width)
    assert together.dynamic.shape == (len(x), 4, TOKENS, model.config.dynamic_channels)
    for a, b in ((together.static, alone.static), (together.dynamic, alone.dynamic)):
        assert float((a[0] - a[1]).abs().max()) > 1e-3  # else nothing is compared
        assert largest_difference(a, b) <= 1e-5 * max(1.0, float(a.abs().max()))


def test_encode_frame_by_frame_equals_all_at_once(model: MDHR) -> None:
    check_encoding(model, noise(5, 3, SIZE, SIZE))


def test_encode_frame_by_frame_equals_all_at_once_with_resnet50() -> None:
    config = tiny_config(backbone="resnet50", backbone_options={}, input_size=224)
    check_encoding(randomised(config), noise(2, 3, 224, 224))


@pytest.mark.parametrize("kernel", [8, 4, 2, 1])
def test_a_patch_projection_is_a_convolution_whose_stride_is_its_kernel(kernel: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(kernel)
        projection = PatchProjection(3, 5, kernel).requires_grad_(False)
    x = noise(2, 3, GRID * kernel, GRID * kernel)
    want = F.conv2d(x, projection.weight, stride=kernel)
    assert largest_difference(projection(x), want.flatten(2).transpose(1, 2)) <= 1e-5


def test_the_convolution_of_a_difference_is_the_difference_of_the_convolutions(model: MDHR) -> None:
    for channels, side, projection in zip(
        [8] * 4, (56, 28, 14, 7), model.dynamics.projections, strict=True
    ):
        assert isinstance(projection, PatchProjection)
        before, after = noise(2, 1, channels, side, side)
        want = F.conv2d(
            after - before, projection.weight, projection.bias, stride=projection.kernel
        )
        got = projection(after) - projection(before) + projection.bias
        assert largest_difference(got, want.flatten(2).transpose(1, 2)) <= 1e-5


# ---- what sees the window


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm in eval mode by its formula; channels last."""
    assert isinstance(norm, nn.BatchNorm1d)
    return (x - norm.running_mean) / torch.sqrt(
        norm.running_var + norm.eps
    ) * norm.weight + norm.bias


def plain_scores(model: MDHR, features: FrameFeatures) -> tuple[Tensor, list[Tensor]]:
    """Scores and region logits of one clip (T frames), frame by frame and unit by unit.

    Pooling is avg_pool1d, the temporal convolution conv1d, the graph attention a loop over nodes.
    """
    config, frames = model.config, len(features)

    def block(x: Tensor, layer: Any) -> Tensor:
        return F.relu(normalised(x @ layer.linear.weight.T + layer.linear.bias, layer.norm))

    dynamics = model.dynamics
    pooled = []
    for i in range(4):
        if frames == 1:
            pooled.append(torch.zeros(1, TOKENS, config.dynamic_channels))
            continue
        maps = features.dynamic[:, i]
        change = F.relu(
            normalised(maps[1:] - maps[:-1] + dynamics.projections[i].bias, dynamics.norms[i])
        )
        over_time = F.avg_pool1d(
            change.permute(1, 2, 0), 10, stride=1, padding=5, count_include_pad=True
        )
        pooled.append(over_time.permute(2, 0, 1))
    hints = torch.cat(
        [block(x, layer) for x, layer in zip(pooled, dynamics.weight_blocks, strict=True)], dim=-1
    )
    weights = (hints @ dynamics.weight.weight.T + dynamics.weight.bias).softmax(-1)
    mixed = torch.einsum("stpc,tps->tpc", torch.stack(pooled), weights)
    tokens = features.static + block(mixed, dynamics.output)

    units = torch.empty(frames, len(config.aus), config.width)
    active = torch.zeros(frames, len(config.aus), dtype=torch.bool)
    region_of, logits = {}, []
    for region, part in zip(config.regions, model.regions, strict=True):
        own = tokens[:, region.rows[0] * GRID : region.rows[1] * GRID]
        if config.project_regions:
            own = block(own, part.projection)
        logits.append(own.mean(1) @ part.head.weight.T + part.head.bias)
        for k, au in enumerate(region.aus):
            column, rows = config.aus.index(au), slice(k * config.width, (k + 1) * config.width)
            region_of[column] = region.name
            linear, norm = part.au_blocks.linear, part.au_blocks.norm
            y = own @ linear.weight[rows].T + linear.bias[rows]
            y = (y - norm.running_mean[rows]) / torch.sqrt(norm.running_var[rows] + norm.eps)
            units[:, column] = F.relu(y * norm.weight[rows] + norm.bias[rows]).mean(1)
            for t in range(frames):
                active[t, column] = f"{int(logits[-1][t].argmax()):0{len(region.aus)}b}"[k] == "1"

    graph = model.cross_region
    related = torch.empty_like(units)
    for t in range(frames):
        h = units[t] @ graph.linear.weight.T
        for i in range(len(config.aus)):
            sources = [
                j for j in region_of if j == i or (region_of[j] != region_of[i] and active[t, j])
            ]
            score = torch.stack(
                [F.leaky_relu(h[i] @ graph.receiver + h[j] @ graph.neighbour, 0.2) for j in sources]
            )
            related[t, i] = F.elu(score.softmax(0) @ h[sources] + units[t, i] + graph.bias)

    scores = torch.empty(frames, len(config.aus))
    tcn = model.temporal
    for k in range(len(config.aus)):
        x = related[:, k].T[None]  # (1, D, T)
        kernel = tcn.weight[:, k].T[:, None]  # (D, 1, 5)
        y = F.conv1d(x, kernel, tcn.bias[k], padding=2, groups=config.width)[0].T
        norm = tcn.norm
        y = (y - norm.running_mean[k]) / torch.sqrt(norm.running_var[k] + norm.eps) * norm.weight[
            k
        ] + norm.bias[k]
        y, anchor = F.relu(y), F.relu(model.classifier[k])
        scores[:, k] = y @ anchor / y.norm(dim=-1).clamp(min=1e-12) / anchor.norm().clamp(min=1e-12)
    return scores, logits


@pytest.mark.parametrize("data", ["disfa", "bp4d"])
@pytest.mark.parametrize("frames", [1, 2, 16, 23])
def test_clips_match_a_plain_computation(data: str, frames: int) -> None:
    model = tiny_model(3, data=data)
    features = random_features(frames, seed=frames)
    scores, logits = model.relate_regions(features.unflatten(1, frames))
    want, want_logits = plain_scores(model, features)
    assert float(want.std()) > 0.02  # else nothing is compared
    assert largest_difference(scores[0], want) <= 1e-5
    assert [x.shape[-1] for x in logits] == [
        2 ** len(region.aus) for region in model.config.regions
    ]
    for got, expected in zip(logits, want_logits, strict=True):
        assert largest_difference(got[0], expected) <= 1e-4


def test_inner_frames_match_the_middle_of_a_plain_computation() -> None:
    model = tiny_model(4, data="bp4d")
    frames = 2 * CONTEXT + 9
    features = random_features(frames, seed=1)
    want, want_logits = plain_scores(model, features)
    scores, logits = model.relate_regions(features.unflatten(1, frames), "inner")
    assert CONTEXT == 7
    assert scores.shape == (1, 9, 12)
    assert largest_difference(scores[0], want[7:-7]) <= 1e-5
    # They have no temporal convolution to wait for.
    for got, expected in zip(logits, want_logits, strict=True):
        assert largest_difference(got[0], expected[5:-5]) <= 1e-4
    one = model.relate(features[:15].unflatten(1, 15), "inner")
    assert largest_difference(one[0], want[7:8]) <= 1e-5


def test_the_network_is_encode_and_then_relate_for_each_clip_alone(model: MDHR) -> None:
    x = noise(2, 5, 3, SIZE, SIZE, seed=2)
    scores = model(x)
    assert scores.shape == (2, 5, 8)
    assert largest_difference(scores[:1], scores[1:]) > 1e-3
    for i in range(2):
        assert largest_difference(model(x[i : i + 1]), scores[i : i + 1]) <= 1e-5
        assert (
            largest_difference(model.relate(model.encode(x[i]).unflatten(1, 5)), scores[i : i + 1])
            <= 1e-5
        )


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_have_scores(model: MDHR, frames: int) -> None:
    scores = model(noise(2, frames, 3, SIZE, SIZE))
    assert scores.shape == (2, frames, 8)
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_scores_stay_within_0_and_1_whatever_the_features() -> None:
    for seed in range(5):
        model, features = tiny_model(seed), random_features(40, seed)
        for gain in (1e-6, 1.0, 1e4):
            wild = FrameFeatures(features.static * gain, features.dynamic * gain).unflatten(2, 20)
            for context in ("clip", "inner"):
                scores = model.relate(wild, context)
                assert bool(((scores >= 0) & (scores <= 1)).all())
                assert float(scores.max()) > 0


def test_a_unit_that_is_its_anchor_scores_1_and_no_more() -> None:
    """Rounding brings some of these cosines over 1."""
    model = tiny_model()
    model.temporal.weight.zero_()
    model.temporal.norm.reset_parameters()  # an identity in eval mode, but for its eps
    for seed in range(10):
        model.classifier.copy_(noise(8, WIDTH, seed=seed).abs())
        model.temporal.bias.copy_(model.classifier)
        scores = model.relate(random_features(3, seed).unflatten(1, 3))
        assert float(scores.max()) <= 1.0
        assert float(scores.min()) > 0.9999


def test_a_logistic_head_is_a_weighted_sum_through_a_sigmoid() -> None:
    net = tiny_model(head="logistic")
    units = torch.randn(5, len(DISFA.aus), WIDTH)
    odds = torch.einsum("fnd,nd->fn", units, net.classifier) + net.classifier_bias
    torch.testing.assert_close(net.classify(units), torch.sigmoid(odds))


@pytest.mark.parametrize("head", ["cosine", "logistic"])
def test_calibration_acts_on_the_log_odds(head: str) -> None:
    pairs = tuple((0.5 + 0.25 * i, 1.0 - 0.5 * i) for i in range(len(DISFA.aus)))
    plain, calibrated = (tiny_model(head=head, calibration=c) for c in ((), pairs))
    units = torch.rand(7, len(DISFA.aus), WIDTH)
    raw = plain.classify(units).double()
    slope, offset = torch.tensor(pairs).double().T
    expected = 1 / (1 + ((1 - raw) / raw) ** slope * torch.exp(-offset))
    torch.testing.assert_close(calibrated.classify(units).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["cosine", "logistic"])
def test_a_slope_of_one_and_no_offset_change_nothing(head: str) -> None:
    identity = ((1.0, 0.0),) * len(DISFA.aus)
    units = torch.rand(7, len(DISFA.aus), WIDTH)
    plain, calibrated = (tiny_model(head=head, calibration=c) for c in ((), identity))
    torch.testing.assert_close(calibrated.classify(units), plain.classify(units), atol=2e-6, rtol=0)


def test_the_first_stage_of_the_small_backbone_may_be_the_stem_alone() -> None:
    net = tiny_model(backbone_options={"widths": [8, 16, 8, 8], "blocks": [0, 1, 1, 1]})
    scales, tokens = net.backbone(torch.rand(2, 3, SIZE, SIZE))
    assert [tuple(s.shape[1:]) for s in scales] == [
        (8, 56, 56),
        (16, 28, 28),
        (8, 14, 14),
        (8, 7, 7),
    ]
    assert tokens.shape == (2, TOKENS, 8)


def test_the_bits_of_a_region_class_name_its_units_most_significant_first() -> None:
    model = tiny_model(data="bp4d")  # up = 1 2 4 7, mid = 6, down1 = 12 14 15, down2 = 10 17 23 24
    classes = (0b1001, 0b1, 0b010, 0b1000)
    logits = [
        F.one_hot(torch.tensor([c]), 2 ** len(r.aus))
        for c, r in zip(classes, model.config.regions, strict=True)
    ]
    active = model.cross_region.active(logits)
    assert [au for au, on in zip(model.config.aus, active[0].tolist(), strict=True) if on] == [
        1,
        6,
        7,
        10,
        14,
    ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m(noise(2, 3, SIZE, SIZE)), r"\(B, T, 3, 112, 112\)"),
        (lambda m: m(noise(1, 2, 3, SIZE, 96)), r"\(B, T, 3, 112, 112\)"),
        (lambda m: m(torch.zeros(1, 2, 3, SIZE, SIZE, dtype=torch.uint8)), "uint8"),
        (lambda m: m(noise(1, 0, 3, SIZE, SIZE)), r"\(1, 0, 3, 112, 112\)"),
        (lambda m: m.encode(noise(1, 1, 3, SIZE, SIZE)), r"\(F, 3, 112, 112\)"),
        (lambda m: m.encode(noise(1, SIZE, SIZE, 3)), r"\(F, 3, 112, 112\)"),
        (lambda m: m.relate(random_features(20, 0)), r"\(B, T, ...\)"),
        (
            lambda m: m.relate(random_features(14, 0).unflatten(1, 14), "inner"),
            "at least 15 frames, got 14",
        ),
    ],
)
def test_wrong_tensors_are_named(model: MDHR, call: Callable[[MDHR], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        call(model)


def test_another_float_type_is_an_input_error(model: MDHR) -> None:
    with pytest.raises(InputError, match="float64"):
        model.encode(noise(1, 3, SIZE, SIZE).double())


# ---- preprocessing


def test_preprocess_by_hand(model: MDHR) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE, 3), dtype=np.uint8)
    x = model.preprocess(crops)
    assert x.shape == (2, 3, 3, SIZE, SIZE)
    assert x.dtype == torch.float32
    for b, t, row, column in ((0, 0, 0, 0), (1, 2, 5, 100), (0, 1, 111, 3)):
        for channel in range(3):
            value = crops[b, t, row, column, channel] / 255
            want = (value - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
            assert float(x[b, t, channel, row, column]) == pytest.approx(want, abs=1e-5)


def test_preprocess_uses_the_mean_and_std_of_the_config() -> None:
    model = tiny_model(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    white = model.preprocess(np.full((SIZE, SIZE, 3), 255, np.uint8))
    assert white.amax((1, 2)).tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)
    assert white.amin((1, 2)).tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


def test_preprocess_takes_arrays_of_any_layout_and_tensors_alike(model: MDHR) -> None:
    bgr = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    view = bgr[..., ::-1]  # negative strides, which torch does not take
    x = model.preprocess(view)
    assert torch.equal(x, model.preprocess(torch.from_numpy(view.copy())))
    assert torch.equal(x[0], model.preprocess(view[0]))


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.int64),
        np.zeros((3, SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE, 4), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        torch.zeros(SIZE, SIZE, 3),
        torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8),
    ],
    ids=lambda crops: f"{crops.dtype}-{tuple(crops.shape)}",
)
def test_preprocess_refuses_other_types_and_shapes(model: MDHR, crops: Any) -> None:
    with pytest.raises(InputError, match=r"expected uint8 crops \(\.\.\., 112, 112, 3\), got"):
        model.preprocess(crops)


@pytest.mark.parametrize("crops", [np.array(["crop.png"]), [[1, 2, 3]]], ids=["text", "list"])
def test_preprocess_refuses_what_is_no_array_of_numbers(model: MDHR, crops: Any) -> None:
    with pytest.raises(InputError, match="expected uint8 crops"):
        model.preprocess(crops)


# ---- configuration


def record_of(config: MDHRConfig) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(config.to_json())
    return record


def region(*aus: int, rows: tuple[Any, ...] = (0, 3), name: Any = "all") -> dict[str, Any]:
    return {"name": name, "rows": rows, "aus": aus}


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config("bp4d", source="a run"),
        tiny_config(head="logistic", calibration=((0.5, -1.0),) * 8),
        paper_config("bp4d", "swin_b"),
    ],
)
def test_config_json_round_trip(config: MDHRConfig, tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    assert read_config_file(path) == config
    assert MDHRConfig.from_json(config.to_json()) == config


def test_fields_with_defaults_may_be_left_out() -> None:
    record = record_of(tiny_config())
    for name in ("mean", "std", "version", "source", "network", "aligner"):
        del record[name]
    assert MDHRConfig.from_json(json.dumps(record)) == tiny_config()


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("no format", {"format": None}, '"format": 1'),
    ("later format", {"format": 2}, '"format": 1'),
    ("unknown field", {"depth": 3}, r"unknown fields \['depth'\]"),
    (
        "another network",
        {"network": "graphnet"},
        "unknown network, expected 'mdhr', got 'graphnet'",
    ),
    ("backbone", {"backbone": "vgg"}, "unknown backbone, expected one of"),
    ("backbone is a list", {"backbone": ["small"]}, "backbone"),
    ("AU twice", {"aus": [1, 2, 4, 6, 9, 12, 25, 25]}, "distinct, ascending"),
    ("AU twice in regions", {"regions": [region(1, 2, 4, 6, 9, 12, 25, 26), region(1)]}, "each of"),
    ("AU in no region", {"regions": [region(1, 2, 4, 6, 9, 12, 25)]}, "each of"),
    (
        "AU of a region unknown",
        {"regions": [region(1, 2, 4, 6, 9, 12, 25, 26), region(43)]},
        "each of",
    ),
    ("AUs not ascending", {"aus": [2, 1, 4, 6, 9, 12, 25, 26]}, "ascending"),
    ("AU 0", {"aus": [0], "regions": [region(0)], "thresholds": [0.5]}, r"1\.\.99"),
    ("no AUs", {"aus": [], "regions": [], "thresholds": []}, "aus must be"),
    ("65 AUs", {"aus": list(range(1, 66))}, "aus must be"),
    ("AUs are text", {"aus": "one"}, "wrong type"),
    ("AUs are null", {"aus": None}, "wrong type"),
    ("rows over the grid", {"regions": [region(*DISFA.aus, rows=(4, 8))]}, "not within 0..7"),
    ("rows negative", {"regions": [region(*DISFA.aus, rows=(-1, 3))]}, "not within 0..7"),
    ("rows empty", {"regions": [region(*DISFA.aus, rows=(3, 3))]}, "not within 0..7"),
    ("rows one number", {"regions": [region(*DISFA.aus, rows=(3,))]}, "wrong type"),
    ("region without rows", {"regions": [{"name": "all", "aus": DISFA.aus}]}, "wrong type"),
    ("regions are numbers", {"regions": [1, 2]}, "wrong type"),
    (
        "11 AUs in a region",
        {"aus": list(range(1, 12)), "regions": [region(*range(1, 12))], "thresholds": [0.5] * 11},
        "at most 10",
    ),
    ("input size", {"input_size": 96}, "input_size"),
    ("input size is text", {"input_size": "112"}, "input_size"),
    ("narrow", {"width": 4}, "8..4096"),
    ("absurd width", {"width": 10**9}, "8..4096"),
    ("width is text", {"width": "16"}, "width|wrong type"),
    ("absurd channels", {"dynamic_channels": 10**9}, "8..8192"),
    ("channels are null", {"dynamic_channels": None}, "dynamic_channels|wrong type"),
    ("four points", {"template": [[0.5, 0.5]] * 4}, "five points"),
    ("point outside", {"template": [[0.5, 0.5]] * 4 + [[0.5, 1.2]]}, "five points"),
    ("point with three numbers", {"template": [[0.5, 0.5, 0.5]] * 5}, "wrong type"),
    ("point not a number", {"template": [[0.5, float("nan")]] * 5}, "five points"),
    ("7 thresholds", {"thresholds": [0.5] * 7}, "8 numbers"),
    ("threshold over 1", {"thresholds": [0.5] * 7 + [1.5]}, "8 numbers"),
    ("threshold NaN", {"thresholds": [0.5] * 7 + [float("nan")]}, "8 numbers"),
    ("threshold is text", {"thresholds": ["high"] * 8}, "wrong type"),
    ("two means", {"mean": [0.5, 0.5]}, "three numbers"),
    ("mean infinite", {"mean": [0.5, 0.5, float("inf")]}, "three numbers"),
    ("name is a number", {"name": 5}, "name"),
    ("flag is text", {"project_regions": "no"}, "project_regions"),
    ("width is a fraction", {"width": 16.5}, "width"),
    ("input size is a float", {"input_size": 112.0}, "input_size"),
    ("unknown head", {"head": "softmax"}, "head"),
    ("too few calibrations", {"calibration": [[1, 0]]}, "calibration"),
    ("a slope that falls", {"calibration": [[-1, 0]] * 8}, "calibration"),
    ("an offset that is no number", {"calibration": [[1, float("nan")]] * 8}, "calibration"),
    ("a calibration of triples", {"calibration": [[1, 0, 0]] * 8}, "wrong type"),
    ("backbone options are a list", {"backbone_options": [8]}, "backbone_options"),
    ("std zero", {"std": [0.5, 0.5, 0.0]}, "std positive"),
]


@pytest.mark.parametrize(
    ("changes", "expected"), [c[1:] for c in BAD_FIELDS], ids=[c[0] for c in BAD_FIELDS]
)
def test_bad_fields_are_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        MDHRConfig.from_json(json.dumps(record_of(tiny_config()) | changes), origin="config.json")


@pytest.mark.parametrize(
    "name", ["name", "backbone", "aus", "regions", "project_regions", "template", "thresholds"]
)
def test_missing_fields_are_named(name: str) -> None:
    record = record_of(tiny_config())
    del record[name]
    with pytest.raises(
        ConfigError, match=rf"config\.json: unknown fields \[\], missing \['{name}'\]"
    ):
        MDHRConfig.from_json(json.dumps(record), origin="config.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"mdhr"', "1"])
def test_text_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match=r"my\.json"):
        MDHRConfig.from_json(text, origin="my.json")


def test_config_files_that_are_not_there_not_text_or_too_large(tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match="could not be read"):
        read_config_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="could not be read"):
        read_config_file(path)
    path.write_text(" " * 1_000_001)
    with pytest.raises(ConfigError, match="too large"):
        read_config_file(path)


UNNOTICED: list[tuple[str, dict[str, Any]]] = [
    ("AU infinite", {"aus": [float("inf")]}),
    ("AUs cut to whole numbers", {"aus": [1.7, 2, 4, 6, 9, 12, 25, 26]}),
    (
        "AUs from the letters of a text",
        {"aus": "1246", "regions": [region(1, 2, 4, 6)], "thresholds": [0.5] * 4},
    ),
    ("rows of three", {"regions": [region(*DISFA.aus, rows=(0, 3, 9))]}),
    ("region without AUs", {"regions": [region(*DISFA.aus), region()]}),
    ("small backbone with 224 px", {"input_size": 224}),
    ("resnet50 with 112 px", {"backbone": "resnet50", "backbone_options": {}}),
    ("unknown backbone option", {"backbone_options": {"depth": 3}}),
    ("three widths", {"backbone_options": {"widths": [8, 8, 8]}}),
    ("a stage without blocks", {"backbone_options": {"blocks": [1, 0, 1, 1]}}),
    ("absurd backbone", {"backbone_options": {"widths": [10**9] * 4}}),
]


@pytest.mark.parametrize("changes", [c[1] for c in UNNOTICED], ids=[c[0] for c in UNNOTICED])
def test_bad_fields_that_now_pass_or_end_in_another_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError), torch.device("meta"):
        MDHR(MDHRConfig.from_json(json.dumps(record_of(tiny_config()) | changes)))


def test_nested_brackets_are_a_config_error() -> None:
    with pytest.raises(ConfigError):
        MDHRConfig.from_json("[" * 100_000)


def test_group_order_by_hand() -> None:
    assert paper_config("disfa", "resnet50").group_order == tuple(range(8))
    # Laid end to end, BP4D's groups are 1 2 4 7 | 6 | 12 14 15 | 10 17 23 24.
    assert paper_config("bp4d", "resnet50").group_order == (0, 1, 2, 4, 3, 8, 5, 6, 7, 9, 10, 11)


def test_region_rows_and_names_come_back_as_given() -> None:
    regions = (Region("top", (0, 1), (4,)), Region("rest", (1, 7), (1, 12)))
    config = tiny_config(aus=(1, 4, 12), regions=regions, thresholds=(0.1, 0.2, 0.3))
    again = MDHRConfig.from_json(config.to_json())
    assert again.regions == regions
    assert again.au_names == ("AU01", "AU04", "AU12")
    assert again.group_order == (1, 0, 2)


@pytest.mark.parametrize(
    ("data", "backbone", "millions", "rounding"),
    [
        ("bp4d", "resnet50", 93.2, 0.05),
        ("disfa", "resnet50", 91.1, 0.05),
        ("bp4d", "swin_b", 108.15, 0.005),
        ("disfa", "swin_b", 106.0, 0.05),
    ],
)
def test_the_papers_networks_have_the_published_number_of_parameters(
    data: str, backbone: str, millions: float, rounding: float
) -> None:
    with torch.device("meta"):
        model = MDHR(paper_config(data, backbone))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert abs(count / 1e6 - millions) <= rounding
