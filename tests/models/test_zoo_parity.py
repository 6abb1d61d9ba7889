"""Networks for single frames against stored outputs of each project's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo

from pyfau.models.frame_network import FrameNetwork
from pyfau.models.graph import EdgeLayer, GraphNetwork, LearnedEdges
from pyfau.weights import official_frames as rules

RECOGNISERS = (
    rules.recognise_megraphau,
    rules.recognise_opengraphau,
    rules.recognise_libreface,
    rules.recognise_fmae,
    rules.recognise_pyfeat,
)
NAMES = {
    "libreface-combined": "libreface-resnet18-joint",
    "libreface-intensity": "libreface-resnet18-disfa",
    "opengraphau-s1-resnet18": "opengraphau-s1-resnet18-hybrid",
    "opengraphau-s1-swin_transformer_tiny": "opengraphau-s1-swint-hybrid",
    "pyfeat-v28": "pyfeat-convnextv2t-multitask",
}
SLOW_NAMES = {
    "fmae-base-bp4d": "fmae-vitb-bp4d",
    "fmae-base-disfa": "fmae-vitb-disfa",
    "megraphau-s1-resnet50-bp4d": "megraphau-s1-resnet50-bp4d",
    "megraphau-s2-resnet50-bp4d": "megraphau-s2-resnet50-bp4d",
    "megraphau-s2-resnet50-disfa": "megraphau-s2-resnet50-disfa",
    "megraphau-s2-swin_transformer_base-bp4d": "megraphau-s2-swinb-bp4d",
    "opengraphau-s1-resnet50": "opengraphau-s1-resnet50-hybrid",
    "opengraphau-s1-swin_transformer_base": "opengraphau-s1-swinb-hybrid",
    "opengraphau-s2-resnet50": "opengraphau-s2-resnet50-hybrid",
    "opengraphau-s2-swin_transformer_base": "opengraphau-s2-swinb-hybrid",
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NAMES]


def network(name: str) -> FrameNetwork:
    state = zoo.official_state(name)
    recognised = [recognise(state) for recognise in RECOGNISERS]
    (config,) = [config for config in recognised if config is not None]
    assert config.name == (NAMES | SLOW_NAMES)[name]
    model = rules.BUILDERS[config.network](config).eval()
    model.load_state_dict(rules.from_official(state, config))
    return model


def test_every_case_is_tried() -> None:
    cases = {path.name.removesuffix(".keys.json") for path in zoo.ZOO.glob("*.keys.json")}
    assert cases == NAMES.keys() | SLOW_NAMES.keys()


@pytest.mark.parametrize("name", [*NAMES, *SLOW])
def test_outputs_match_the_code_of_the_project(name: str) -> None:
    model = network(name)
    kinds = np.array([output.kind for output in model.config.outputs])
    with np.load(zoo.case_file(name)) as case, torch.inference_mode():
        x = zoo.images(int(case["seed"]))
        check = x.flatten(1)[:, ::9973][:, :16].numpy()
        np.testing.assert_array_equal(check, case["input_check"])
        # Two frames of one clip: a network for single frames scores each on its own.
        scores = model(x[None])[0].numpy()
        compared = 0
        for key in ("scores", "intensity", "occurrence"):
            if key in case:
                own = scores if key == "scores" else scores[:, kinds == key]
                assert np.abs(own - case[key]).max() <= 1e-5
                compared += own.shape[1]
        assert compared == len(model.config.outputs)
        if "edges" in case:
            assert isinstance(model, GraphNetwork)
            # Unbounded logits of float32, so the tolerance is relative.
            # Processors add in other orders: 1.1e-4 was seen without AVX-512.
            limit = 2e-4 * np.abs(case["edges"]).max()
            assert np.abs(model.classify_edges(x).numpy() - case["edges"]).max() <= limit


def random_edges(nodes: int, width: int, relu_after_sum: bool) -> LearnedEdges:
    """Stage 2 with random weights and statistics."""
    torch.manual_seed(nodes)
    model = LearnedEdges(nodes, width, relu_after_sum).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_var.uniform_(0.5, 1.5)
            for part in (module.running_mean, module.bias):
                part.normal_(0, 0.1)
            module.weight.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize(("nodes", "relu_after_sum"), [(8, True), (12, True), (27, False)])
def test_the_fast_form_of_stage_2_equals_the_plain_form(nodes: int, relu_after_sum: bool) -> None:
    model = random_edges(nodes, 64, relu_after_sum)
    units, tokens = torch.rand(2, nodes, 49, 64), torch.rand(2, 49, 64)
    fast_nodes, fast_edges = model.nodes_and_edges(units, tokens)
    nodes_, edges = zoo.plain_edges(model, units, tokens)
    classes = torch.rand(nodes, 64)
    fast_scores = torch.cosine_similarity(fast_nodes, classes, dim=-1)
    scores = torch.cosine_similarity(nodes_, classes, dim=-1)
    assert float((fast_scores - scores).abs().max()) < 1e-6
    assert float((fast_edges - edges).abs().max()) < 1e-5 * float(edges.abs().max())


def test_the_two_projects_differ_in_the_last_relu_of_a_layer() -> None:
    layer = EdgeLayer(3, 8, relu_after_sum=True).eval().requires_grad_(False)
    nodes, edges = torch.randn(1, 3, 8), torch.randn(1, 9, 8)
    after, _ = layer(nodes, edges)
    layer.relu_after_sum = False
    before, _ = layer(nodes, edges)
    assert float(after.min()) >= 0
    assert float(before.min()) < 0
    assert not torch.equal(after, before)
