"""Weights, images and expected outputs of the networks for single frames.

The outputs in tests/data/parity/zoo are those of each project's code. Weights and images are
drawn from random generators by rules.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.frame_config import FrameConfig
from pyfau.models.graph import Attention, LearnedEdges
from pyfau.weights.official_frames import _sources, build
from pyfau.weights.rules import make_rules
from pyfau.weights.shapes import state_without_data

ZOO = Path(__file__).resolve().parent / "data/parity/zoo"
_SHARED = Path(__file__).resolve().parents[2] / "shared/reference/zoo"
_CONSTANT = ("num_batches_tracked", "relative_position_index", "attn_mask")
_SMALL = ("relative_position_bias_table", "pos_embed", "cls_token")


def case_file(name: str, folder: Path = ZOO) -> Path:
    """The stored outputs of a case; the largest files are next to the checkout."""
    path = folder / f"{name}.npz"
    if path.is_file():
        return path
    shared = _SHARED / path.name
    if not shared.is_file():
        pytest.skip(f"PARITY NUMBERS ARE MISSING: no {path.name} in shared/ next to the checkout")
    return shared


def official_state(name: str, folder: Path = ZOO) -> dict[str, Tensor]:
    """The official state dict of a case, without `module.` prefixes."""
    shapes = json.loads((folder / f"{name}.keys.json").read_text())
    with np.load(case_file(name, folder)) as case:
        salt = int(case["salt"])
        norms = {key.removeprefix("bn."): case[key] for key in case if key.startswith("bn.")}
    state = {key: _rule_made(key, shape, salt) for key, shape in shapes.items()}
    for key, value in norms.items():
        assert key in state
        state[key] = torch.from_numpy(value)
    return state


def made_state(config: FrameConfig, salt: int = 0) -> dict[str, Tensor]:
    """Rule-made weights under the official names, for variants without a list of names.

    Names and shapes follow from pyfau's rules for the official file. Constant tables are left out.
    """
    own = state_without_data(lambda: build(config))
    rules = make_rules(own, _sources(config, list(own)))
    state = {}
    for rule in rules:
        shape = list(own[rule.own].shape)
        for number, key in enumerate(rule.official):
            part = list(shape)
            if len(rule.official) > 1 and shape:
                part[0] //= len(rule.official)
            if key.endswith(("main_sc", "sub_sc")):
                part[0] = (27, 14)[number]
            if config.network == "pyfeat" and len(part) == 2 and key.endswith("0.weight"):
                part += [1, 1]
            state[key] = _rule_made(key, part, salt)
    return state


def _rule_made(key: str, shape: list[int], salt: int) -> Tensor:
    if key.endswith(_CONSTANT):
        dtype = torch.float32 if key.endswith("attn_mask") else torch.int64
        return torch.zeros(shape, dtype=dtype)
    rng = np.random.default_rng(zlib.crc32(key.encode()) + salt)
    if key.endswith("running_var"):
        value = 0.5 + rng.random(shape)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * rng.standard_normal(shape)
    elif key.endswith(_SMALL):
        value = 0.02 * rng.standard_normal(shape)
    elif len(shape) <= 1:
        value = 0.5 + rng.random(shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def images(seed: int) -> Tensor:
    """(2, 3, 224, 224) float32, normalised already."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((2, 3, 16, 16)).astype(np.float32))
    image = F.interpolate(coarse, size=224, mode="bilinear", align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.3, 2, (2, 1, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 1, 1)).astype(np.float32))
    return gain * image + offset


def plain_edges(model: LearnedEdges, units: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Stage 2 of the graph networks in the order of the paper: every edge has 49 tokens.

    Args:
        model: Where the weights come from.
        units: (F, N, 49, C) tokens of each node.
        tokens: (F, 49, C) tokens of the face.

    Returns:
        Nodes (F, N, C) and edges (F, N * N, C).
    """
    frames, count, length, width = units.shape
    face = tokens[:, None].expand(frames, count, length, width)
    features = _attend(model.features.face, units, face)
    ends = features[:, None].expand(frames, count, count, length, width).flatten(1, 2)
    starts = features[:, :, None].expand(frames, count, count, length, width).flatten(1, 2)
    edges = model.features.projection(_attend(model.features.pair, ends, starts))
    edges = _normalise(model.features.norm, edges).mean(dim=2)
    nodes = units.mean(dim=2)
    for layer in model.layers:
        start, end = _one_hot(count)
        change = start @ layer.start(nodes) + end @ layer.end(nodes) + layer.edge(edges)
        edges = edges + F.relu(_normalise(layer.edge_norm, change))
        gates = edges.sigmoid().unflatten(1, (count, count)).softmax(dim=2).flatten(1, 2)
        messages = start.T @ (gates * (end @ layer.other(nodes))) / count
        update = _normalise(layer.norm, layer.own(nodes) + messages)
        nodes = F.relu(nodes + update) if layer.relu_after_sum else nodes + F.relu(update)
    return nodes, edges


def _attend(attention: Attention, queries: Tensor, others: Tensor) -> Tensor:
    logits = attention.query(queries) @ attention.key(others).transpose(-1, -2) * attention.scale
    return logits.softmax(dim=-1) @ attention.value(others)


def _normalise(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm over axis 1."""
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )


def _one_hot(count: int) -> tuple[Tensor, Tensor]:
    """(N * N, N) tables of the first and the second node of each edge."""
    edges = torch.arange(count * count)
    return F.one_hot(edges // count, count).float(), F.one_hot(edges % count, count).float()
