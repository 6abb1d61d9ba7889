"""Weights and inputs of the parity cases, by the rules of ../shared/reference/mdhr/README.md."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

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
    picture = (1 - weight) * coarse[:, low] + weight * coarse[:, low + 1]
    gain = rng.uniform(0.1, 3.0, (batch, length, 1, 1, 1)).astype(np.float32)
    offset = rng.uniform(-2, 2, (batch, length, 3, 1, 1)).astype(np.float32)
    x = gain * picture + offset
    return torch.from_numpy(x.repeat(16, axis=3).repeat(16, axis=4))
