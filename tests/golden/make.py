"""Write the golden outputs of the bundled model; `tests/test_golden.py` holds every later version
of pyfau to them.

    python tests/golden/make.py

One file for each version of the weights, named after the model and its version. Run it when the
weights change, never because a test fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyfau import AUDetector
from pyfau.demo import demo_frames
from pyfau.models.mdhr import MDHR
from pyfau.weights.store import open_model

FOLDER = Path(__file__).parent
FRAMES = 16


def noise_clip(side: int) -> np.ndarray:
    """(FRAMES, side, side, 3) uint8: coarse noise that drifts, made without any library of
    images.
    """
    coarse = np.random.default_rng(7).integers(0, 256, (2, 8, 8, 3)).astype(np.float64)
    share = np.linspace(0, 1, FRAMES)[:, None, None, None]
    moving = (1 - share) * coarse[0] + share * coarse[1]
    return np.kron(moving, np.ones((1, side // 8, side // 8, 1))).round().astype(np.uint8)


def network_scores(model: MDHR) -> np.ndarray:
    """(FRAMES, N) of the network alone."""
    with torch.inference_mode():
        x = model.preprocess(noise_clip(model.config.input_size))
        return model.relate(model.encode(x).unflatten(1, FRAMES))[0].numpy()


def portrait_scores(aligner: str) -> np.ndarray:
    """(15, N) of every fifth frame of the demo's clip, through the whole of pyfau."""
    result = AUDetector(device="cpu", aligner=aligner).detect_frames(demo_frames(), fps=25)
    return result.to_dataframe()[list(result.aus)].to_numpy()[::5]


def golden() -> dict[str, Any]:
    """The contents of the file of the bundled model."""
    loaded = open_model("mdhr-lite")
    return {
        "model": loaded.model.config.name,
        "version": loaded.model.config.version,
        "sha256": loaded.sha256,
        "aus": list(loaded.model.config.au_names),
        "network": np.round(network_scores(loaded.model), 6).tolist(),
        "portrait": np.round(portrait_scores("mtcnn"), 4).tolist(),
        "portrait_mesh": np.round(portrait_scores("mesh"), 4).tolist(),
    }


def path(model: str, version: str) -> Path:
    """Where the golden outputs of a version lie."""
    return FOLDER / f"{model}-{version}.json"


if __name__ == "__main__":
    record = golden()
    path(record["model"], record["version"]).write_text(json.dumps(record) + "\n")
