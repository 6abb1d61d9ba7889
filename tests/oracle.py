"""What pyfau's network is held to.

Weights and inputs of the parity cases: the official code computed the outputs in tests/data/parity
from the same ones. `PaperNetwork` computes what the paper's code computes, in the way of that code.
The fast paths are compared with it: their answers in the tests, their time in benchmarks/.
"""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.mdhr import MDHR

KEYS = Path(__file__).resolve().parent / "data/parity/official_state_dict_keys.json"
CASES = ((0, 0, 2, 16), (1, 1, 1, 24), (2, 2, 1, 16), (3, 3, 1, 11))  # salt, seed, B, T


def official_state(keys: Path, network: str, salt: int) -> dict[str, torch.Tensor]:
    state = {}
    for key, shape in json.loads(keys.read_text())[network].items():
        rng = np.random.default_rng(zlib.crc32(key.encode()) + salt)
        if key.endswith(("num_batches_tracked", "relative_position_index", "attn_mask")):
            dtype = torch.float32 if key.endswith("attn_mask") else torch.int64
            state[key] = torch.zeros(shape, dtype=dtype)
            continue
        if key.endswith("running_var"):
            value = 0.5 + rng.random(shape)
        elif key.endswith(("running_mean", "bias")):
            value = 0.1 * rng.standard_normal(shape)
        elif key.endswith("relative_position_bias_table"):
            value = 0.02 * rng.standard_normal(shape)
        elif len(shape) == 1:
            value = 0.5 + rng.random(shape)
        elif key.endswith("_fc.weight"):
            value = rng.standard_normal(shape) * np.sqrt(2 / shape[1])
            value -= value.mean(axis=1, keepdims=True)
        else:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return state


