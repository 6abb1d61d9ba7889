"""Use the network itself: features per frame once, scores of any window over them.

python examples/network_tensors.py
"""

from __future__ import annotations

import numpy as np
import torch

import pyfau


def main() -> None:
    model = pyfau.load_model("mdhr-lite")
    size = model.config.input_size
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (24, size, size, 3), dtype=np.uint8)  # aligned face crops of 24 frames
    with torch.inference_mode():
        features = model.encode(model.preprocess(crops))  # every frame once
        clip = model.relate(features[:16].unflatten(1, 16))  # (1, 16, N): one clip as in the paper
        inner = model.relate(features.unflatten(1, 24), "inner")  # (1, 10, N): frames with 7 on both sides
    print("clip", tuple(clip.shape), "inner", tuple(inner.shape))
    for name, score in zip(model.config.au_names, clip[0].mean(dim=0), strict=True):
        print(f"{name} {score:.3f}")


if __name__ == "__main__":
    main()