def frames(seed: int, batch: int, length: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    steps = length // 4 + 2
    coarse = rng.standard_normal((batch, steps, 3, 14, 14)).astype(np.float32)
    times = np.linspace(0, steps - 1.001, length)
    low = np.floor(times).astype(int)
    weight = (times - low).astype(np.float32)[None, :, None, None, None]
    image = (1 - weight) * coarse[:, low] + weight * coarse[:, low + 1]
    gain = rng.uniform(0.1, 3.0, (batch, length, 1, 1, 1)).astype(np.float32)
    offset = rng.uniform(-2, 2, (batch, length, 3, 1, 1)).astype(np.float32)
    x = gain * image + offset
    return torch.from_numpy(x.repeat(16, axis=3).repeat(16, axis=4))


def random_model(network: str, keys: Path | None = None, salt: int = 0) -> MDHR:
    """One of the paper's networks with the random weights of the parity rule, unfolded, in eval
    mode.
    """
    from pyfau.weights.official import from_official, recognise

    keys = keys or KEYS
    state = official_state(keys, network, salt)
    config = recognise(state)
    assert config is not None
    model = MDHR(config).eval().requires_grad_(False)
    model.load_state_dict(from_official(state, config))
    return model


def _norm(x: Tensor, norm: Any, rows: slice = slice(None)) -> Tensor:
    """Batch norm over axis 1."""
    parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return F.batch_norm(x, *(p[rows] for p in parts), eps=norm.eps)


def _block(x: Tensor, block: Any, rows: slice = slice(None)) -> Tensor:
    """Linear, batch norm over channels, ReLU on tokens (F, 49, C)."""
    y = F.linear(x, block.linear.weight[rows], block.linear.bias[rows])
    return F.relu(_norm(y.transpose(1, 2), block.norm, rows)).transpose(1, 2)


class PaperNetwork(nn.Module):
    """The paper's network on whole clips, eager, contiguous, its batch norms apart, and each
    frame's difference convolved whenever a clip holds it; one layer an action unit, as the paper's
    code has it.

    Args:
        model: Where the weights come from; not changed.
    """

    def __init__(self, model: MDHR) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T, 3, S, S) -> scores (B, T, N) and region logits (B, T, 2^n), as
        `MDHR.relate_regions` gives them.
        """
        model = self.model
        config, (batch, length) = model.config, x.shape[:2]
        scales, static = model.backbone(x.flatten(0, 1).contiguous())
        tokens = _block(static, model.static) + self.dynamics(scales, batch, length)
        units, logits = self.regions(tokens)
        units = self.graph(units, logits).unflatten(0, (batch, length))
        temporal = model.temporal
        series = []
        for k in range(len(config.aus)):
            kernel = temporal.weight[:, k].T[:, None]
            y = F.conv1d(
                units[:, :, k].transpose(1, 2),
                kernel,
                temporal.bias[k],
                padding=2,
                groups=config.width,
            )
            series.append(y.transpose(1, 2))
        y = F.relu(_norm(torch.stack(series, dim=2).flatten(0, 1), temporal.norm))
        if config.head == "logistic":
            scores = torch.sigmoid(
                torch.einsum("fnd,nd->fn", y, model.classifier) + model.classifier_bias
            )
        else:
            scores = (F.normalize(y, dim=-1) * F.normalize(F.relu(model.classifier), dim=-1)).sum(
                -1
            )
        if config.calibration:
            slope, offset = torch.tensor(config.calibration).T
            scores = 1 / (1 + (1 / scores - 1) ** slope * torch.exp(-offset))
        return scores.unflatten(0, (batch, length)), [
            part.unflatten(0, (batch, length)) for part in logits
        ]

    def dynamics(self, scales: list[Tensor], batch: int, length: int) -> Tensor:
        mfd, pooled = self.model.dynamics, []
        for scale, projection, norm in zip(scales, mfd.projections, mfd.norms, strict=True):
            frames = scale.unflatten(0, (batch, length))
            change = (frames[:, 1:] - frames[:, :-1]).flatten(0, 1)
            y = F.conv2d(change, projection.weight, projection.bias, stride=projection.kernel)
            y = F.relu(_norm(y, norm)).unflatten(0, (batch, length - 1))
            y = F.avg_pool1d(
                y.permute(0, 2, 3, 4, 1).flatten(0, 3)[:, None], 10, stride=1, padding=5
            )
            shape = (batch, -1, 7, 7, length)
            pooled.append(y.view(shape).permute(0, 4, 1, 2, 3).flatten(0, 1))
        hints = []
        for y, block in zip(pooled, mfd.weight_blocks, strict=True):
            hint = F.conv2d(y, block.linear.weight[:, :, None, None], block.linear.bias)
            hints.append(F.relu(_norm(hint, block.norm)))
        weights = F.conv2d(
            torch.cat(hints, 1), mfd.weight.weight[:, :, None, None], mfd.weight.bias
        ).softmax(1)
        mixed = sum(weights[:, i : i + 1] * y for i, y in enumerate(pooled))
        y = F.conv2d(mixed, mfd.output.linear.weight[:, :, None, None], mfd.output.linear.bias)
        return F.relu(_norm(y.flatten(2), mfd.output.norm)).transpose(1, 2)

    def regions(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        config, features, logits = self.model.config, {}, []
        for region, part in zip(config.regions, self.model.regions, strict=True):
            own = tokens[:, region.rows[0] * 7 : region.rows[1] * 7]
            if config.project_regions:
                own = _block(own, part.projection)
            logits.append(part.head(own.mean(1)))
            for k, au in enumerate(region.aus):
                rows = slice(k * config.width, (k + 1) * config.width)
                features[au] = _block(own, part.au_blocks, rows).mean(1)
        return torch.stack([features[au] for au in config.aus], dim=1), logits

    def graph(self, units: Tensor, logits: list[Tensor]) -> Tensor:
        config, crm = self.model.config, self.model.cross_region
        active, group = torch.zeros(units.shape[:2]), {}
        for index, (region, logit) in enumerate(zip(config.regions, logits, strict=True)):
            chosen = logit.argmax(-1)
            for k, au in enumerate(region.aus):
                active[:, config.aus.index(au)] = (chosen >> (len(region.aus) - 1 - k)) & 1
                group[au] = index
        groups = torch.tensor([group[au] for au in config.aus])
        edges = (groups[:, None] != groups[None]) * active[:, None] + torch.eye(len(groups))
        h = crm.linear(units)
        score = F.leaky_relu(
            (h * crm.receiver).sum(-1)[:, :, None] + (h * crm.neighbour).sum(-1)[:, None], 0.2
        )
        attention = score.masked_fill(edges < 0.1, -torch.inf).softmax(-1)
        return F.elu(attention @ h + units + crm.bias)
